"""Pictures made of pictures: mosaic of four and mixup of two.

Mosaic: Bochkovskiy et al., YOLOv4 (https://arxiv.org/abs/2004.10934). Mixup: Zhang et al.
(https://arxiv.org/abs/1710.09412); the boxes of both pictures count in full, unlike in Zhang et al., Bag of
Freebies (https://arxiv.org/abs/1902.04103), which weights their losses.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from utils.data.paste import Labeled, Place, Span, blank, lay, move
from utils.data.targets import join_targets

_CENTER = (0.3, 0.7)  # of the canvas' sides
MOSAIC_SCALE = (0.4, 1.0)  # of the size that the letterbox would give


def mosaic(items: Sequence[Labeled], size: tuple[int, int], rng: np.random.Generator) -> Labeled:
    """Set four images around a random point of one canvas, each at a random scale.

    Each image lies in its quadrant with a corner at the point; where it is larger than the quadrant a random
    part of it shows, where it is smaller the canvas stays gray.

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
    center_y, center_x = (round(side * rng.uniform(*_CENTER)) for side in size)
    canvas, targets = blank(size), []
    quadrants = [
        (y, x) for y in ((0, center_y), (center_y, height)) for x in ((0, center_x), (center_x, width))
    ]
    for (image, target), (rows, columns) in zip(items, quadrants, strict=True):
        ratio = min(height / image.shape[0], width / image.shape[1]) * rng.uniform(*MOSAIC_SCALE)
        new_size = max(1, round(image.shape[0] * ratio)), max(1, round(image.shape[1] * ratio))
        corner = (
            _start(rows, new_size[0], center_y, rng),
            _start(columns, new_size[1], center_x, rng),
        )
        place = Place(new_size, corner, (rows, columns))
        lay(canvas, image, place)
        targets.append(move(target, image.shape[:2], place))
    return canvas, join_targets(targets, items[0][1].image_id)


def mixup(first: Labeled, second: Labeled, rng: np.random.Generator) -> Labeled:
    """Blend two images of one size, about half and half; the objects of both count.

    Args:
        first: an image uint8 (H, W, 3) and its target in pixels.
        second: another of the same size.
        rng: gives the share of the first, Beta(8, 8).
    """
    share = rng.beta(8.0, 8.0)
    image = cv2.addWeighted(first[0], share, second[0], 1 - share, 0)
    return image, join_targets([first[1], second[1]], first[1].image_id)


def _start(span: Span, length: int, center: int, rng: np.random.Generator) -> int:
    """Choose where `length` pixels begin along a quadrant's side: at the center, or anywhere if too long."""
    start, stop = span
    room = stop - start
    if length > room:
        return start - int(rng.integers(length - room + 1))
    return stop - length if stop == center else start
