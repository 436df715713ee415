"""VOC average precision by the devkit's rules.

Source: VOCevaldet.m of the VOC2007 and VOC2012 devkits (http://host.robots.ox.ac.uk/pascal/VOC/): a detection
is compared with the ground truth of its class that it overlaps most. At IoU >= 0.5 it is right if that object
is still free and wrong if an earlier detection took it; it does not count at all if the object is difficult.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nets.boxes import box_iou
from nets.structures import Detections, Target


@dataclass(frozen=True)
class VocResult:
    """AP of each class; None where a class has no ground truth to find.

    Attributes:
        ground_truths: objects a class, without the difficult ones.
        area: AP as the area under the precision-recall curve (VOC2010 and later).
        eleven_point: AP as the mean precision at recall 0, 0.1 ... 1 (VOC2007).
    """

    ground_truths: tuple[int, ...]
    area: tuple[float | None, ...]
    eleven_point: tuple[float | None, ...]

    @property
    def mean_area(self) -> float | None:
        """Mean of `area` over the classes with ground truth, None when there is none."""
        return mean_known(self.area)

    @property
    def mean_eleven_point(self) -> float | None:
        """Mean of `eleven_point` over the classes with ground truth, None when there is none."""
        return mean_known(self.eleven_point)


def voc_ap(
    detections: Sequence[Detections], targets: Sequence[Target], num_classes: int, iou_threshold: float = 0.5
) -> VocResult:
    """Compute the devkit's AP of each class.

    Args:
        detections: one an image, boxes in pixels of the image.
        targets: one an image, in the same order.
        num_classes: K; labels are below it.
        iou_threshold: lowest IoU of a right detection.
    """
    matches = [_match_image(*pair, iou_threshold) for pair in zip(detections, targets, strict=True)]
    taken = _concatenate(matches, np.int64)
    first = np.cumsum(
        [0] + [len(target) for target in targets]
    )  # of each image, in one numbering of all objects
    offsets = np.repeat(first[:-1], [len(found) for found in detections])
    taken = np.where(taken >= 0, taken + offsets, -1)
    scores = _concatenate([found.scores.cpu().numpy() for found in detections], np.float32)
    labels = _concatenate([found.labels.cpu().numpy() for found in detections], np.int64)
    truth_labels = _concatenate([target.labels.cpu().numpy() for target in targets], np.int64)
    difficult = _concatenate([target.difficult.cpu().numpy() for target in targets], np.bool_)

    counts, area, eleven_point = [], [], []
    for label in range(num_classes):
        count = int(np.sum((truth_labels == label) & ~difficult))
        chosen = np.flatnonzero(labels == label)
        order = chosen[np.argsort(-scores[chosen], kind="stable")]
        right = _judge(taken[order], difficult)
        counts.append(count)
        area.append(area_ap(right, count) if count else None)
        eleven_point.append(eleven_point_ap(right, count) if count else None)
    return VocResult(tuple(counts), tuple(area), tuple(eleven_point))


def area_ap(right: np.ndarray, count: int) -> float:
    """Compute the area under the precision-recall curve after making precision fall with recall.

    Args:
        right: bool (N,), whether each detection that counts is right, highest score first.
        count: number of ground truths, at least 1.
    """
    precision = _falling_precision(np.cumsum(right))
    return float(precision[right].sum() / count)  # recall rises by 1 / count at every right detection


def eleven_point_ap(right: np.ndarray, count: int) -> float:
    """Compute the mean of the best precision at recall >= 0, 0.1 ... 1; arguments as `area_ap`.

    Recall is compared as whole numbers: 3 of 10 found reach 0.3 although 3 / 10 < 0.1 * 3 in floats.
    """
    hits = np.cumsum(right)
    precision = _falling_precision(hits)
    first = np.searchsorted(10 * hits, np.arange(11) * count, side="left")
    return float(sum(precision[index] for index in first if index < len(precision)) / 11)


def mean_known(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are not None, None when there is none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _match_image(found: Detections, target: Target, iou_threshold: float) -> np.ndarray:
    """Return for each detection the ground truth it overlaps most, int64 (N,); -1 if too little."""
    if not len(found) or not len(target):
        return np.full(len(found), -1, dtype=np.int64)
    iou = box_iou(found.boxes.cpu().double(), target.boxes.cpu().double())  # (N, M)
    same_class = found.labels.cpu()[:, None] == target.labels.cpu()[None]
    best, index = torch.where(same_class, iou, -1.0).max(dim=1)
    return torch.where(best >= iou_threshold, index, -1).numpy()


def _judge(taken: np.ndarray, difficult: np.ndarray) -> np.ndarray:
    """Return right or wrong, bool, for those of one class's detections, best first, that count."""
    matched = taken >= 0
    ignored = np.zeros(len(taken), dtype=bool)
    ignored[matched] = difficult[taken[matched]]
    taken = taken[~ignored]
    right = np.zeros(len(taken), dtype=bool)
    objects, firsts = np.unique(taken, return_index=True)
    right[firsts[objects >= 0]] = True
    return right


def _falling_precision(hits: np.ndarray) -> np.ndarray:
    """Return the best precision at this or a later rank, from the right detections up to each."""
    precision = hits / np.arange(1, len(hits) + 1)
    return np.maximum.accumulate(precision[::-1])[::-1]


def _concatenate(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)
