"""What one matching says beyond average precision: rates, curves, confusion, errors, interval, images."""

from __future__ import annotations

from dataclasses import dataclass

from utils.metrics.confusion import Confusion, ImageFaults, count_confusion, count_faults
from utils.metrics.curves import Curves, Rates, best_rates, build_curves, rates_at
from utils.metrics.error_kinds import ErrorKind, find_error_kinds
from utils.metrics.interval import map50_interval
from utils.metrics.matching import Matching


@dataclass(frozen=True)
class Analysis:
    """All of it, at IoU 0.5; per-class figures are in the order of the labels.

    Attributes:
        report_conf: the lowest score of `at_report_conf`, `confusion` and `faults`.
        best: each class's rates at its best F1.
        at_report_conf: each class's rates at report_conf.
        map50_interval: the 95 % interval of mAP50 over the images, None without ground truth.
        errors: count and cost of each kind of error.
        confusion: what is taken for what.
        curves: precision, recall and F1 over the score, precision over the recall.
        faults: what is missed and what is wrong in each image, and the worst images.
    """

    report_conf: float
    best: tuple[Rates, ...]
    at_report_conf: tuple[Rates, ...]
    map50_interval: tuple[float, float] | None
    errors: dict[str, ErrorKind]
    confusion: Confusion
    curves: Curves
    faults: ImageFaults


def analyze(matching: Matching, report_conf: float = 0.25) -> Analysis:
    """Compute all of it; a class without ground truth has no rates."""
    return Analysis(
        report_conf=report_conf,
        best=best_rates(matching),
        at_report_conf=rates_at(matching, report_conf),
        map50_interval=map50_interval(matching),
        errors=find_error_kinds(matching),
        confusion=count_confusion(matching, report_conf),
        curves=build_curves(matching),
        faults=count_faults(matching, report_conf),
    )
