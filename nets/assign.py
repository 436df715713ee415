"""Which slot (cell and anchor of a head) answers for which ground truth.

As in Darknet's YOLO layer, a truth belongs to the anchor of the most similar shape, in the cell that holds
its center. An anchor that stands in both heads answers in both; one that stands in none is passed over.
Beyond Darknet, where the last truth on a slot silently replaces the others, a contested slot goes to the
truth whose shape fits it best and the loser takes its next best free anchor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nets.boxes import shape_iou, xyxy_to_cxcywh
from nets.config import STRIDES


@dataclass(frozen=True)
class Assignment:
    """The P pairs of a slot and the truth it answers for.

    Attributes:
        images: Tensor[P] int64, index of the image in the batch.
        slots: Tensor[P] int64, index of the slot in the order of nets.decode.Slots.
        truths: Tensor[P] int64, index of the truth in its image.
        unassigned: Tensor[] int64, number of truths that found no free slot.
    """

    images: Tensor
    slots: Tensor
    truths: Tensor
    unassigned: Tensor


def assign(
    boxes: Tensor,
    valid: Tensor,
    *,
    grids: Sequence[tuple[int, int]],
    anchors: Sequence[tuple[float, float]],
    anchor_masks: Sequence[Sequence[int]],
) -> Assignment:
    """Assign truths to slots.

    Args:
        boxes: Tensor[B, M, 4], xyxy in network pixels, padded to the most truths of an image.
        valid: Tensor[B, M] bool, False for padding and for what is no target.
        grids: (height, width) of each head's map, coarse first.
        anchors: (width, height) pairs in network pixels.
        anchor_masks: for each head the indices of its anchors.
    """
    anchor_of = torch.tensor([index for mask in anchor_masks for index in mask], device=boxes.device)  # (C,)
    shapes = torch.tensor(anchors, dtype=boxes.dtype, device=boxes.device)[anchor_of]  # (C, 2)
    fit = shape_iou((boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-6), shapes)  # (B, M, C)
    slots, slots_per_image = _candidate_slots(boxes, grids, [len(mask) for mask in anchor_masks])  # (B, M, C)
    slots = slots + slots_per_image * torch.arange(len(boxes), device=boxes.device)[:, None, None]
    taken = torch.zeros(len(boxes) * slots_per_image, dtype=torch.bool, device=boxes.device)
    won = torch.zeros_like(slots, dtype=torch.bool)
    pending = valid
    while True:  # at most once an anchor: whoever loses a slot finds it taken afterwards
        free = pending[..., None] & ~taken[slots]  # (B, M, C)
        if not free.any():
            break
        favorite = anchor_of[fit.masked_fill(~free, -1).argmax(dim=-1)]  # (B, M)
        new = _settle(free & (anchor_of == favorite[..., None]), slots, fit, len(taken))
        won, pending = won | new, pending & ~new.any(dim=-1)
        taken[slots[new]] = True
    images, truths, _ = won.nonzero(as_tuple=True)
    return Assignment(images, slots[won] % max(slots_per_image, 1), truths, pending.sum())


def _candidate_slots(
    boxes: Tensor, grids: Sequence[tuple[int, int]], anchors_per_head: Sequence[int]
) -> tuple[Tensor, int]:
    """Return the slot of each truth's center for each candidate, (B, M, C), and the slots of an image."""
    centers = xyxy_to_cxcywh(boxes)[..., :2]
    candidates, first_slot = [], 0
    for (height, width), count, stride in zip(grids, anchors_per_head, STRIDES, strict=True):
        cell = (centers / stride).long()
        column, row = cell[..., 0].clamp(0, width - 1), cell[..., 1].clamp(0, height - 1)
        for anchor in range(count):
            candidates.append(first_slot + anchor * height * width + row * width + column)
        first_slot += count * height * width
    return torch.stack(candidates, dim=-1), first_slot


def _settle(claims: Tensor, slots: Tensor, fit: Tensor, num_slots: int) -> Tensor:
    """Return which claims (B, M, C) win their slot: the best fit, and of equal ones the first in the list."""
    claimed = slots[claims]
    best = fit.new_zeros(num_slots).scatter_reduce(0, claimed, fit[claims], "amax")
    claims = claims & (fit == best[slots])
    order = torch.arange(slots.shape[1], device=slots.device)[None, :, None].expand_as(slots)  # (B, M, C)
    first = order.new_full((num_slots,), slots.shape[1]).scatter_reduce(
        0, slots[claims], order[claims], "amin"
    )
    return claims & (order == first[slots])
