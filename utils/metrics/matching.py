"""Matching of detections and ground truths at IoU 0.5 by COCO's rule, on flat arrays of all images.

All other metrics are computed from this: IoU is computed once, on exactly the numbers that detections.json
and ground_truth.json hold. Source: COCOeval.evaluateImg and accumulate of
https://github.com/cocodataset/cocoapi: the detections of an image and class, best first and at most 100, each
take the free object with the highest IoU. VOC's difficult objects are COCO's crowd regions: a detection that
took no object does not count if at least half of its area is inside a difficult object of its class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nets.structures import Detections, Target

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

IOU = 0.5
MIN_IOU = 0.1  # a detection with less is on background
MAX_DETECTIONS = 100  # per image and class, as in COCO
RECALLS = np.linspace(0.0, 1.0, 101)  # where COCO reads the precision
_DECIMALS = 4  # of a box; float32 holds little more


@dataclass(frozen=True)
class FlatBoxes:
    """Detections and ground truths of all images, one row each, in the order of the images."""

    num_images: int  # I; images are numbered from 0
    num_classes: int  # K; labels are below it
    image: Integers  # int64 (N,), the image of each detection
    label: Integers  # int64 (N,), its class
    score: Floats  # float64 (N,) in [0, 1]
    box: Floats  # float64 (N, 4), (x1, y1, width, height) in pixels, to 1e-4
    truth_image: Integers  # int64 (M,), the image of each ground truth
    truth_label: Integers  # int64 (M,), its class
    truth_box: Floats  # float64 (M, 4), as `box`
    difficult: Bools  # bool (M,), VOC's flag: detecting it is neither right nor wrong


@dataclass(frozen=True)
class Overlaps:
    """Pairs of a detection and a ground truth in one image, of any class, with at least MIN_IOU."""

    detection: Integers  # int64 (P,), rows of the detections, ascending
    truth: Integers  # int64 (P,), rows of the ground truths, ascending for each detection
    iou: Floats  # float64 (P,)

    def __getitem__(self, index: Bools | Integers) -> Overlaps:
        """Select pairs by a mask bool (P,) or by indices."""
        return Overlaps(self.detection[index], self.truth[index], self.iou[index])

    def best(self) -> Overlaps:
        """Return each detection's pair with the highest IoU, the first of equals."""
        ranked = self[np.lexsort((-self.iou, self.detection))]
        return ranked[np.unique(ranked.detection, return_index=True)[1]]


@dataclass(frozen=True)
class Matching:
    """Which detection took which object; both are rows of `boxes`."""

    boxes: FlatBoxes  # all detections and ground truths
    overlaps: Overlaps  # the pairs that overlap
    taken: Integers  # int64 (N,), the ground truth that each detection took, never a difficult one; -1: none
    taker: Integers  # int64 (M,), the detection that took each ground truth, -1: none
    # int64 (C,), the detections that count, highest score first, equals in the order of `boxes`.
    ranked: Integers
    right: Bools  # bool (C,), which of `ranked` took an object
    truths: Integers  # int64 (K,), ground truths of each class, without difficult ones

    def map50(self) -> float | None:
        """Return COCO's mean average precision at IoU 0.5, None without ground truth."""
        return mean_known(class_aps(self.ranked_labels, self.right, self.truths))

    @cached_property
    def ranked_labels(self) -> Integers:
        """The classes of `ranked`, int64 (C,)."""
        return self.boxes.label[self.ranked]

    @cached_property
    def ranked_scores(self) -> Floats:
        """The scores of `ranked`, float64 (C,), descending."""
        return self.boxes.score[self.ranked]

    def split_at(self, conf: float) -> tuple[Integers, Integers]:
        """Return the right and the wrong of `ranked` with at least this score, as predict.py compares it."""
        reaching = np.searchsorted(-self.ranked_scores, -float(np.float32(conf)), side="right")
        ranked, right = self.ranked[:reaching], self.right[:reaching]
        return ranked[right], ranked[~right]


def flatten(detections: Sequence[Detections], targets: Sequence[Target], num_classes: int) -> FlatBoxes:
    """Concatenate the detections and the ground truths of all images, one of each per image.

    Raises:
        ValueError: the numbers of detections and targets differ.
    """
    if len(detections) != len(targets):
        raise ValueError(f"{len(detections)} detections for {len(targets)} targets; one per image is needed")
    found, truth = [Detections.empty(), *detections], [Target.empty(), *targets]  # cat needs one
    images = np.arange(-1, len(targets))
    return FlatBoxes(
        num_images=len(targets),
        num_classes=num_classes,
        image=np.repeat(images, [len(one) for one in found]),
        label=_join([one.labels for one in found]),
        score=_join([one.scores for one in found]).astype(np.float64),
        box=_xywh([one.boxes for one in found]),
        truth_image=np.repeat(images, [len(one) for one in truth]),
        truth_label=_join([one.labels for one in truth]),
        truth_box=_xywh([one.boxes for one in truth]),
        difficult=_join([one.difficult for one in truth]),
    )


def find_overlaps(boxes: FlatBoxes) -> Overlaps:
    """Compute the IoU of each detection with each ground truth of its image."""
    images = np.arange(boxes.num_images + 1)
    first_found, first_truth = (
        np.searchsorted(boxes.image, images),
        np.searchsorted(boxes.truth_image, images),
    )
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for (found, found_end), (truth, truth_end) in zip(
        pairwise(first_found), pairwise(first_truth), strict=True
    ):
        iou = _iou(boxes.box[found:found_end], boxes.truth_box[truth:truth_end])
        rows, columns = np.nonzero(iou >= MIN_IOU)
        parts.append((found + rows, truth + columns, iou[rows, columns]))
    detections, truths, ious = zip(*parts, strict=True)
    return Overlaps(np.concatenate(detections), np.concatenate(truths), np.concatenate(ious))


