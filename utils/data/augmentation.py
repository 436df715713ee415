"""Random augmentation of a training image and its boxes.

Only this module imports albumentations, and only for color, blur and grayscale. Its box processing takes half
a millisecond per pass, so geometry is done by `mosaic`. Its update check, which needs the network, is off.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from nets.structures import Target
from utils.data.mosaic import ImageAndTarget, PasteRegion, empty_canvas, paste, transform_boxes
from utils.vision.image_reader import Pixels
from utils.vision.letterbox import letterbox

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])  # RGB -> YIQ
_MIDDLE = 128.0  # gray value that a change of contrast keeps


@dataclass(frozen=True)
class AugmentLevel:
    """Strength of the augmentation: largest relative changes; of the hue as a fraction of the circle.

    Attributes:
        scale: range of the size, relative to the letterboxed size.
        aspect: largest factor of the aspect ratio, either way.
        rare: probability of each of blur and grayscale.
        fitted: the scale is drawn uniformly and applies to the stretched image; else it is drawn
            log-uniformly and applies to the square root of the area.
    """

    scale: tuple[float, float]
    aspect: float
    hue: float
    saturation: float
    brightness: float
    contrast: float
    rare: float = 0.0
    fitted: bool = False


# "none" is the letterbox of inference. "reference" has the ranges of bubbliiiing/yolov4-tiny-pytorch, where
# the hue is multiplied by 0.9 to 1.1: orange shifts by up to 4 degrees, violet by 36, the mean hue by 18.
LEVELS: dict[str, AugmentLevel | None] = {
    "none": None,
    "light": AugmentLevel((0.8, 1.2), 1.1, 0.01, 0.2, 0.2, 0.2),
    "default": AugmentLevel((0.5, 1.5), 1.3, 0.015, 0.6, 0.3, 0.3, rare=0.01),
    "reference": AugmentLevel((0.25, 2.0), 1.3 / 0.7, 0.05, 0.7, 0.4, 0.0, fitted=True),
}


class ColorMatrix(A.ImageOnlyTransform):
    """Change hue, saturation, brightness and contrast in one affine map of the three channels."""

    def __init__(self, hue: float, saturation: float, brightness: float, contrast: float) -> None:
        super().__init__(p=1.0)
        self.hue = hue
        self.gains = (saturation, brightness, contrast)

    def get_params(self) -> dict[str, Any]:
        """Draw the map (3, 4) of pixels (r, g, b, 1)."""
        rng = self.random_generator
        angle = 2 * np.pi * self.hue * rng.uniform(-1, 1)
        saturation, brightness, contrast = 1 + np.array(self.gains) * rng.uniform(-1, 1, 3)
        return {"matrix": color_matrix(angle, saturation, brightness, contrast)}

    def apply(self, img: Pixels, matrix: NDArray[np.floating], **params: Any) -> Pixels:
        """Map every pixel of an image uint8 (H, W, 3), clipped to 0..255."""
        return cv2.transform(img, matrix)


def color_matrix(angle: float, saturation: float, brightness: float, contrast: float) -> NDArray[np.floating]:
    """Build the affine map (3, 4) of RGB pixels that makes four changes in this order.

    The hue turns by an angle in radians in the plane of chroma. The factors are of the distance from the gray
    of the same luma, of the values, and of the distance from the middle gray.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    chroma = saturation * np.array([[cos, -sin], [sin, cos]])
    inner = np.block([[np.ones((1, 1)), np.zeros((1, 2))], [np.zeros((2, 1)), chroma]])
    linear = brightness * contrast * np.linalg.solve(_YIQ, inner @ _YIQ)
    return np.hstack([linear, np.full((3, 1), _MIDDLE * (1 - contrast))])


class Augmenter:
    """Pastes images on the network's canvas, then flips and recolors them."""

    def __init__(self, size: tuple[int, int], level: str = "default") -> None:
        """Take (height, width) of the network input in pixels, and a name in LEVELS."""
        self.size = size
        self.level = LEVELS[level]
        if self.level is not None:
            own = self.level
            color = ColorMatrix(own.hue, own.saturation, own.brightness, own.contrast)
            rare = [A.Blur(blur_limit=(3, 5), p=own.rare), A.ToGray(p=own.rare)] if own.rare else []
            self._pixels = A.Compose([color, *rare])

    @property
    def max_scale(self) -> float:
        """Largest length of a side, relative to its letterboxed length."""
        if self.level is None:
            return 1.0
        return self.level.scale[1] * self.level.aspect ** (1.0 if self.level.fitted else 0.5)

    def to_canvas(self, image: Pixels, target: Target, rng: np.random.Generator) -> ImageAndTarget:
        """Paste one image and its target, in image pixels, at a random scale, aspect and position.

        Of an image larger than the canvas a random part is visible. Objects of which little is visible are
        dropped.
        """
        if self.level is None:
            canvas, placement = letterbox(image, self.size)
            boxes = torch.from_numpy(placement.apply(target.boxes.numpy()))
            return canvas, Target(boxes, target.labels, target.difficult, target.image_id)
        new_size = _draw_size(image.shape[:2], self.size, self.level, rng)
        corner = tuple(
            int(rng.integers(min(0, side - new), max(0, side - new) + 1))
            for side, new in zip(self.size, new_size, strict=True)
        )
        region = PasteRegion(new_size, (corner[0], corner[1]), ((0, self.size[0]), (0, self.size[1])))
        canvas = empty_canvas(self.size)
        paste(canvas, image, region)
        return canvas, transform_boxes(target, image.shape[:2], region)

    def flip_and_recolor(self, image: Pixels, target: Target, rng: np.random.Generator) -> ImageAndTarget:
        """Flip and recolor an image of network size."""
        if self.level is None:
            return image, target
        if rng.random() < 0.5:
            image, target = flip(image, target)
        # set_random_seed would give every transform the same stream, so that blur always came with the same
        # colors; a shared generator gives independent draws.
        self._pixels.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        return self._pixels(image=image)["image"], target


def flip(image: Pixels, target: Target) -> ImageAndTarget:
    """Mirror an image uint8 (H, W, 3) and its boxes left to right."""
    x1, y1, x2, y2 = target.boxes.unbind(1)
    boxes = torch.stack([image.shape[1] - x2, y1, image.shape[1] - x1, y2], dim=1)
    return cv2.flip(image, 1), Target(boxes, target.labels, target.difficult, target.image_id)


def _draw_size(
    size: tuple[int, ...], room: tuple[int, int], level: AugmentLevel, rng: np.random.Generator
) -> tuple[int, int]:
    """Draw the (height, width) of an image of `size` on a canvas of `room`."""
    height, width = map(float, size)
    if level.fitted:
        spread = (level.aspect - 1) / (level.aspect + 1)  # 1 + spread over 1 - spread is the largest aspect
        width *= rng.uniform(1 - spread, 1 + spread) / rng.uniform(1 - spread, 1 + spread)
        ratio = min(room[0] / height, room[1] / width) * rng.uniform(*level.scale)
        stretch = 1.0
    else:
        ratio = min(room[0] / height, room[1] / width) * np.exp(rng.uniform(*np.log(level.scale)))
        stretch = np.exp(rng.uniform(-0.5, 0.5) * np.log(level.aspect))
    return max(1, round(height * ratio * stretch)), max(1, round(width * ratio / stretch))
