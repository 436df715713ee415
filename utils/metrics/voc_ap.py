"""VOC average precision by the rules of the devkit.

Source: VOCevaldet.m of the VOC2007 and VOC2012 devkits (http://host.robots.ox.ac.uk/pascal/VOC/): a detection
is compared with the ground truth of its class with the highest IoU. At IoU >= 0.5 it is right if that object
is free and wrong if a better detection took it; it does not count if the object is difficult.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.metrics.matching import IOU, Bools, Integers, Matching, precision_envelope


@dataclass(frozen=True)
class VocResult:
    """AP of each class; None where a class has no ground truth."""

    ground_truths: tuple[int, ...]  # objects of each class, without difficult ones
    area: tuple[float | None, ...]  # AP as the area under the precision-recall curve (VOC2010 and later)
    eleven_point: tuple[float | None, ...]  # AP as the mean precision at recall 0, 0.1 ... 1 (VOC2007)


def voc_ap(matching: Matching) -> VocResult:
    """Compute the devkit's AP of each class, which needs the overlaps of a matching only."""
    boxes, overlaps = matching.boxes, matching.overlaps
    is_same = boxes.label[overlaps.detection] == boxes.truth_label[overlaps.truth]
    best = overlaps[is_same & (overlaps.iou >= IOU)].best()
    taken = np.full(len(boxes.label), -1)
    taken[best.detection] = best.truth

    truths = tuple(matching.truths.tolist())
    aps: list[tuple[float | None, float | None]] = []
    for label, count in enumerate(truths):
        chosen = np.flatnonzero(boxes.label == label)
        order = chosen[np.argsort(-boxes.score[chosen], kind="stable")]
        right = _judge(taken[order], boxes.difficult)
        aps.append(average_precisions(right, count) if count else (None, None))
    return VocResult(truths, tuple(area for area, _ in aps), tuple(points for _, points in aps))


def average_precisions(right: Bools, count: int) -> tuple[float, float]:
    """Compute a class's AP by area and by 11 points.

    Args:
        right: bool (N,), whether each detection that counts is right, highest score first.
        count: number of ground truths, at least 1.
    """
    hits = np.cumsum(right)
    precision = precision_envelope(hits / np.arange(1, len(hits) + 1))
    area = precision[right].sum() / count  # recall rises by 1 / count at every right detection
    # In integers: 3 of 10 reach 0.3 although 3 / 10 < 0.1 * 3 in floats.
    first = np.searchsorted(10 * hits, np.arange(11) * count, side="left")
    return float(area), float(sum(precision[index] for index in first if index < len(precision)) / 11)


def _judge(taken: Integers, difficult: Bools) -> Bools:
    """Return whether each detection of a class that counts, best first, is right."""
    taken = taken[~np.append(difficult, False)[taken]]  # -1 is the False
    right = np.zeros(len(taken), dtype=bool)
    objects, firsts = np.unique(taken, return_index=True)
    right[firsts[objects >= 0]] = True
    return right
