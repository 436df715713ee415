"""Boxes: pairwise IoU, CIoU, and the two ways of writing one.

A box is (x1, y1, x2, y2): edges, so that its width is x2 - x1. IoU and CIoU are torchvision's; they stand
here so that the network has one place to get them from.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou, complete_box_iou_loss

__all__ = ["box_iou", "complete_box_iou_loss", "cxcywh_to_xyxy", "shape_iou", "xyxy_to_cxcywh"]


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Convert Tensor[..., 4] edges to (centre x, centre y, width, height)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Convert Tensor[..., 4] (centre x, centre y, width, height) to edges."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def shape_iou(sizes: Tensor, anchors: Tensor) -> Tensor:
    """Return the IoU (..., M, A) of sizes, Tensor[..., M, 2], and anchors, Tensor[A, 2], at one centre."""
    return box_iou(_centred(sizes), _centred(anchors))


def _centred(sizes: Tensor) -> Tensor:
    return torch.cat((-sizes / 2, sizes / 2), dim=-1)
