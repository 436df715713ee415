"""Boxes: pairwise IoU, complete IoU, and conversion between edges and center with size.

A box is (x1, y1, x2, y2): edges, so that its width is x2 - x1. torchvision has these functions too, but its
import takes longer than torch's own, at every start of a command; tests compare the two.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_EPSILON = 1e-7  # against division by zero


def box_intersection(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the pairwise shared area, Tensor[..., N, M], of Tensor[..., N, 4] and Tensor[..., M, 4]."""
    x1, y1, x2, y2 = boxes[..., :, None, :].unbind(dim=-1)  # (..., N, 1) each
    left, top, right, bottom = others[..., None, :, :].unbind(dim=-1)  # (..., 1, M) each
    # Axis by axis: a last dimension of 2 would make every step twice as large, and slow to reduce.
    shared = (torch.minimum(x2, right) - torch.maximum(x1, left)).clamp_(min=0)  # (..., N, M)
    return shared.mul_((torch.minimum(y2, bottom) - torch.maximum(y1, top)).clamp_(min=0))


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the pairwise IoU, Tensor[..., N, M], of Tensor[..., N, 4] and Tensor[..., M, 4].

    The IoU of two boxes without area is not a number.
    """
    shared = box_intersection(boxes, others)
    areas, other_areas = (_area(one[..., 2:] - one[..., :2]) for one in (boxes, others))
    return shared / (areas[..., :, None] + other_areas[..., None, :] - shared)


def complete_iou_loss(boxes: Tensor, others: Tensor) -> Tensor:
    """Return 1 - CIoU, Tensor[N], of Tensor[N, 4] and Tensor[N, 4], pair by pair.

    Paper: Zheng et al., Distance-IoU Loss, https://arxiv.org/abs/1911.08287. The weight of the aspect-ratio
    term takes no gradient.
    """
    sizes, other_sizes = (one[:, 2:] - one[:, :2] for one in (boxes, others))
    low, high = torch.maximum(boxes[:, :2], others[:, :2]), torch.minimum(boxes[:, 2:], others[:, 2:])
    shared = _area((high - low).clamp(min=0))  # (N,)
    iou = shared / (_area(sizes) + _area(other_sizes) - shared + _EPSILON)
    enclosing = torch.maximum(boxes[:, 2:], others[:, 2:]) - torch.minimum(boxes[:, :2], others[:, :2])
    center, other_center = ((one[:, :2] + one[:, 2:]) / 2 for one in (boxes, others))
    offset = (center - other_center).square().sum(dim=-1)
    distance = offset / (enclosing.square().sum(dim=-1) + _EPSILON)
    angle, other_angle = (torch.atan(one[:, 0] / one[:, 1]) for one in (sizes, other_sizes))
    aspect = 4 / math.pi**2 * (other_angle - angle).square()
    with torch.no_grad():
        weight = aspect / (1 - iou + aspect + _EPSILON)
    return 1 - iou + distance + weight * aspect


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
    return box_iou(_centered(sizes), _centered(anchors))


def _area(sizes: Tensor) -> Tensor:
    """Return width times height; the gradient of `prod` would ask the GPU for zeros, and wait for it."""
    return sizes[..., 0] * sizes[..., 1]


def _centered(sizes: Tensor) -> Tensor:
    return torch.cat((-sizes / 2, sizes / 2), dim=-1)
