"""Metrics from one matching beyond average precision: rates, curves, confusion matrix, errors, interval.

Precision, recall and F1 are at IoU 0.5. A class without ground truth has none of them; precision is also
undefined where nothing is detected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.metrics.error_kinds import ErrorKind, find_error_kinds
from utils.metrics.interval import map50_interval
from utils.metrics.matching import IOU, RECALLS, Floats, Integers, Matching, precision_envelope

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
        confidence: float64 (G,), 0 ... 1; minimum scores.
        precision: float64 (K, G) over `confidence`.
        recall: float64 (K, G) over `confidence`.
        f1: float64 (K, G) over `confidence`.
        recall_grid: float64 (101,), 0 ... 1.
        precision_at_recall: float64 (K, 101), the best precision at this or a higher recall, 0 where it is
            not reached; its mean over the grid is the class's AP50.
    """

    confidence: Floats
    precision: Floats
    recall: Floats
    f1: Floats
    recall_grid: Floats
    precision_at_recall: Floats


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix of the detections of a minimum score; difficult objects do not count.

    Attributes:
        conf: the minimum score.
        iou: the minimum IoU of a detection and its object.
        matrix: int64 (K + 1, K + 1): row = class of the object, column = class of the detection; the last row
            counts detections without an object of their own, the last column missed objects. The diagonal
            divided by the row sums is the recall of each class, by the column sums the precision.
    """

    conf: float
    iou: float
    matrix: Integers


@dataclass(frozen=True)
class ImageFaults:
    """Missed objects and wrong detections of each image at a minimum score.

    Attributes:
        missed: int64 (I,), objects without a detection of their class.
        wrong: int64 (I,), detections that are not right.
        worst_first: int64 (I,), the images by descending sum of both, equals in their order.
    """

    missed: Integers
    wrong: Integers
    worst_first: Integers


@dataclass(frozen=True)
class Analysis:
    """All metrics of this module, at IoU 0.5; per-class metrics are in the order of the labels.

    Attributes:
        report_conf: the minimum score of `at_report_conf`, `confusion` and `faults`.
        best: each class's rates at its best F1.
        at_report_conf: each class's rates at report_conf.
        map50_interval: the 95 % interval of mAP50 over the images, None without ground truth.
        errors: count and cost of each kind of error.
        confusion: the confusion matrix.
        curves: precision, recall and F1 over the score, precision over the recall.
        faults: missed objects and wrong detections of each image.
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


@dataclass(frozen=True)
class _Counts:
    """Of one class with ground truth, at S minimum scores: detections (S,), right ones (S,), objects."""

    taken: Integers
    right: Integers
    objects: int

    @property
    def precision(self) -> Floats:
        return np.where(self.taken > 0, self.right / np.maximum(self.taken, 1), np.nan)

    @property
    def recall(self) -> Floats:
        return self.right / self.objects

    @property
    def f1(self) -> Floats:
        return 2 * self.right / (self.taken + self.objects)  # 2 TP / (2 TP + FP + FN)

    def rates(self, index: int, threshold: float | None) -> Rates:
        precision = float(self.precision[index])
        return Rates(
            precision if self.taken[index] else None,
            float(self.recall[index]),
            float(self.f1[index]),
            threshold,
        )


def build_curves(matching: Matching) -> Curves:
    """Compute the curves of each class."""
    shape = (matching.boxes.num_classes, len(CONFIDENCES))
    precision, recall, f1 = (np.full(shape, np.nan) for _ in range(3))
    at_recall = np.full((shape[0], len(RECALLS)), np.nan)
    for label in np.flatnonzero(matching.truths).tolist():
        counts = _count(matching, label, CONFIDENCES)
        precision[label], recall[label], f1[label] = counts.precision, counts.recall, counts.f1
        at_recall[label] = _precision_at_recall(matching, label)
    return Curves(CONFIDENCES, precision, recall, f1, RECALLS, at_recall)


def rates_at(matching: Matching, conf: float) -> tuple[Rates, ...]:
    """Return the rates of each class at this minimum score."""
    return tuple(
        _count(matching, label, np.array([conf])).rates(0, conf) if objects else Rates(None, None, None, None)
        for label, objects in enumerate(matching.truths.tolist())
    )


def best_rates(matching: Matching) -> tuple[Rates, ...]:
    """Return the rates of each class at the minimum score with the highest F1, the highest of equals."""
    return tuple(_best(matching, label) for label in range(matching.boxes.num_classes))


def _best(matching: Matching, label: int) -> Rates:
    if not matching.truths[label]:
        return Rates(None, None, None, None)
    scores = np.unique(matching.ranked_scores[matching.ranked_labels == label])[::-1]
    if not len(scores):
        return Rates(None, 0.0, 0.0, None)
    counts = _count(matching, label, scores)
    best = int(counts.f1.argmax())
    return counts.rates(best, float(scores[best]))


def _count(matching: Matching, label: int, thresholds: Floats) -> _Counts:
    """Count the detections of a class, and the right ones, at each minimum score (S,)."""
    chosen = matching.ranked_labels == label
    scores = matching.ranked_scores[chosen]
    lowest = thresholds.astype(np.float32)  # as predict.py compares them
    taken = np.searchsorted(-scores, -lowest.astype(np.float64), side="right")
    right = np.append(0, np.cumsum(matching.right[chosen]))
    return _Counts(taken, right[taken], int(matching.truths[label]))


def _precision_at_recall(matching: Matching, label: int) -> Floats:
    """Return the best precision (101,) at each recall of RECALLS or above, 0 where it is not reached."""
    ranks = np.flatnonzero(matching.right[matching.ranked_labels == label]) + 1
    hits = np.arange(1, len(ranks) + 1)
    first = np.searchsorted(hits / matching.truths[label], RECALLS, side="left")
    return np.append(precision_envelope(hits / ranks), 0.0)[first]


def count_confusion(matching: Matching, conf: float) -> Confusion:
    """Count the confusion matrix at a minimum score.

    Matches of the same class come first, so that the diagonal agrees with precision and recall. Then each
    other detection, best first, takes the free object of another class with the highest IoU.
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
    return Confusion(conf, IOU, matrix)


def count_faults(matching: Matching, conf: float) -> ImageFaults:
    """Count the faults of each image at a minimum score."""
    boxes, images = matching.boxes, matching.boxes.num_images
    reaching = matching.reaching(conf)
    counted, right = matching.ranked[:reaching], matching.right[:reaching]
    found = np.bincount(boxes.image[counted[right]], minlength=images)
    missed = np.bincount(boxes.truth_image[~boxes.difficult], minlength=images) - found
    wrong = np.bincount(boxes.image[counted[~right]], minlength=images)
    return ImageFaults(missed, wrong, np.argsort(-(missed + wrong), kind="stable"))


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
