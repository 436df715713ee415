"""Letterbox: an image resized to the network input, aspect kept, centered on gray.

Validation, prediction, calibration and every exported format use this one; the exported detect.py repeats it,
and tests compare the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.vision.image_reader import Pixels

FILL = 128  # gray value of the border


@dataclass(frozen=True)
class Placement:
    """Where the letterbox put an image."""

    scale: tuple[float, float]  # (sx, sy), network pixels per image pixel, exact for the rounded size
    offset: tuple[int, int]  # (x, y) of the image's upper left corner, in network pixels
    image_size: tuple[int, int]  # (height, width) of the image
    input_size: tuple[int, int]  # (height, width) of the network input

    def apply(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map boxes float32 (N, 4) xyxy from image pixels to network pixels."""
        return boxes * _row(self.scale) + _row(self.offset)

    def undo(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map boxes float32 (N, 4) xyxy from network pixels to image pixels, clipped to the image."""
        height, width = self.image_size
        return ((boxes - _row(self.offset)) / _row(self.scale)).clip(0, _row((width, height)))


def _row(pair: tuple[float, float]) -> NDArray[np.float32]:
    return np.array(pair * 2, dtype=np.float32)


def fit(image_size: tuple[int, int], input_size: tuple[int, int]) -> Placement:
    """Return where `letterbox` puts an image of (height, width) pixels; small images are enlarged."""
    height, width = image_size
    ratio = min(input_size[0] / height, input_size[1] / width)
    new_height = max(1, round(height * ratio))
    new_width = max(1, round(width * ratio))
    offset = (input_size[1] - new_width) // 2, (input_size[0] - new_height) // 2
    return Placement((new_width / width, new_height / height), offset, image_size, input_size)


def letterbox(image: Pixels, input_size: tuple[int, int]) -> tuple[Pixels, Placement]:
    """Resize an image uint8 (H, W, 3) to (height, width) bilinearly, aspect kept, centered on gray 128."""
    height, width = image.shape[:2]
    placement = fit((height, width), input_size)
    left, top = placement.offset
    new_width, new_height = round(placement.scale[0] * width), round(placement.scale[1] * height)
    canvas: Pixels = np.full((*input_size, 3), FILL, dtype=np.uint8)
    canvas[top : top + new_height, left : left + new_width] = resize(image, (new_height, new_width))
    return canvas, placement


def resize(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize an image uint8 (H, W, 3) to (height, width) bilinearly."""
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
