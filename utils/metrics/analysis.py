"""Precision, recall and F1 over the score, confusion matrix, and faults of each image, at IoU 0.5.

A class without ground truth has no precision, recall and F1; precision is also undefined where nothing is
detected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.metrics.matching import IOU, RECALLS, Floats, Integers, Matching, precision_at_recall

CONFIDENCES = np.linspace(0.0, 1.0, 501)


@dataclass(frozen=True)
class Rates:
    """Precision, recall and F1 of one class with the detections of a minimum score; None where undefined."""

    precision: float | None  # fraction of the detections that are right
    recall: float | None  # fraction of the objects that are detected
    f1: float | None  # their harmonic mean
    threshold: float | None  # the minimum score


def rate_curves(matching: Matching) -> Floats:
    """Compute precision, recall and F1 of each class at the minimum scores CONFIDENCES.

    Returns:
        float64 (3, K, 501), NaN where undefined.
    """
    curves = np.full((3, len(matching.truths), len(CONFIDENCES)), np.nan)
    for label in np.flatnonzero(matching.truths).tolist():
        curves[:, label] = _rates(matching, label, CONFIDENCES)
    return curves


def precision_recall_curves(matching: Matching) -> Floats:
    """Compute the best precision of each class at RECALLS or above, whose mean is the class's AP50.

    Returns:
        float64 (K, 101), 0 where a recall is not reached, NaN without ground truth.
    """
    curves = np.full((len(matching.truths), len(RECALLS)), np.nan)
    for label in np.flatnonzero(matching.truths).tolist():
        right = matching.right[matching.ranked_labels == label]
        curves[label] = precision_at_recall(right, matching.truths[label])
    return curves


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
    rates = np.stack(_rates(matching, label, thresholds))  # (3, S)
    index = rates[2].argmax()
    precision, recall, f1 = rates[:, index].tolist()
    return Rates(None if np.isnan(precision) else precision, recall, f1, float(thresholds[index]))


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
    right, wrong = matching.split_at(conf)
    takers = np.full(len(boxes.truth_label), -1)
    takers[matching.taken[right]] = right
    _pair_other_classes(matching, wrong, takers)

    matrix = np.zeros((background + 1, background + 1), dtype=np.int64)
    easy = np.flatnonzero(~boxes.difficult)
    seen_as = np.append(boxes.label, background)[takers[easy]]  # -1, missed, is the background
    np.add.at(matrix, (boxes.truth_label[easy], seen_as), 1)
    alone = np.setdiff1d(wrong, takers[easy])
    np.add.at(matrix, (background, boxes.label[alone]), 1)
    return matrix


def count_faults(matching: Matching, conf: float) -> tuple[Integers, Integers]:
    """Return missed objects and wrong detections of each image at a minimum score, int64 (I,) each."""
    boxes, images = matching.boxes, matching.boxes.num_images
    right, wrong = matching.split_at(conf)
    objects = np.bincount(boxes.truth_image[~boxes.difficult], minlength=images)
    found = np.bincount(boxes.image[right], minlength=images)
    return objects - found, np.bincount(boxes.image[wrong], minlength=images)


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
