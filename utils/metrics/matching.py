"""Which detection found which object at IoU 0.5, by COCO's rule, and the average precision of that.

The one matching behind precision, recall, the curves, the confusion matrix, the error kinds and the interval
of mAP50. Source: COCOeval.evaluateImg and accumulate of https://github.com/cocodataset/cocoapi: detections of
an image and class, best first and 100 at most, each take the free object that they overlap most, a difficult
one only if there is no other; what took a difficult one does not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from utils.metrics.flat import Bools, FlatBoxes, Floats, Integers, Overlaps, find_overlaps

IOU = 0.5
MAX_DETECTIONS = 100  # an image and class, as COCO caps them
RECALLS = np.linspace(0.0, 1.0, 101)  # where COCO reads the precision


@dataclass(frozen=True)
class Matching:
    """Who found what; detections and ground truths are rows of `boxes`.

    Attributes:
        boxes: all detections and ground truths.
        overlaps: the pairs of them that overlap.
        taken: int64 (N,), the ground truth that each detection took, -1 for none.
        taker: int64 (M,), the detection that took each ground truth, -1 for none.
        ranked: int64 (C,), the detections that count, highest score first, equals in the order of `boxes`.
        right: bool (C,), which of `ranked` took an object.
        truths: int64 (K,), ground truths of each class that are not difficult.
    """

    boxes: FlatBoxes
    overlaps: Overlaps
    taken: Integers
    taker: Integers
    ranked: Integers
    right: Bools
    truths: Integers

    @cached_property
    def ranked_labels(self) -> Integers:
        """The classes of `ranked`, int64 (C,)."""
        return self.boxes.label[self.ranked]

    @cached_property
    def ranked_scores(self) -> Floats:
        """The scores of `ranked`, float64 (C,), falling."""
        return self.boxes.score[self.ranked]

    def reaching(self, conf: float) -> int:
        """Return how many of `ranked` have at least this score, compared in float32 as predict does."""
        return int(np.searchsorted(-self.ranked_scores, -float(np.float32(conf)), side="right"))

    def map50(self) -> float | None:
        """Return COCO's mean average precision at IoU 0.5, None without ground truth."""
        known = [ap for ap in class_aps(self.ranked_labels, self.right, self.truths) if ap is not None]
        return sum(known) / len(known) if known else None


def match(boxes: FlatBoxes, overlaps: Overlaps | None = None) -> Matching:
    """Match detections with ground truths; `overlaps` are those of the boxes if they are known already."""
    overlaps = find_overlaps(boxes) if overlaps is None else overlaps
    order, rank = _rank_in_images(boxes)
    is_kept = rank < MAX_DETECTIONS
    place = np.empty_like(order)
    place[order] = np.arange(len(order))

    is_same = boxes.label[overlaps.detection] == boxes.truth_label[overlaps.truth]
    pairs = overlaps[is_same & (overlaps.iou >= IOU) & is_kept[overlaps.detection]]
    # Each detection's choices in its order: not difficult, highest IoU, the last of equals.
    choice = np.lexsort((-pairs.truth, -pairs.iou, boxes.difficult[pairs.truth], place[pairs.detection]))
    taken, taker = [-1] * len(boxes.label), [-1] * len(boxes.truth_label)
    for detection, truth in zip(pairs.detection[choice].tolist(), pairs.truth[choice].tolist(), strict=True):
        if taken[detection] < 0 and taker[truth] < 0:
            taken[detection], taker[truth] = truth, detection

    takes = np.array(taken, dtype=np.int64)
    counts = is_kept & ~np.append(boxes.difficult, False)[takes]  # -1 is the False
    ranked = np.flatnonzero(counts)
    ranked = ranked[np.argsort(-boxes.score[ranked], kind="stable")]
    return Matching(
        boxes=boxes,
        overlaps=overlaps,
        taken=takes,
        taker=np.array(taker, dtype=np.int64),
        ranked=ranked,
        right=takes[ranked] >= 0,
        truths=boxes.count_truths(),
    )


def class_aps(labels: Integers, right: Bools, truths: Integers) -> list[float | None]:
    """Compute COCO's average precision of each class.

    Args:
        labels: int64 (C,), the class of each detection, highest score first.
        right: bool (C,), whether it is right.
        truths: int64 (K,), objects of each class; a class without any has no average precision.
    """
    return [
        average_precision(right[labels == label], count) if count else None
        for label, count in enumerate(truths.tolist())
    ]


def average_precision(right: Bools, count: int) -> float:
    """Compute the mean of the best precision at recall >= 0, 0.01 ... 1.

    Args:
        right: bool (N,), whether each detection is right, highest score first.
        count: objects, at least 1.
    """
    ranks = np.flatnonzero(right) + 1  # the best precision is at a right one
    hits = np.arange(1, len(ranks) + 1)
    precision = falling(hits / ranks)
    first = np.searchsorted(hits / count, RECALLS, side="left")
    return float(precision[first[first < len(ranks)]].sum() / len(RECALLS))


def falling(precision: Floats) -> Floats:
    """Return the best precision at this or a later rank, along the last axis."""
    return np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]


def _rank_in_images(boxes: FlatBoxes) -> tuple[Integers, Integers]:
    """Return the detections by image, class and falling score, and each one's rank in its image and class."""
    order = np.lexsort((-boxes.score, boxes.label, boxes.image))
    group = (boxes.image * boxes.num_classes + boxes.label)[order]
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order)) - np.searchsorted(group, group, side="left")
    return order, rank
