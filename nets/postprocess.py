"""From boxes and scores to detections: threshold, class-wise non-maximum suppression, the best ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from nets.structures import Detections

# An image; bounds time and memory when an untrained network finds something everywhere.
MAX_CANDIDATES = 10_000


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
        One Detections an image, in network pixels, highest score first.
    """
    results = []
    for image_boxes, image_scores in zip(boxes, scores, strict=True):
        slots, labels = (image_scores >= conf_threshold).nonzero(as_tuple=True)  # (P,), (P,)
        values = image_scores[slots, labels]
        if len(values) > MAX_CANDIDATES:
            values, order = values.topk(MAX_CANDIDATES)
            slots, labels = slots[order], labels[order]
        candidates = image_boxes[slots]
        keep = batched_nms(candidates, values, labels, iou_threshold)[:max_detections]
        results.append(Detections(candidates[keep], values[keep], labels[keep]))
    return results
