"""Metrics from one matching beyond average precision: rates, curves, confusion matrix, errors, interval.

Precision, recall and F1 are at IoU 0.5. A class without ground truth has none of them; precision is also
undefined where nothing is detected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.metrics.error_kinds import ErrorKind, find_error_kinds
from utils.metrics.interval import map50_interval
from utils.metrics.matching import IOU, RECALLS, Floats, Integers, Matching, precision_at_recall

CONFIDENCES = np.linspace(0.0, 1.0, 501)


@dataclass(frozen=True)
class Rates:
    """Precision, recall and F1 of one class with the detections of a minimum score; None where undefined.

    Attributes:
        precision: fraction of the detections that are right.
        recall: fraction of the objects that are detected.
        f1: their harmonic mean.
        threshold: the minimum score.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    threshold: float | None


@dataclass(frozen=True)
class Curves:
    """The curves of each class at IoU 0.5, NaN where undefined.

    Attributes:
        precision: float64 (K, 501) at the minimum scores CONFIDENCES.
        recall: float64 (K, 501) at the same.
        f1: float64 (K, 501) at the same.
        precision_at_recall: float64 (K, 101), the best precision at RECALLS or above, 0 where they are not
            reached; its mean is the class's AP50.
    """

    precision: Floats
    recall: Floats
    f1: Floats
    precision_at_recall: Floats


@dataclass(frozen=True)
class ImageFaults:
    """Missed objects and wrong detections of each image at a minimum score.

    Attributes:
        missed: int64 (I,), objects without a detection of their class.
        wrong: int64 (I,), detections that are not right.
    """

    missed: Integers
    wrong: Integers


@dataclass(frozen=True)
class Analysis:
    """All metrics of this module, at IoU 0.5; per-class metrics are in the order of the labels.

    Attributes:
        report_conf: the minimum score of `at_report_conf`, `confusion` and `faults`.
        best: each class's rates at its best F1.
        at_report_conf: each class's rates at report_conf.
        map50_interval: the 95 % interval of mAP50 over the images, None without ground truth.
        errors: count and cost of each kind of error.
        confusion: int64 (K + 1, K + 1), see `count_confusion`.
        curves: precision, recall and F1 over the score, precision over the recall.
        faults: missed objects and wrong detections of each image.
    """

    report_conf: float
    best: tuple[Rates, ...]
    at_report_conf: tuple[Rates, ...]
    map50_interval: tuple[float, float] | None
    errors: dict[str, ErrorKind]
    confusion: Integers
    curves: Curves
    faults: ImageFaults


def analyze(matching: Matching, report_conf: float = 0.25) -> Analysis:
    """Compute all metrics of this module."""
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


def build_curves(matching: Matching) -> Curves:
    """Compute the curves of each class."""
    shape = (matching.boxes.num_classes, len(CONFIDENCES))
    precision, recall, f1 = (np.full(shape, np.nan) for _ in range(3))
    at_recall = np.full((shape[0], len(RECALLS)), np.nan)
    for label in np.flatnonzero(matching.truths).tolist():
        precision[label], recall[label], f1[label] = _rates(matching, label, CONFIDENCES)
        right = matching.right[matching.ranked_labels == label]
        at_recall[label] = precision_at_recall(right, matching.truths[label])
    return Curves(precision, recall, f1, at_recall)


def rates_at(matching: Matching, conf: float) -> tuple[Rates, ...]:
    """Return the rates of each class at this minimum score."""
    return tuple(_rates_at(matching, label, np.array([conf])) for label in range(len(matching.truths)))


def best_rates(matching: Matching) -> tuple[Rates, ...]:
    """Return the rates of each class at the minimum score with the highest F1, the highest of equals."""
    scores = (
        matching.ranked_scores[matching.ranked_labels == label] for label in range(len(matching.truths))
    )
    return tuple(_rates_at(matching, label, np.unique(own)[::-1]) for label, own in enumerate(scores))


