"""Precision, recall and F1 at IoU 0.5, at one score and along all of them.

A class without ground truth has none of them; precision is also undefined where nothing is detected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.metrics.flat import Floats, Integers
from utils.metrics.matching import RECALLS, Matching, falling

CONFIDENCES = np.linspace(0.0, 1.0, 501)


@dataclass(frozen=True)
class Rates:
    """What one class reaches with the detections of at least one score; None where undefined.

    Attributes:
        precision: share of the detections that are right.
        recall: share of the objects that are found.
        f1: their harmonic mean.
        threshold: the lowest score that is taken.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    threshold: float | None


@dataclass(frozen=True)
class Curves:
    """The curves of each class at IoU 0.5, NaN where undefined.

    Attributes:
        confidence: float64 (G,), 0 ... 1; at each the detections of at least that score are taken.
        precision: float64 (K, G) over `confidence`.
        recall: float64 (K, G) over `confidence`.
        f1: float64 (K, G) over `confidence`.
        recall_grid: float64 (101,), 0 ... 1.
        precision_at_recall: float64 (K, 101), the best precision at this or a higher recall, 0 where no
            score reaches it; its mean over the grid is the class's AP50.
    """

    confidence: Floats
    precision: Floats
    recall: Floats
    f1: Floats
    recall_grid: Floats
    precision_at_recall: Floats


@dataclass(frozen=True)
class _Counts:
    """Of one class with ground truth: detections taken (S,), right ones among them (S,), objects."""

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
    """Return the rates of each class with the detections of at least this score."""
    return tuple(
        _count(matching, label, np.array([conf])).rates(0, conf) if objects else Rates(None, None, None, None)
        for label, objects in enumerate(matching.truths.tolist())
    )


def best_rates(matching: Matching) -> tuple[Rates, ...]:
    """Return the rates of each class at the score with the highest F1, the highest such score."""
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
    """Count what is taken of a class, and right, at each of some lowest scores (S,)."""
    chosen = matching.ranked_labels == label
    scores = matching.ranked_scores[chosen]
    lowest = thresholds.astype(np.float32)  # as predict compares them
    taken = np.searchsorted(-scores, -lowest.astype(np.float64), side="right")
    right = np.append(0, np.cumsum(matching.right[chosen]))
    return _Counts(taken, right[taken], int(matching.truths[label]))


def _precision_at_recall(matching: Matching, label: int) -> Floats:
    """Return the best precision (101,) at each recall of RECALLS or above, 0 where none is reached."""
    ranks = np.flatnonzero(matching.right[matching.ranked_labels == label]) + 1
    hits = np.arange(1, len(ranks) + 1)
    first = np.searchsorted(hits / matching.truths[label], RECALLS, side="left")
    return np.append(falling(hits / ranks), 0.0)[first]
