"""Decoding of raw maps to boxes: the only place that knows YOLO's equations.

Source: Redmon and Farhadi, YOLOv3, https://arxiv.org/abs/1804.02767; scale_x_y from Darknet's yolo layer
(YOLOv4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from nets.boxes import cxcywh_to_xyxy
from nets.config import STRIDES

_MAX_LOG_SCALE = 4.0  # a box is at most e^4 = 55 times its anchor; exp neither overflows nor reaches 0


@dataclass(frozen=True)
class Priors:
    """The N (cell, anchor) pairs that each predict one box: head by head, anchor by anchor, row by row."""

    cells: Tensor  # (N, 2), column and row of the cell
    anchors: Tensor  # (N, 2), width and height of the anchor in network pixels
    strides: Tensor  # (N, 1), side of the cell in network pixels

    def __len__(self) -> int:
        return len(self.cells)


def build_priors(
    grids: Sequence[tuple[int, int]],
    anchors: Sequence[tuple[float, float]],
    anchor_masks: Sequence[Sequence[int]],
    device: torch.device | str = "cpu",
) -> Priors:
    """Build the priors of heads whose maps are `grids`: (height, width) each, coarse first."""
    cells, sizes, strides = [], [], []
    for (height, width), mask, stride in zip(grids, anchor_masks, STRIDES[: len(grids)], strict=True):
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        cells.append(torch.stack((columns, rows), dim=-1).reshape(-1, 2).repeat(len(mask), 1))  # (A*h*w, 2)
        sizes.append(
            torch.tensor([anchors[index] for index in mask]).repeat_interleave(height * width, dim=0)
        )
        strides.append(torch.full((len(mask) * height * width, 1), float(stride)))
    parts = (torch.cat(cells).float(), torch.cat(sizes).float(), torch.cat(strides))
    return Priors(*(part.to(device) for part in parts))


@lru_cache(maxsize=32)
def cached_priors(
    grids: tuple[tuple[int, int], ...],
    anchors: tuple[tuple[float, float], ...],
    anchor_masks: tuple[tuple[int, ...], ...],
    device: torch.device,
) -> Priors:
    """Build the priors of an input size once; not for a network that is being traced for export."""
    return build_priors(grids, anchors, anchor_masks, device)


def grids_of(raw_maps: Sequence[Tensor]) -> tuple[tuple[int, int], ...]:
    """Return (height, width) of raw maps (B, A*(5+K), h, w)."""
    return tuple((raw.shape[2], raw.shape[3]) for raw in raw_maps)


def flatten_maps(raw_maps: Sequence[Tensor], anchor_masks: Sequence[Sequence[int]]) -> Tensor:
    """Reorder raw maps (B, A*(5+K), h, w) to one Tensor[B, N, 5+K] in the order of the priors."""
    flat = [
        raw.unflatten(1, (len(mask), -1)).permute(0, 1, 3, 4, 2).flatten(1, 3)  # (B, A*h*w, 5+K)
        for raw, mask in zip(raw_maps, anchor_masks, strict=True)
    ]
    return torch.cat(flat, dim=1)


def decode_boxes(offsets: Tensor, priors: Priors, scale_x_y: float) -> Tensor:
    """Turn (tx, ty, tw, th), Tensor[..., N, 4], into xyxy boxes in network pixels, Tensor[..., N, 4].

    The center is the cell plus sigmoid(t) stretched around 1/2 by scale_x_y, the size is the anchor times
    exp(t).
    """
    center = offsets[..., :2].sigmoid() * scale_x_y - (scale_x_y - 1) / 2  # in cells
    center = (center + priors.cells) * priors.strides
    size = offsets[..., 2:4].clamp(-_MAX_LOG_SCALE, _MAX_LOG_SCALE).exp() * priors.anchors
    return cxcywh_to_xyxy(torch.cat((center, size), dim=-1))


def decode(
    raw_maps: Sequence[Tensor],
    *,
    anchors: Sequence[tuple[float, float]],
    anchor_masks: Sequence[Sequence[int]],
    scale_x_y: float,
    priors: Priors | None = None,
) -> tuple[Tensor, Tensor]:
    """Turn raw maps into boxes and scores.

    Args:
        raw_maps: (B, A*(5+K), h, w) of each head, coarse first.
        anchors: (width, height) pairs in network pixels.
        anchor_masks: for each head the indices of its anchors.
        scale_x_y: how far a center may reach over its cell.
        priors: those of the maps on their device; None builds them.

    Returns:
        boxes Tensor[B, N, 4], xyxy in network pixels, not clipped; scores Tensor[B, N, K] in [0, 1],
        objectness x class.
    """
    if priors is None:
        priors = build_priors(grids_of(raw_maps), anchors, anchor_masks, raw_maps[0].device)
    predictions = flatten_maps(raw_maps, anchor_masks).float()
    boxes = decode_boxes(predictions[..., :4], priors, scale_x_y)
    return boxes, predictions[..., 4:5].sigmoid() * predictions[..., 5:].sigmoid()
