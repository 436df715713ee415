"""All detections and ground truths of an evaluation as flat arrays, and which of them overlap.

Every figure is computed from these: IoU is computed once, on the very numbers that detections.json and
ground_truth.json hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nets.structures import Detections, Target

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LEAST_IOU = 0.1  # a detection that overlaps less is on background
_DECIMALS = 4  # of a box; float32 holds little more
_PAIRS_AT_A_TIME = 500_000  # bounds the memory


@dataclass(frozen=True)
class FlatBoxes:
    """Detections and ground truths, a row each, in the order of the images and in each image's own order.

    Attributes:
        num_images: I; images are numbered from 0.
        num_classes: K; labels are below it.
        image: int64 (N,), where each detection was made.
        label: int64 (N,), as what.
        score: float64 (N,) in [0, 1].
        box: float64 (N, 4), (x1, y1, width, height) in pixels, to 1e-4.
        truth_image: int64 (M,), where each ground truth is.
        truth_label: int64 (M,), what it is.
        truth_box: float64 (M, 4), as `box`.
        difficult: bool (M,), VOC's flag: whoever finds it is neither right nor wrong.
    """

    num_images: int
    num_classes: int
    image: Integers
    label: Integers
    score: Floats
    box: Floats
    truth_image: Integers
    truth_label: Integers
    truth_box: Floats
    difficult: Bools

    def count_truths(self) -> Integers:
        """Return the ground truths of each class that are not difficult, int64 (K,)."""
        return np.bincount(self.truth_label[~self.difficult], minlength=self.num_classes)


@dataclass(frozen=True)
class Overlaps:
    """The pairs of a detection and a ground truth, of any class, in one image, of at least LEAST_IOU.

    Attributes:
        detection: int64 (P,), rows of the detections, rising.
        truth: int64 (P,), rows of the ground truths, rising for each detection.
        iou: float64 (P,).
    """

    detection: Integers
    truth: Integers
    iou: Floats

    def __getitem__(self, index: Bools | Integers) -> Overlaps:
        """Select pairs by a mask bool (P,) or by indices."""
        return Overlaps(self.detection[index], self.truth[index], self.iou[index])

    def best(self) -> Overlaps:
        """Return each detection's pair of highest IoU, the first of equals."""
        ranked = self[np.lexsort((-self.iou, self.detection))]
        return ranked[np.unique(ranked.detection, return_index=True)[1]]


def flatten(detections: Sequence[Detections], targets: Sequence[Target], num_classes: int) -> FlatBoxes:
    """Put together the detections and the ground truths of all images.

    Args:
        detections: one an image, boxes in pixels of the image.
        targets: one an image, in the same order.
        num_classes: K; labels are below it.

    Raises:
        ValueError: there are not as many of the one as of the other.
    """
    if len(detections) != len(targets):
        raise ValueError(f"{len(detections)} detections for {len(targets)} targets; one an image is needed")
    found, truth = [Detections.empty(), *detections], [Target.empty(), *targets]  # cat wants one at least
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
    """Compare each detection with each ground truth of its image."""
    first = np.searchsorted(boxes.truth_image, np.arange(boxes.num_images + 1))
    truths = np.diff(first)[boxes.image]  # (N,) beside each detection
    ends = np.cumsum(truths)
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    start = 0
    while start < len(truths):
        done = ends[start] - truths[start]
        stop = max(start + 1, int(np.searchsorted(ends, done + _PAIRS_AT_A_TIME, side="right")))
        part = slice(start, stop)
        detection = np.repeat(np.arange(start, stop), truths[part])
        place = np.arange(len(detection)) - np.repeat(ends[part] - truths[part] - done, truths[part])
        truth = first[boxes.image[detection]] + place
        iou = _iou(boxes.box[detection], boxes.truth_box[truth])
        kept = iou >= LEAST_IOU
        parts.append((detection[kept], truth[kept], iou[kept]))
        start = stop
    detections, found, ious = zip(*parts, strict=True)
    return Overlaps(np.concatenate(detections), np.concatenate(found), np.concatenate(ious))


def _iou(found: Floats, truth: Floats) -> Floats:
    """Return the IoU (P,) of boxes (x1, y1, width, height), in the order of pycocotools' operations."""
    (x, y, width, height), (truth_x, truth_y, truth_width, truth_height) = found.T, truth.T
    across = np.minimum(width + x, truth_width + truth_x) - np.maximum(x, truth_x)
    down = np.minimum(height + y, truth_height + truth_y) - np.maximum(y, truth_y)
    iou = np.zeros(len(found))
    meet = np.flatnonzero((across > 0) & (down > 0))
    both = across[meet] * down[meet]
    iou[meet] = both / (width[meet] * height[meet] + truth_width[meet] * truth_height[meet] - both)
    return iou


def _join(tensors: Sequence[Tensor]) -> NDArray:
    return torch.cat([tensor.cpu() for tensor in tensors]).numpy()


def _xywh(boxes: Sequence[Tensor]) -> Floats:
    edges = _join(boxes).astype(np.float64)
    return np.concatenate((edges[:, :2], edges[:, 2:] - edges[:, :2]), axis=1).round(_DECIMALS)