def match(boxes: FlatBoxes) -> Matching:
    """Match detections with ground truths."""
    overlaps = find_overlaps(boxes)
    order, rank = _rank_in_images(boxes)
    is_kept = rank < MAX_DETECTIONS
    place = np.empty_like(order)
    place[order] = np.arange(len(order))

    is_same = boxes.label[overlaps.detection] == boxes.truth_label[overlaps.truth]
    is_near = is_same & (overlaps.iou >= IOU) & ~boxes.difficult[overlaps.truth]
    pairs = overlaps[is_near & is_kept[overlaps.detection]]
    # Each detection's candidates in order: the highest IoU first, the last of equals.
    choice = np.lexsort((-pairs.truth, -pairs.iou, place[pairs.detection]))
    taken, taker = [-1] * len(boxes.label), [-1] * len(boxes.truth_label)
    for detection, truth in zip(pairs.detection[choice].tolist(), pairs.truth[choice].tolist(), strict=True):
        if taken[detection] < 0 and taker[truth] < 0:
            taken[detection], taker[truth] = truth, detection

    takes = np.array(taken, dtype=np.int64)
    ranked = np.flatnonzero(is_kept & ((takes >= 0) | ~_inside_difficult(boxes)))
    ranked = ranked[np.argsort(-boxes.score[ranked], kind="stable")]
    return Matching(
        boxes=boxes,
        overlaps=overlaps,
        taken=takes,
        taker=np.array(taker, dtype=np.int64),
        ranked=ranked,
        right=takes[ranked] >= 0,
        truths=np.bincount(boxes.truth_label[~boxes.difficult], minlength=boxes.num_classes),
    )


def class_aps(labels: Integers, right: Bools, truths: Integers) -> list[float | None]:
    """Compute COCO's average precision of each class, None for one without objects.

    `labels` and `right` (C,) are of the detections, highest score first; `truths` (K,) counts the objects.
    """
    return [
        average_precision(right[labels == label], count) if count else None
        for label, count in enumerate(truths.tolist())
    ]


def average_precision(right: Bools, count: int) -> float:
    """Compute COCO's average precision; arguments as `precision_at_recall`."""
    precision = precision_at_recall(right, count)
    return float(precision[precision > 0].sum() / len(RECALLS))


def mean_known(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are not None, None when there is none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def precision_at_recall(right: Bools, count: int) -> Floats:
    """Return the best precision (101,) at each recall of RECALLS or above, 0 where it is not reached.

    Args:
        right: bool (N,), whether each detection is right, highest score first.
        count: objects, at least 1.
    """
    ranks = np.flatnonzero(right) + 1  # the best precision is at a right one
    hits = np.arange(1, len(ranks) + 1)
    first = np.searchsorted(hits / count, RECALLS, side="left")
    return np.append(precision_envelope(hits / ranks), 0.0)[first]


def precision_envelope(precision: Floats) -> Floats:
    """Return the best precision at this or a later rank, along the last axis (the envelope)."""
    return np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]


def _rank_in_images(boxes: FlatBoxes) -> tuple[Integers, Integers]:
    """Return the detections by image, class and descending score, and each one's rank within them."""
    order = np.lexsort((-boxes.score, boxes.label, boxes.image))
    group = (boxes.image * boxes.num_classes + boxes.label)[order]
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order)) - np.searchsorted(group, group, side="left")
    return order, rank


def _inside_difficult(boxes: FlatBoxes) -> Bools:
    """Return which detections (N,) have at least half of their area in a difficult object of their class."""
    inside = np.zeros(len(boxes.label), dtype=bool)
    for image in np.unique(boxes.truth_image[boxes.difficult]).tolist():
        found, truth = (
            slice(*np.searchsorted(images, (image, image + 1))) for images in (boxes.image, boxes.truth_image)
        )
        both = _intersection(boxes.box[found], boxes.truth_box[truth])
        area = boxes.box[found, 2:].prod(axis=1, keepdims=True)
        covered = np.divide(both, area, out=np.zeros_like(both), where=both > 0)
        is_same = boxes.label[found, None] == boxes.truth_label[truth]
        inside[found] = (is_same & boxes.difficult[truth] & (covered >= IOU)).any(axis=1)
    return inside


def _iou(found: Floats, truth: Floats) -> Floats:
    """Return the IoU (N, M) of boxes (x1, y1, width, height), in the order of pycocotools' operations."""
    both = _intersection(found, truth)
    union = found[:, 2:].prod(axis=1, keepdims=True) + truth[:, 2:].prod(axis=1) - both
    return np.divide(both, union, out=np.zeros_like(both), where=both > 0)


def _intersection(found: Floats, truth: Floats) -> Floats:
    """Return the common area (N, M) of boxes (x1, y1, width, height)."""
    (x, y, width, height), (truth_x, truth_y, truth_width, truth_height) = found.T[:, :, None], truth.T
    across = np.minimum(width + x, truth_width + truth_x) - np.maximum(x, truth_x)
    down = np.minimum(height + y, truth_height + truth_y) - np.maximum(y, truth_y)
    return across.clip(0) * down.clip(0)


def _join(tensors: Sequence[Tensor]) -> NDArray:
    return torch.cat([tensor.cpu() for tensor in tensors]).numpy()


def _xywh(boxes: Sequence[Tensor]) -> Floats:
    edges = _join(boxes).astype(np.float64)
    return np.concatenate((edges[:, :2], edges[:, 2:] - edges[:, :2]), axis=1).round(_DECIMALS)