def _rates_at(matching: Matching, label: int, thresholds: Floats) -> Rates:
    """Return the rates of a class at the minimum score (S,) with the highest F1, the first of equals."""
    if not matching.truths[label]:
        return Rates(None, None, None, None)
    if not len(thresholds):
        return Rates(None, 0.0, 0.0, None)
    precision, recall, f1 = _rates(matching, label, thresholds)
    best = int(f1.argmax())
    return Rates(
        precision=None if np.isnan(precision[best]) else float(precision[best]),
        recall=float(recall[best]),
        f1=float(f1[best]),
        threshold=float(thresholds[best]),
    )


def _rates(matching: Matching, label: int, thresholds: Floats) -> tuple[Floats, Floats, Floats]:
    """Return precision (NaN without detections), recall and F1 of a class at each minimum score (S,)."""
    chosen = matching.ranked_labels == label
    lowest = thresholds.astype(np.float32).astype(np.float64)  # as predict.py compares them
    taken = np.searchsorted(-matching.ranked_scores[chosen], -lowest, side="right")
    right = np.append(0, np.cumsum(matching.right[chosen]))[taken]
    objects = matching.truths[label]
    precision = np.where(taken > 0, right / np.maximum(taken, 1), np.nan)
    return precision, right / objects, 2 * right / (taken + objects)  # F1 = 2 TP / (2 TP + FP + FN)


def count_confusion(matching: Matching, conf: float) -> Integers:
    """Count the confusion matrix at a minimum score; difficult objects do not count.

    Matches of the same class come first, so that the diagonal agrees with precision and recall. Then each
    other detection, best first, takes the free object of another class with the highest IoU.

    Returns:
        int64 (K + 1, K + 1): row = class of the object, column = class of the detection. The last row counts
        detections without an object of their own, the last column missed objects.
    """
    boxes, background = matching.boxes, matching.boxes.num_classes
    reaching = matching.reaching(conf)
    counted, right = matching.ranked[:reaching], matching.right[:reaching]
    takers = np.full(len(boxes.truth_label), -1)
    takers[matching.taken[counted[right]]] = counted[right]
    _pair_other_classes(matching, counted[~right], takers)

    matrix = np.zeros((background + 1, background + 1), dtype=np.int64)
    easy = np.flatnonzero(~boxes.difficult)
    seen_as = np.append(boxes.label, background)[takers[easy]]  # -1, missed, is the background
    np.add.at(matrix, (boxes.truth_label[easy], seen_as), 1)
    alone = np.setdiff1d(counted, takers[easy])
    np.add.at(matrix, (background, boxes.label[alone]), 1)
    return matrix


def count_faults(matching: Matching, conf: float) -> ImageFaults:
    """Count the faults of each image at a minimum score."""
    boxes, images = matching.boxes, matching.boxes.num_images
    reaching = matching.reaching(conf)
    counted, right = matching.ranked[:reaching], matching.right[:reaching]
    found = np.bincount(boxes.image[counted[right]], minlength=images)
    objects = np.bincount(boxes.truth_image[~boxes.difficult], minlength=images)
    return ImageFaults(objects - found, np.bincount(boxes.image[counted[~right]], minlength=images))


def _pair_other_classes(matching: Matching, wrong: Integers, takers: Integers) -> None:
    """Let wrong detections, best first, take free objects of other classes; changes `takers`."""
    place = np.full(len(matching.boxes.label), -1)
    place[wrong] = np.arange(len(wrong))
    is_free = (takers < 0) & ~matching.boxes.difficult
    pairs = matching.overlaps
    pairs = pairs[(place[pairs.detection] >= 0) & is_free[pairs.truth] & (pairs.iou >= IOU)]
    pairs = pairs[np.lexsort((-pairs.iou, place[pairs.detection]))]
    done: set[int] = set()
    for detection, truth in zip(pairs.detection.tolist(), pairs.truth.tolist(), strict=True):
        if detection not in done and takers[truth] < 0:
            takers[truth] = detection
            done.add(detection)
