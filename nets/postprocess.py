"""Postprocessing: score threshold and class-wise non-maximum suppression."""

from __future__ import annotations

import torch
from torch import Tensor

from nets.boxes import box_iou
from nets.structures import Detections

MAX_CANDIDATES = 10_000  # per image; bounds time and memory where an untrained network predicts everywhere
_BLOCK = 256


@torch.no_grad()
def postprocess(
    boxes: Tensor, scores: Tensor, *, conf_threshold: float, iou_threshold: float, max_detections: int
) -> list[Detections]:
    """Choose the detections of each image.

    Args:
        boxes: Tensor[B, N, 4], xyxy in network pixels.
        scores: Tensor[B, N, K] in [0, 1]. Every class above the threshold counts, not only a box's best one.
        conf_threshold: lowest score of a detection.
        iou_threshold: of two boxes of one class with a higher IoU, the one with the lower score is dropped.
        max_detections: most detections an image.

    Returns:
        One Detections per image, on the CPU, in network pixels, highest score first.
    """
    results = []
    for image_boxes, image_scores in zip(boxes, scores, strict=True):
        indices, labels = (image_scores >= conf_threshold).nonzero(as_tuple=True)  # (P,), (P,)
        values = image_scores[indices, labels]
        if len(values) > MAX_CANDIDATES:
            values, order = values.topk(MAX_CANDIDATES)
            indices, labels = indices[order], labels[order]
        candidates = Detections(image_boxes[indices].cpu(), values.cpu(), labels.cpu())
        results.append(_suppress(candidates, iou_threshold, max_detections))
    return results


def _suppress(found: Detections, iou_threshold: float, most: int) -> Detections:
    """Suppress detections that a better one of their class overlaps; highest score first.

    Blocks of detections are compared at once, and the first blocks often give enough.
    """
    found = found[found.scores.argsort(descending=True, stable=True)]
    kept = torch.empty(0, dtype=torch.long)
    for block in torch.arange(len(found)).split(_BLOCK):
        block = block[~_conflicts(found[kept], found[block], iou_threshold).any(dim=0)]
        # Row by row: which weaker detections may stay beside this one.
        stay = ~_conflicts(found[block], found[block], iou_threshold).triu(diagonal=1)
        free = torch.ones(len(block), dtype=torch.bool).numpy()
        for index, row in enumerate(stay.numpy()):
            if free[index]:
                free &= row
        kept = torch.cat((kept, block[torch.from_numpy(free)]))
        if len(kept) >= most:
            break
    return found[kept[:most]]


def _conflicts(ours: Detections, theirs: Detections, iou_threshold: float) -> Tensor:
    """Return which pairs are of one class and overlap too much, Tensor[N, M] bool."""
    overlaps = box_iou(ours.boxes, theirs.boxes) > iou_threshold
    return overlaps & (ours.labels[:, None] == theirs.labels)
