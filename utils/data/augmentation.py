"""Augmentation of a training image and its boxes: scale, aspect, flip, color, blur, grayscale."""

from __future__ import annotations

import random
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from nets.structures import Target
from utils.data.paste import Labeled, Place, blank, lay, move
from utils.vision.image_reader import Pixels
from utils.vision.letterbox import letterbox

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])  # RGB -> YIQ
_MIDDLE = 128.0  # the gray that a change of contrast leaves alone


@dataclass(frozen=True)
class AugmentLevel:
    """How far training pictures are changed.

    Attributes:
        scale: range of the size, of that which the letterbox would give.
        aspect: largest factor by which the aspect changes, either way.
        hue: largest turn of the hue, of a full circle.
        saturation: largest relative change of the saturation.
        brightness: largest relative change of the brightness.
        contrast: largest relative change of the contrast.
        rare: probability of each of blur and grayscale.
        fitted: the scale is that of the stretched picture and drawn evenly; else it is that of the picture's
            square root of area and drawn evenly in its logarithm.
    """

    scale: tuple[float, float]
    aspect: float
    hue: float
    saturation: float
    brightness: float
    contrast: float
    rare: float = 0.0
    fitted: bool = False


# "none" is what inference sees. "reference" has the ranges of bubbliiiing/yolov4-tiny-pytorch, where the hue
# is multiplied by 0.9 to 1.1: orange turns by up to 4 degrees, violet by 36, the mean hue by the 18 of ours.
LEVELS: dict[str, AugmentLevel | None] = {
    "none": None,
    "light": AugmentLevel((0.8, 1.2), 1.1, 0.01, 0.2, 0.2, 0.2),
    "default": AugmentLevel((0.5, 1.5), 1.3, 0.015, 0.6, 0.3, 0.3, rare=0.01),
    "reference": AugmentLevel((0.25, 2.0), 1.3 / 0.7, 0.05, 0.7, 0.4, 0.0, fitted=True),
}


def recolor(image: Pixels, level: AugmentLevel, rng: np.random.Generator) -> Pixels:
    """Change the colors of an image uint8 (H, W, 3); rarely blur it, or make it gray."""
    rare = random.Random(int(rng.integers(2**63)))
    rare.random()  # keeps the numbers of earlier versions, whose pipeline drew one here
    turn = 2 * np.pi * level.hue * rng.uniform(-1, 1)
    gains = 1 + np.array([level.saturation, level.brightness, level.contrast]) * rng.uniform(-1, 1, 3)
    image = cv2.transform(image, color_matrix(turn, *gains))
    if rare.random() < level.rare:
        side = rare.choice((3, 5))
        image = cv2.blur(image, (side, side))
    if rare.random() < level.rare:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return image


def color_matrix(turn: float, saturation: float, brightness: float, contrast: float) -> NDArray[np.floating]:
    """Build the affine map (3, 4) of RGB pixels that does the four changes in this order.

    Args:
        turn: angle of the hue in the plane of chroma, in radians; luma stays.
        saturation: factor of the distance from the gray of the same luma.
        brightness: factor of the values.
        contrast: factor of the distance from the middle gray.
    """
    cos, sin = np.cos(turn), np.sin(turn)
    chroma = saturation * np.array([[cos, -sin], [sin, cos]])
    inner = np.block([[np.ones((1, 1)), np.zeros((1, 2))], [np.zeros((2, 1)), chroma]])
    linear = brightness * contrast * np.linalg.solve(_YIQ, inner @ _YIQ)
    return np.hstack([linear, np.full((3, 1), _MIDDLE * (1 - contrast))])


class Augmenter:
    """Place pictures on the network's canvas, then flip and recolor them, by the generator that is given."""

    def __init__(self, size: tuple[int, int], level: str = "default") -> None:
        """Choose the level.

        Args:
            size: (height, width) of the network input in pixels.
            level: a name in LEVELS.
        """
        self.size = size
        self.level = LEVELS[level]

    @property
    def reach(self) -> float:
        """Bound the length that a side may be drawn at, of that which the letterbox would give it."""
        if self.level is None:
            return 1.0
        return self.level.scale[1] * self.level.aspect ** (1.0 if self.level.fitted else 0.5)

    def place(self, image: Pixels, target: Target, rng: np.random.Generator) -> Labeled:
        """Lay one image and its target, in image pixels, onto the canvas.

        At a random scale, aspect and place: where the picture is larger than the canvas a random part of it
        shows, where it is smaller the rest stays gray. Hardly visible objects go.
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
        where = Place(new_size, (corner[0], corner[1]), ((0, self.size[0]), (0, self.size[1])))
        canvas = blank(self.size)
        lay(canvas, image, where)
        return canvas, move(target, image.shape[:2], where)

    def finish(self, image: Pixels, target: Target, rng: np.random.Generator) -> Labeled:
        """Flip and recolor a picture that has the network's size already."""
        if self.level is None:
            return image, target
        if rng.random() < 0.5:
            image, target = flip(image, target)
        return recolor(image, self.level, rng), target


def flip(image: Pixels, target: Target) -> Labeled:
    """Mirror an image uint8 (H, W, 3) and its boxes left to right."""
    x1, y1, x2, y2 = target.boxes.unbind(1)
    boxes = torch.stack([image.shape[1] - x2, y1, image.shape[1] - x1, y2], dim=1)
    return cv2.flip(image, 1), Target(boxes, target.labels, target.difficult, target.image_id)


def _draw_size(
    size: tuple[int, ...], room: tuple[int, int], level: AugmentLevel, rng: np.random.Generator
) -> tuple[int, int]:
    """Draw the (height, width) at which a picture of `size` is shown on a canvas of `room`."""
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
