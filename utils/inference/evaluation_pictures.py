"""Charts of an evaluation, and the images with the most errors."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np

from utils.cli.console import warn
from utils.cli.errors import UserError
from utils.data.dataset import VocDataset
from utils.inference.evaluation import DatasetDetections, EvalResult
from utils.metrics.analysis import CONFIDENCES, count_faults, precision_recall_curves, rate_curves
from utils.metrics.matching import IOU, RECALLS
from utils.vision.contact_sheet import cell_size, draw_cell, draw_pair, save_sheet
from utils.vision.plots.evaluation_plots import plot_confusion, plot_curves, plot_errors

_MAX_WORST = 16


def draw_charts(result: EvalResult, folder: Path) -> None:
    """Write the charts: curves, confusion matrix, kinds of errors."""
    draw_summary(result, folder)
    curves = rate_curves(result.matching)
    for name, label, curve in zip(("P", "R", "F1"), ("precision", "recall", "f1"), curves, strict=True):
        plot_curves(
            folder / f"{name}_curve.png",
            CONFIDENCES,
            curve,
            result.class_names,
            labels=("score", "F1" if label == "f1" else label),
            values=[getattr(rates, label) for rates in result.best],
            mark_peak=label == "f1",
        )
    errors = {kind: (error.count, error.cost) for kind, error in result.errors.items()}
    plot_errors(folder / "errors.png", errors)


def draw_summary(result: EvalResult, folder: Path) -> None:
    """Write PR_curve.png and confusion_matrix.png, as training does too."""
    names, labels = result.class_names, ("recall", "precision")
    curves, aps = precision_recall_curves(result.matching), result.coco.ap50
    plot_curves(folder / "PR_curve.png", RECALLS, curves, names, labels=labels, values=aps)
    plot_confusion(folder / "confusion_matrix.png", result.confusion, names, result.report_conf, IOU)


def draw_worst(result: EvalResult, found: DatasetDetections, dataset: VocDataset, path: Path) -> None:
    """Write the images with the most faults, ground truth on the left and detections on the right.

    A fault is a missed object or a wrong detection at the result's report_conf. At most 16 images are shown,
    none without a fault; without any fault no file is written.
    """
    conf, names = result.report_conf, dataset.class_names
    missed, wrong = count_faults(result.matching, conf)
    total = missed + wrong
    worst = [image for image in np.argsort(-total, kind="stable")[:_MAX_WORST].tolist() if total[image]]
    if not worst:
        return
    records = [result.records[image] for image in worst]
    cell = cell_size(statistics.median(record.height / record.width for record in records))
    pairs = []
    for image in worst:
        try:
            pixels = dataset.read(found.indices[image])
        except UserError as error:
            warn(f"{path.name}: {error}; skipped")
            continue
        detections, target = found.detections[image], found.targets[image]
        summary = f"{missed[image]} missed, {wrong[image]} wrong, scores from {conf:g}"
        truth = draw_cell(pixels, target, names, f"truth  {target.image_id}", cell)
        shown = draw_cell(pixels, detections[detections.scores >= conf], names, summary, cell)
        pairs.append(draw_pair(truth, shown))
    if pairs:
        save_sheet(path, pairs, columns=2)
