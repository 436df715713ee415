"""Pictures made of pictures: mosaic of four and mixup of two.

Mosaic: Bochkovskiy et al., YOLOv4 (https://arxiv.org/abs/2004.10934). Mixup: Zhang et al.
(https://arxiv.org/abs/1710.09412); the boxes of both pictures count in full, unlike in Zhang et al., Bag of
Freebies (https://arxiv.org/abs/1902.04103), which weights their losses.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from nets.structures import Target
from utils.images import FILL, Pixels, resize

_CENTRE = (0.3, 0.7)  # of the canvas' sides
_SCALE = (0.4, 1.0)  # of the size that the letterbox would give
_LEAST_SIDE = 2.0  # pixels
_LEAST_AREA = 0.2

Labelled = tuple[Pixels, Target]


def mosaic(items: Sequence[Labelled], size: tuple[int, int], rng: np.random.Generator) -> Labelled:
    """Set four images around a random point of one canvas, each at a random scale.

    Each image lies in its quadrant with a corner at the point; where it is larger than the quadrant a random
    part of it shows, where it is smaller the canvas stays grey.

    Args:
        items: four pairs of an image uint8 (H, W, 3) and its target in pixels.
        size: (height, width) of the canvas in pixels.
        rng: gives every random choice.

    Returns:
        The canvas and the target of what is left of the objects; slivers are dropped.
    """
    if len(items) != 4:
        raise ValueError(f"a mosaic takes 4 images, got {len(items)}")
    height, width = size
    centre_y, centre_x = (round(side * rng.uniform(*_CENTRE)) for side in size)
    canvas: Pixels = np.full((height, width, 3), FILL, dtype=np.uint8)
    targets = []
    quadrants = [
        (y, x) for y in ((0, centre_y), (centre_y, height)) for x in ((0, centre_x), (centre_x, width))
    ]
    for (image, target), (rows, columns) in zip(items, quadrants, strict=True):
        ratio = min(height / image.shape[0], width / image.shape[1]) * rng.uniform(*_SCALE)
        new_size = max(1, round(image.shape[0] * ratio)), max(1, round(image.shape[1] * ratio))
        small = resize(image, new_size)
        top, row_span = _fit(rows, new_size[0], centre_y, rng)
        left, column_span = _fit(columns, new_size[1], centre_x, rng)
        seen = (
            slice(row_span[0] - top, row_span[1] - top),
            slice(column_span[0] - left, column_span[1] - left),
        )
        canvas[slice(*row_span), slice(*column_span)] = small[seen]
        scale = new_size[1] / image.shape[1], new_size[0] / image.shape[0]
        targets.append(_place(target, scale, (left, top), (column_span, row_span)))
    return canvas, join_targets(targets, items[0][1].image_id)


def mixup(first: Labelled, second: Labelled, rng: np.random.Generator) -> Labelled:
    """Blend two images of one size, about half and half; the objects of both count.

    Args:
        first: an image uint8 (H, W, 3) and its target in pixels.
        second: another of the same size.
        rng: gives the share of the first, Beta(8, 8).
    """
    share = rng.beta(8.0, 8.0)
    image = cv2.addWeighted(first[0], share, second[0], 1 - share, 0)
    return image, join_targets([first[1], second[1]], first[1].image_id)


def join_targets(targets: Sequence[Target], image_id: str) -> Target:
    """Put the objects of several targets into one."""
    return Target(
        torch.cat([target.boxes for target in targets]),
        torch.cat([target.labels for target in targets]),
        torch.cat([target.difficult for target in targets]),
        image_id,
    )


def _fit(
    span: tuple[int, int], length: int, centre: int, rng: np.random.Generator
) -> tuple[int, tuple[int, int]]:
    """Lay `length` pixels along a quadrant's side: return their start and the part of it that they fill."""
    start, stop = span
    room = stop - start
    if length > room:
        return start - int(rng.integers(length - room + 1)), span
    begin = stop - length if stop == centre else start
    return begin, (begin, begin + length)


def _place(
    target: Target,
    scale: tuple[float, float],
    offset: tuple[int, int],
    window: tuple[tuple[int, int], tuple[int, int]],
) -> Target:
    """Move boxes onto the canvas, clip them to their window (columns, rows) and drop what is hardly left."""
    boxes = target.boxes * torch.tensor(scale * 2) + torch.tensor(offset * 2)
    (x1, x2), (y1, y2) = window
    low, high = torch.tensor([x1, y1, x1, y1]), torch.tensor([x2, y2, x2, y2])
    clipped = torch.minimum(torch.maximum(boxes, low), high)
    sides, whole = clipped[:, 2:] - clipped[:, :2], boxes[:, 2:] - boxes[:, :2]
    keep = (sides >= _LEAST_SIDE).all(1) & (sides.prod(1) >= _LEAST_AREA * whole.prod(1))
    return Target(clipped, target.labels, target.difficult, target.image_id)[keep]
