"""Boxes: pairwise IoU, and the two ways of writing one.

A box is (x1, y1, x2, y2): edges, so that its width is x2 - x1. What prediction needs is written out here and
in `postprocess`: importing torchvision takes almost as long as importing torch, for every command.
"""

from __future__ import annotations

import torch
from torch import Tensor


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the IoU of every two, Tensor[..., N, M], of Tensor[..., N, 4] and Tensor[..., M, 4].

    Two boxes without area have none in common: their IoU is not a number.
    """
    low = torch.maximum(boxes[..., :, None, :2], others[..., None, :, :2])
    high = torch.minimum(boxes[..., :, None, 2:], others[..., None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)  # (..., N, M)
    areas, other_areas = ((one[..., 2:] - one[..., :2]).prod(dim=-1) for one in (boxes, others))
    return shared / (areas[..., :, None] + other_areas[..., None, :] - shared)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Convert Tensor[..., 4] edges to (center x, center y, width, height)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Convert Tensor[..., 4] (center x, center y, width, height) to edges."""
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((center - half, center + half), dim=-1)


def shape_iou(sizes: Tensor, anchors: Tensor) -> Tensor:
    """Return the IoU (..., M, A) of sizes, Tensor[..., M, 2], and anchors, Tensor[A, 2], at one center."""
    return box_iou(_centerd(sizes), _centerd(anchors))


def _centerd(sizes: Tensor) -> Tensor:
    return torch.cat((-sizes / 2, sizes / 2), dim=-1)
