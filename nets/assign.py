"""Assignment of ground truths to priors (the cells and anchors of the heads).

As in Darknet's YOLO layer, a truth is assigned to the anchor of the most similar shape, in the cell that
contains its center. An anchor of several heads is used in each; one of no head is skipped. In Darknet the
last truth on a prior silently replaces the others; here a contested prior goes to the truth whose shape fits
best, and the other truths take their next best free anchor.
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
    """The P pairs of a prior and its truth: the positives."""

    images: Tensor  # (P,) int64, index of the image in the batch
    priors: Tensor  # (P,) int64, index of the prior in the order of nets.decode.Priors
    truths: Tensor  # (P,) int64, index of the truth in its image
    unassigned: int  # number of truths without a free prior

    def __len__(self) -> int:
        """Return the number of positives."""
        return len(self.images)


def assign(
    boxes: Tensor,
    valid: Tensor,
    *,
    grids: Sequence[tuple[int, int]],
    anchors: Sequence[tuple[float, float]],
    anchor_masks: Sequence[Sequence[int]],
) -> Assignment:
    """Assign truths to priors.

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
    anchors_per_head = [len(mask) for mask in anchor_masks]
    priors, priors_per_image = _candidate_priors(boxes, grids, anchors_per_head)  # (B, M, C), int
    priors = priors + priors_per_image * torch.arange(len(boxes), device=boxes.device)[:, None, None]
    taken = torch.zeros(len(boxes) * priors_per_image, dtype=torch.bool, device=boxes.device)
    won = torch.zeros_like(priors, dtype=torch.bool)
    pending = valid
    while True:  # at most once per anchor: a prior that a truth has lost is taken afterwards
        free = pending[..., None] & ~taken[priors]  # (B, M, C)
        if not free.any():
            break
        favorite = anchor_of[fit.masked_fill(~free, -1).argmax(dim=-1)]  # (B, M)
        new = _resolve_conflicts(free & (anchor_of == favorite[..., None]), priors, fit, len(taken))
        won, pending = won | new, pending & ~new.any(dim=-1)
        taken[priors[new]] = True
    images, truths, _ = won.nonzero(as_tuple=True)
    return Assignment(images, priors[won] % max(priors_per_image, 1), truths, int(pending.sum()))


def _candidate_priors(
    boxes: Tensor, grids: Sequence[tuple[int, int]], anchors_per_head: Sequence[int]
) -> tuple[Tensor, int]:
    """Return the prior of each truth's center for each candidate, (B, M, C), and the priors of an image."""
    centers = xyxy_to_cxcywh(boxes)[..., :2]
    candidates, first_prior = [], 0
    for (height, width), count, stride in zip(grids, anchors_per_head, STRIDES[: len(grids)], strict=True):
        cell = (centers / stride).long()
        column, row = cell[..., 0].clamp(0, width - 1), cell[..., 1].clamp(0, height - 1)
        for anchor in range(count):
            candidates.append(first_prior + anchor * height * width + row * width + column)
        first_prior += count * height * width
    return torch.stack(candidates, dim=-1), first_prior


def _resolve_conflicts(claims: Tensor, priors: Tensor, fit: Tensor, num_priors: int) -> Tensor:
    """Return which claims (B, M, C) win their prior: the best fit, the first of equal ones."""
    claimed = priors[claims]
    best = fit.new_zeros(num_priors).scatter_reduce(0, claimed, fit[claims], "amax")
    claims = claims & (fit == best[priors])
    order = torch.arange(priors.shape[1], device=priors.device)[None, :, None].expand_as(priors)  # (B, M, C)
    first = order.new_full((num_priors,), priors.shape[1]).scatter_reduce(
        0, priors[claims], order[claims], "amin"
    )
    return claims & (order == first[priors])
