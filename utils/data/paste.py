"""Pictures laid onto a gray canvas, and what becomes of their objects there."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from nets.structures import Target
from utils.vision.image_reader import Pixels
from utils.vision.letterbox import FILL, resize

Span = tuple[int, int]  # first and one past the last row or column
Labeled = tuple[Pixels, Target]

_LEAST_SIDE = 2.0  # pixels
_LEAST_AREA = 0.2  # of the object as large as it would be on an endless canvas


@dataclass(frozen=True)
class Place:
    """Where on a canvas a picture goes.

    Attributes:
        size: (height, width) of the picture on the canvas in pixels.
        corner: (top, left) of the picture; may lie outside the window.
        window: rows and columns of the canvas outside of which the picture does not show.
    """

    size: tuple[int, int]
    corner: tuple[int, int]
    window: tuple[Span, Span]


def blank(size: tuple[int, int]) -> Pixels:
    """Make a canvas of (height, width) pixels, gray as the letterbox's."""
    return np.full((*size, 3), FILL, dtype=np.uint8)


def lay(canvas: Pixels, image: Pixels, place: Place) -> None:
    """Resize an image uint8 (H, W, 3) onto its place on the canvas, in one resampling."""
    spans, seen = [], []
    for length, start, (first, last) in zip(place.size, place.corner, place.window, strict=True):
        begin, end = max(start, first), min(start + length, last)
        spans.append(slice(begin, end))
        seen.append(slice(begin - start, end - start))
    view = canvas[tuple(spans)]
    if view.shape[:2] == place.size and not _halvings(image, place.size):
        cv2.resize(image, place.size[::-1], dst=view, interpolation=cv2.INTER_LINEAR)
    else:
        view[:] = shrink(image, place.size)[tuple(seen)]


def shrink(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize an image uint8 (H, W, 3) to (height, width) as `resize` does, but without aliasing.

    The bilinear kernel sees two pixels a side, so it skips some where the picture shrinks by more than two.
    What remains of such a factor is done by halving, which for it is the mean of four.
    """
    halvings = _halvings(image, size)
    for step in range(halvings, -1, -1):
        image = resize(image, (size[0] << step, size[1] << step))
    return image


def move(target: Target, image_size: tuple[int, int], place: Place) -> Target:
    """Move objects with their picture; those of which hardly anything shows go.

    Args:
        target: boxes in pixels of the picture.
        image_size: (height, width) of the picture as it was.
        place: where it went.
    """
    (top, left), (rows, columns) = place.corner, place.window
    scale = np.array([place.size[1] / image_size[1], place.size[0] / image_size[0]] * 2, dtype=np.float32)
    boxes = target.boxes.numpy() * scale + np.array([left, top] * 2, dtype=np.float32)
    clipped = boxes.clip([columns[0], rows[0]] * 2, [columns[1], rows[1]] * 2).astype(np.float32)
    keep = torch.from_numpy(_still_seen(clipped, boxes))
    return Target(torch.from_numpy(clipped), target.labels, target.difficult, target.image_id)[keep]


def _halvings(image: Pixels, size: tuple[int, int]) -> int:
    """Count the halvings after which the side that shrinks less is within a factor of two of `size`."""
    factor = min(image.shape[0] / size[0], image.shape[1] / size[1])
    return max(0, int(np.log2(factor)))


def _still_seen(clipped: NDArray[np.floating], whole: NDArray[np.floating]) -> NDArray[np.bool_]:
    sides, area = clipped[:, 2:] - clipped[:, :2], (whole[:, 2:] - whole[:, :2]).prod(axis=1)
    return (sides >= _LEAST_SIDE).all(axis=1) & (sides.prod(axis=1) >= _LEAST_AREA * area)
