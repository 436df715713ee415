"""From boxes and scores to detections: threshold, class-wise non-maximum suppression, the best ones."""

from __future__ import annotations

import torch
from torch import Tensor

from nets.boxes import box_iou
from nets.structures import Detections

# An image; bounds time and memory when an untrained network finds something everywhere.
MAX_CANDIDATES = 10_000
_BLOCK = 256


@torch.no_grad()
def postprocess(
    boxes: Tensor, scores: Tensor, *, conf_threshold: float, iou_threshold: float, max_detections: int
) -> list[Detections]:
    """Choose the detections of each image.

    Args:
        boxes: Tensor[B, N, 4], xyxy in network pixels.
        scores: Tensor[B, N, K] in [0, 1]. Every class above the threshold counts, not only a box's best one.
        conf_threshold: lowest score that counts.
        iou_threshold: of two boxes of one class with a higher IoU, the one with the lower score goes.
        max_detections: most detections an image.

    Returns:
        One Detections an image, on the CPU, in network pixels, highest score first.
    """
    results = []
    for image_boxes, image_scores in zip(boxes, scores, strict=True):
        slots, labels = (image_scores >= conf_threshold).nonzero(as_tuple=True)  # (P,), (P,)
        values = image_scores[slots, labels]
        if len(values) > MAX_CANDIDATES:
            values, order = values.topk(MAX_CANDIDATES)
            slots, labels = slots[order], labels[order]
        candidates = Detections(image_boxes[slots].cpu(), values.cpu(), labels.cpu())
        results.append(_suppress(candidates, iou_threshold, max_detections))
    return results


def _suppress(found: Detections, iou_threshold: float, most: int) -> Detections:
    """Keep the best that no better one of their class overlaps, highest score first.

    It goes block by block, since the best few are often enough, and those of a block are compared at once.
    """
    found = found[found.scores.argsort(descending=True, stable=True)]
    kept = torch.empty(0, dtype=torch.long)
    for block in torch.arange(len(found)).split(_BLOCK):
        block = block[~_clash(found[kept], found[block], iou_threshold).any(dim=0)]
        # Row by row, which of the weaker ones may stay beside a detection.
        stay = ~_clash(found[block], found[block], iou_threshold).triu(diagonal=1)
        free = torch.ones(len(block), dtype=torch.bool).numpy()
        for index, row in enumerate(stay.numpy()):
            if free[index]:
                free &= row
        kept = torch.cat((kept, block[torch.from_numpy(free)]))
        if len(kept) >= most:
            break
    return found[kept[:most]]


def _clash(ours: Detections, theirs: Detections, iou_threshold: float) -> Tensor:
    """Tell of every two whether they are of one class and overlap too much, Tensor[N, M] bool."""
    overlaps = box_iou(ours.boxes, theirs.boxes) > iou_threshold
    return overlaps & (ours.labels[:, None] == theirs.labels)
