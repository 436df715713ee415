"""Postprocessing: score threshold and class-wise non-maximum suppression."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

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
    if boxes.is_cuda:
        return postprocess_at_once(
            boxes,
            scores,
            conf_threshold=conf_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
        )
    results = []
    for image_boxes, image_scores in zip(boxes, scores, strict=True):
        indices, labels = (image_scores >= conf_threshold).nonzero(as_tuple=True)  # (P,), (P,)
        values = image_scores[indices, labels]
        if len(values) > MAX_CANDIDATES:
            values, order = values.topk(MAX_CANDIDATES)
            indices, labels = indices[order], labels[order]
        candidates = Detections(image_boxes[indices].cpu(), values.cpu(), labels.cpu())
        candidates = candidates[candidates.scores.argsort(descending=True, stable=True)]
        conflicts = partial(overlapping, candidates, iou_threshold=iou_threshold)
        results.append(candidates[suppress(len(candidates), conflicts, max_detections)])
    return results


@torch.no_grad()
def postprocess_at_once(
    boxes: Tensor, scores: Tensor, *, conf_threshold: float, iou_threshold: float, max_detections: int
) -> list[Detections]:
    """Choose the detections of all images at once on their device, as `postprocess` does image by image.

    The host waits for the device a few times per batch, not per image. Two things may differ: IoU is computed
    in float64, and of equal scores at the limit of MAX_CANDIDATES the first ones are taken.
    """
    from torchvision.ops import nms  # its import takes seconds, which the CPU path does without

    images, rows, labels = (scores >= conf_threshold).nonzero(as_tuple=True)  # (P,) each
    if not len(images):
        return [Detections.empty() for _ in boxes]
    order = scores[images, rows, labels].argsort(descending=True, stable=True)
    order = order[images[order].argsort(stable=True)]  # image by image, highest score first
    images, rows, labels = images[order], rows[order], labels[order]
    first = torch.searchsorted(images, images)  # where the candidates of the same image begin
    if len(images) > MAX_CANDIDATES:
        chosen = torch.arange(len(images), device=images.device) - first < MAX_CANDIDATES
        images, rows, labels = images[chosen], rows[chosen], labels[chosen]
        first = torch.searchsorted(images, images)
    candidates, values = boxes[images, rows], scores[images, rows, labels]  # (P, 4), (P,)

    # Each class of each image is moved to a place of its own, so that no other class or image overlaps it.
    # Only float64 keeps fractions of a pixel there: batched_nms, which moves in float32, rounds them away.
    corners = candidates.double().nan_to_num()
    places = (images * scores.shape[2] + labels) * (corners.max() - corners.min() + 1)
    corners = corners + places[:, None]
    # Memory and time grow with the square of the candidates, so an untrained network's take several calls.
    sizes = (first // MAX_CANDIDATES).unique_consecutive(return_counts=True)[1].tolist()
    parts = torch.arange(len(images), device=images.device).split(sizes)
    kept = torch.cat([part[nms(corners[part], values[part].double(), iou_threshold)] for part in parts])
    columns = (candidates, values[:, None], labels[:, None], images[:, None])
    found = torch.cat(columns, dim=1)[kept.sort().values].cpu()  # (D, 7): one transfer
    counts = found[:, 6].long().bincount(minlength=len(boxes)).tolist()
    detections = [Detections(one[:, :4], one[:, 4], one[:, 5].long()) for one in found.split(counts)]
    return [one[torch.arange(len(one))[:max_detections]] for one in detections]


def suppress(count: int, conflicts: Callable[[Tensor, Tensor], Tensor], most: int) -> Tensor:
    """Choose items greedily: the best one, then each next one that conflicts with none chosen before.

    Blocks of items are compared at once, and the first blocks often give enough.

    Args:
        count: number of items, best first.
        conflicts: maps indices (N,) and (M,) to which pairs exclude each other, Tensor[N, M] bool.
        most: most items to choose.

    Returns:
        Tensor of int64 indices in ascending order.
    """
    kept = torch.empty(0, dtype=torch.long)
    for block in torch.arange(count).split(_BLOCK):
        block = block[~conflicts(kept, block).any(dim=0)]
        # Row by row: which weaker items may stay beside this one.
        stay = ~conflicts(block, block).triu(diagonal=1)
        free = torch.ones(len(block), dtype=torch.bool).numpy()
        for index, row in enumerate(stay.numpy()):
            if free[index]:
                free &= row
        kept = torch.cat((kept, block[torch.from_numpy(free)]))
        if len(kept) >= most:
            break
    return kept[:most]


def overlapping(found: Detections, ours: Tensor, theirs: Tensor, iou_threshold: float) -> Tensor:
    """Return which pairs, by indices (N,) and (M,), are of one class and overlap too much: (N, M) bool."""
    overlaps = box_iou(found.boxes[ours], found.boxes[theirs]) > iou_threshold
    return overlaps & (found.labels[ours, None] == found.labels[theirs])
