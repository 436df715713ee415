"""Random changes to a training picture and its boxes, by albumentations 2.0.8.

Only this file imports albumentations; its update check, which would ask the network, is switched off first.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nets.structures import Target
from utils.data.mosaic import Labelled
from utils.images import FILL, Pixels, resize

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A


@dataclass(frozen=True)
class AugmentLevel:
    """How far training pictures are changed.

    Attributes:
        scale: range of the size, of that which the letterbox would give.
        aspect: largest factor by which the aspect changes, either way.
        hue: largest turn of the hue, of a full circle.
        saturation: largest relative change of the saturation.
        value: largest relative change of brightness and of contrast.
        rare: probability of each of blur and loss of colour.
    """

    scale: tuple[float, float]
    aspect: float
    hue: float
    saturation: float
    value: float
    rare: float


LEVELS = {
    "light": AugmentLevel((0.8, 1.2), 1.1, 0.01, 0.2, 0.2, 0.0),
    "default": AugmentLevel((0.5, 1.5), 1.3, 0.015, 0.6, 0.3, 0.01),
}


class RandomPlacement(A.DualTransform):
    """Lay the picture onto a grey canvas of network size, at a random scale, aspect and place.

    Does in one resampling what a resize, a pad and an affine map would do in three. Where the picture is
    larger than the canvas a random part of it shows, where it is smaller it lies at a random place.
    """

    _targets = (A.core.type_definitions.Targets.IMAGE, A.core.type_definitions.Targets.BBOXES)

    def __init__(self, size: tuple[int, int], scale: tuple[float, float], aspect: float) -> None:
        super().__init__(p=1.0)
        self.size = size
        self.scale = scale
        self.aspect = aspect

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the size (height, width) of the picture on the canvas and the (top, left) of its corner."""
        rng = self.random_generator
        ratio = min(self.size[0] / params["shape"][0], self.size[1] / params["shape"][1])
        low, high = np.log(self.scale)
        ratio *= np.exp(rng.uniform(low, high))
        stretch = np.exp(rng.uniform(-0.5, 0.5) * np.log(self.aspect))
        new_size = tuple(
            max(1, round(side * ratio * factor))
            for side, factor in zip(params["shape"][:2], (stretch, 1 / stretch), strict=True)
        )
        corner = tuple(
            int(rng.integers(min(0, room), max(0, room) + 1))
            for room in (self.size[0] - new_size[0], self.size[1] - new_size[1])
        )
        return {"new_size": new_size, "corner": corner}

    def apply(self, img: Pixels, new_size: tuple[int, int], corner: tuple[int, int], **params: Any) -> Pixels:
        """Resize and paste an image uint8 (H, W, 3)."""
        canvas: Pixels = np.full((*self.size, 3), FILL, dtype=np.uint8)
        small = resize(img, new_size)
        (top, left), (height, width) = corner, self.size
        rows = slice(max(top, 0), min(top + new_size[0], height))
        columns = slice(max(left, 0), min(left + new_size[1], width))
        seen = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        canvas[rows, columns] = small[seen]
        return canvas

    def apply_to_bboxes(
        self, bboxes: NDArray[np.floating], new_size: tuple[int, int], corner: tuple[int, int], **params: Any
    ) -> NDArray[np.floating]:
        """Map boxes (M, 4+), normalised by the image's sides, to boxes normalised by the canvas' sides."""
        moved = bboxes.copy()
        moved[:, [0, 2]] = (bboxes[:, [0, 2]] * new_size[1] + corner[1]) / self.size[1]
        moved[:, [1, 3]] = (bboxes[:, [1, 3]] * new_size[0] + corner[0]) / self.size[0]
        return moved


class Augmenter:
    """Place pictures on the network's canvas, then flip and recolour them, by the generator that is given."""

    def __init__(self, size: tuple[int, int], level: str = "default") -> None:
        """Build the two pipelines.

        Args:
            size: (height, width) of the network input in pixels.
            level: a name in LEVELS.
        """
        strength = LEVELS[level]
        self._place = _compose([RandomPlacement(size, strength.scale, strength.aspect)])
        self._finish = _compose(
            [
                A.HorizontalFlip(p=0.5),
                A.ColorJitter(
                    brightness=(1 - strength.value, 1 + strength.value),
                    contrast=(1 - strength.value, 1 + strength.value),
                    saturation=(1 - strength.saturation, 1 + strength.saturation),
                    hue=(-strength.hue, strength.hue),
                    p=0.9,
                ),
                A.Blur(blur_limit=(3, 5), p=strength.rare),
                A.ToGray(p=strength.rare),
            ]
        )

    def place(self, image: Pixels, target: Target, rng: np.random.Generator) -> Labelled:
        """Lay one image and its target, in image pixels, onto the canvas; hardly visible objects go."""
        return _run(self._place, image, target, rng)

    def finish(self, image: Pixels, target: Target, rng: np.random.Generator) -> Labelled:
        """Flip and recolour a picture that has the network's size already."""
        return _run(self._finish, image, target, rng)


def _compose(transforms: list[Any]) -> A.Compose:
    boxes = A.BboxParams("pascal_voc", min_visibility=0.2, min_width=2, min_height=2, clip=True)
    return A.Compose(transforms, bbox_params=boxes)


def _run(pipeline: A.Compose, image: Pixels, target: Target, rng: np.random.Generator) -> Labelled:
    # set_random_seed would start every transform with the same stream, so that a flip would always come with
    # the same colours; generators that they share give independent draws.
    pipeline.set_random_state(rng, random.Random(int(rng.integers(2**63))))
    index = torch.arange(len(target), dtype=torch.float32)[:, None]
    rows = torch.cat([target.boxes, index], dim=1).numpy()  # labels and flags follow the index
    result = pipeline(image=image, bboxes=rows)
    left = torch.from_numpy(np.asarray(result["bboxes"], dtype=np.float32).reshape(-1, rows.shape[1]))
    kept = left[:, 4].long()
    target = Target(left[:, :4].contiguous(), target.labels[kept], target.difficult[kept], target.image_id)
    return result["image"], target
