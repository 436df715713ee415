"""Mosaic and mixup: training images composed of several, and pasting of an image with its boxes on a canvas.

Mosaic: Bochkovskiy et al., YOLOv4 (https://arxiv.org/abs/2004.10934). Mixup: Zhang et al.
(https://arxiv.org/abs/1710.09412); the boxes of both images count in full, unlike in Zhang et al., Bag of
Freebies (https://arxiv.org/abs/1902.04103), which weights their losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from nets.structures import Target
from utils.vision.image_reader import Pixels
from utils.vision.letterbox import FILL, resize

Span = tuple[int, int]  # first row or column, and one past the last
ImageAndTarget = tuple[Pixels, Target]

MOSAIC_SCALE = (0.4, 1.0)  # of the letterboxed size
_CENTER = (0.3, 0.7)  # of the canvas
MIN_SIDE = 2.0  # pixels of an object; a smaller one is dropped
MIN_VISIBILITY = 0.2  # of the area of an object before clipping


@dataclass(frozen=True)
class PasteRegion:
    """Where on a canvas an image is pasted."""

    size: tuple[int, int]  # (height, width) of the image on the canvas in pixels
    corner: tuple[int, int]  # (top, left) of the image; may be outside the window
    window: tuple[Span, Span]  # rows and columns of the canvas to which the image is clipped


def mosaic(
    items: Sequence[ImageAndTarget], size: tuple[int, int], rng: np.random.Generator
) -> ImageAndTarget:
    """Combine four images around a random point of one canvas, each at a random scale.

    Each image has a corner at the point. If it is larger than its quadrant, a random part is visible; around
    a smaller image the quadrant stays gray.

    Args:
        items: four pairs of an image uint8 (H, W, 3) and its target in pixels.
        size: (height, width) of the canvas in pixels.
        rng: gives every random choice.

    Returns:
        The canvas and its target; objects of which little is visible are dropped.
    """
    if len(items) != 4:
        raise ValueError(f"a mosaic takes 4 images, got {len(items)}")
    height, width = size
    center_y, center_x = (round(side * rng.uniform(*_CENTER)) for side in size)
    canvas, targets = empty_canvas(size), []
    quadrants = [
        (y, x) for y in ((0, center_y), (center_y, height)) for x in ((0, center_x), (center_x, width))
    ]
    for (image, target), (rows, columns) in zip(items, quadrants, strict=True):
        ratio = min(height / image.shape[0], width / image.shape[1]) * rng.uniform(*MOSAIC_SCALE)
        new_size = max(1, round(image.shape[0] * ratio)), max(1, round(image.shape[1] * ratio))
        corner = _start(rows, new_size[0], center_y, rng), _start(columns, new_size[1], center_x, rng)
        region = PasteRegion(new_size, corner, (rows, columns))
        paste(canvas, image, region)
        targets.append(transform_boxes(target, image.shape[:2], region))
    return canvas, join_targets(targets, items[0][1].image_id)


def mixup(first: ImageAndTarget, second: ImageAndTarget, rng: np.random.Generator) -> ImageAndTarget:
    """Blend two images uint8 (H, W, 3) of one size, weighted by Beta(8, 8); the objects of both count."""
    weight = rng.beta(8.0, 8.0)
    image = cv2.addWeighted(first[0], weight, second[0], 1 - weight, 0)
    return image, join_targets([first[1], second[1]], first[1].image_id)


def join_targets(targets: Sequence[Target], image_id: str) -> Target:
    """Concatenate the objects of several targets."""
    return Target(
        torch.cat([target.boxes for target in targets]),
        torch.cat([target.labels for target in targets]),
        torch.cat([target.difficult for target in targets]),
        image_id,
    )


def empty_canvas(size: tuple[int, int]) -> Pixels:
    """Return a canvas of (height, width) pixels in the letterbox's gray."""
    return np.full((*size, 3), FILL, dtype=np.uint8)


def paste(canvas: Pixels, image: Pixels, region: PasteRegion) -> None:
    """Resize an image uint8 (H, W, 3) onto a region of the canvas, in one resampling."""
    spans, visible = [], []
    for length, start, (first, last) in zip(region.size, region.corner, region.window, strict=True):
        begin, end = max(start, first), min(start + length, last)
        spans.append(slice(begin, end))
        visible.append(slice(begin - start, end - start))
    view = canvas[tuple(spans)]
    if view.shape[:2] == region.size and not _count_halvings(image, region.size):
        cv2.resize(image, region.size[::-1], dst=view, interpolation=cv2.INTER_LINEAR)
    else:
        view[:] = downscale(image, region.size)[tuple(visible)]


def downscale(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize an image uint8 (H, W, 3) to (height, width) as `resize` does, but without aliasing.

    The bilinear kernel covers two pixels a side, so it skips pixels at factors above two. Halving, which
    averages four pixels, comes first.
    """
    for step in range(_count_halvings(image, size), -1, -1):
        image = resize(image, (size[0] << step, size[1] << step))
    return image


def transform_boxes(target: Target, image_size: tuple[int, int], region: PasteRegion) -> Target:
    """Map objects from a pasted image of (height, width) pixels to the canvas, if enough of them shows."""
    (top, left), (rows, columns) = region.corner, region.window
    scale = np.array([region.size[1] / image_size[1], region.size[0] / image_size[0]] * 2, dtype=np.float32)
    boxes = target.boxes.numpy() * scale + np.array([left, top] * 2, dtype=np.float32)
    clipped = boxes.clip([columns[0], rows[0]] * 2, [columns[1], rows[1]] * 2).astype(np.float32)
    sides, area = clipped[:, 2:] - clipped[:, :2], (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    keep = (sides >= MIN_SIDE).all(axis=1) & (sides.prod(axis=1) >= MIN_VISIBILITY * area)
    moved = Target(torch.from_numpy(clipped), target.labels, target.difficult, target.image_id)
    return moved[torch.from_numpy(keep)]


def _start(span: Span, length: int, center: int, rng: np.random.Generator) -> int:
    """Choose where `length` pixels begin in a quadrant's side: at the center, or at random if too long."""
    start, stop = span
    room = stop - start
    if length > room:
        return start - int(rng.integers(length - room + 1))
    return stop - length if stop == center else start


def _count_halvings(image: Pixels, size: tuple[int, int]) -> int:
    """Count how often the image can be halved before a side gets smaller than `size`."""
    factor = min(image.shape[0] / size[0], image.shape[1] / size[1])
    return max(0, int(np.log2(factor)))
