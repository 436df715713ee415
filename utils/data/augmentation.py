"""Random augmentation of a training image and its boxes: an albumentations pipeline.

To change what is drawn, edit `build_pipeline`, or give your own transforms with --augment.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from albumentations.core.type_definitions import Targets
from numpy.typing import NDArray

from nets.structures import Target
from utils.cli.errors import UserError
from utils.data.custom_augmentation import Transform, hash_transforms, load_transforms
from utils.data.mosaic import MIN_SIDE, MIN_VISIBILITY, ImageAndTarget, PasteRegion, empty_canvas, paste
from utils.vision.image_reader import Pixels
from utils.vision.letterbox import letterbox

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])  # RGB -> YIQ
_RGB = np.linalg.inv(_YIQ)
_MIDDLE = 128.0  # gray value that a change of contrast keeps


@dataclass(frozen=True)
class AugmentLevel:
    """Strength of the augmentation: largest relative changes; of the hue as a fraction of the circle."""

    scale: tuple[float, float]  # range of the size, relative to the letterboxed size
    aspect: float  # largest factor of the aspect ratio, either way
    hue: float
    saturation: float
    brightness: float
    contrast: float
    rare: float = 0.0  # probability of each of blur and grayscale
    # The scale is drawn uniformly and applies to the stretched image; else it is drawn log-uniformly and
    # applies to the square root of the area.
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
    cos, sin = saturation * np.cos(angle), saturation * np.sin(angle)
    chroma = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    matrix = np.empty((3, 4))
    matrix[:, :3] = brightness * contrast * (_RGB @ chroma @ _YIQ)
    matrix[:, 3] = _MIDDLE * (1 - contrast)
    return matrix


class RandomPlacement(A.DualTransform):
    """Paste an image on a gray canvas at a random scale, aspect ratio and position, in one resampling.

    Of an image larger than the canvas a random part is visible.
    """

    _targets = (Targets.IMAGE, Targets.BBOXES)

    def __init__(self, size: tuple[int, int], level: AugmentLevel) -> None:
        """Take (height, width) of the canvas in pixels, and the ranges."""
        super().__init__(p=1.0)
        self.size = size
        self.level = level

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the region of the image on the canvas."""
        rng = self.random_generator
        new_size = _draw_size(params["shape"][:2], self.size, self.level, rng)
        top, left = (
            int(rng.integers(min(0, side - new), max(0, side - new) + 1))
            for side, new in zip(self.size, new_size, strict=True)
        )
        return {"region": PasteRegion(new_size, (top, left), ((0, self.size[0]), (0, self.size[1])))}

    def apply(self, img: Pixels, region: PasteRegion, **params: Any) -> Pixels:
        """Paste an image uint8 (H, W, 3)."""
        canvas = empty_canvas(self.size)
        paste(canvas, img, region)
        return canvas

    def apply_to_bboxes(
        self, bboxes: NDArray[np.floating], region: PasteRegion, **params: Any
    ) -> NDArray[np.floating]:
        """Move boxes (M, 4+) whose first columns are relative to the image; they are clipped later."""
        (height, width), (new_height, new_width), (top, left) = self.size, region.size, region.corner
        moved = bboxes.copy()
        moved[:, :4] *= np.array([new_width / width, new_height / height] * 2, dtype=np.float32)
        moved[:, :4] += np.array([left / width, top / height] * 2, dtype=np.float32)
        return moved


def build_pipeline(
    size: tuple[int, int], level: AugmentLevel, own: Sequence[Transform] | None = None
) -> A.Compose:
    """Build the transforms of an image and its boxes, in this order.

    Args:
        size: (height, width) of the network input in pixels.
        level: the strength.
        own: transforms in place of all after the placement; they must keep the size.

    Returns:
        A pipeline of image, bboxes, labels and difficult; it drops objects of which little is visible.
    """
    transforms: list[Transform] = [
        A.HorizontalFlip(p=0.5),
        ColorMatrix(level.hue, level.saturation, level.brightness, level.contrast),
    ]
    if level.rare:
        transforms += [A.Blur(blur_limit=(3, 5), p=level.rare), A.ToGray(p=level.rare)]
    if own is not None:
        transforms = list(own)
    # Clipping boxes takes 30 us. Once at the end is enough unless a second transform moves them out: the next
    # could move them back.
    keeps_inside = all(isinstance(each, (A.ImageOnlyTransform, A.HorizontalFlip)) for each in transforms)
    boxes = build_box_params(check_each_transform=not keeps_inside)
    placement = RandomPlacement(size, level)
    return A.Compose([placement, *transforms], bbox_params=boxes, is_check_shapes=False)


def build_box_params(*, check_each_transform: bool) -> A.BboxParams:
    """Build the rule that drops objects of which little is visible, after each transform or at the end."""
    return A.BboxParams(
        format="pascal_voc",
        label_fields=["labels", "difficult"],
        min_width=MIN_SIDE,
        min_height=MIN_SIDE,
        min_visibility=MIN_VISIBILITY,
        check_each_transform=check_each_transform,
    )


class Augmenter:
    """Augments images with a pipeline; a function of the given generator alone.

    Attributes:
        size: (height, width) of the network input in pixels.
        name: a name in LEVELS, or what --augment names.
        level: the strength; None means the letterbox of inference. Own transforms are placed as by "default".
        own: the transforms of a file or of the user's code, None for a level.
    """

    def __init__(
        self, size: tuple[int, int], name: str = "default", own: Sequence[Transform] | None = None
    ) -> None:
        """Build the pipeline; own transforms are loaded unless they are given.

        Raises:
            UserError: as `load_transforms`.
        """
        self.size, self.name = size, name
        self.level = LEVELS.get(name, LEVELS["default"])
        self.own = load_transforms(name) if own is None and name not in LEVELS else own
        self._pipeline = None if self.level is None else build_pipeline(size, self.level, self.own)

    def __reduce__(self) -> tuple[Any, ...]:
        return Augmenter, (self.size, self.name)  # a new process imports the user's code again

    def resized(self, size: tuple[int, int]) -> Augmenter:
        """Return an augmenter with these transforms for another (height, width)."""
        return Augmenter(size, self.name, self.own)

    @property
    def own_hash(self) -> str | None:
        """Hash of the own transforms and their arguments, None for a level."""
        return None if self.own is None else hash_transforms(self.own)

    @property
    def max_scale(self) -> float:
        """Largest length of a side, relative to its letterboxed length."""
        if self.level is None:
            return 1.0
        return self.level.scale[1] * self.level.aspect ** (1.0 if self.level.fitted else 0.5)

    def augment(
        self, image: Pixels, target: Target, rng: np.random.Generator, *, is_placed: bool = False
    ) -> ImageAndTarget:
        """Augment an image uint8 (H, W, 3) and its target, in pixels.

        Args:
            image: the image; if `is_placed`, a canvas of network size, such as a mosaic.
            target: its objects.
            rng: gives every random choice.
            is_placed: leave out the placement.

        Raises:
            UserError: a transform of the user's own fails on this image.
        """
        if self._pipeline is None:
            canvas, placement = letterbox(image, self.size)
            boxes = torch.from_numpy(placement.apply(target.boxes.numpy()))
            return canvas, Target(boxes, target.labels, target.difficult, target.image_id)
        self._pipeline[0].p = 0.0 if is_placed else 1.0
        # set_random_seed would give every transform the same stream, so that blur always came with the same
        # colors; a shared generator gives independent draws.
        self._pipeline.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        try:
            return apply_pipeline(self._pipeline, image, target, self.size)
        except Exception as error:  # the user's own code may fail in any way
            if self.own is None:
                raise
            reason = " ".join(str(error).split())
            raise UserError(f"--augment {self.name}: image {target.image_id}: {reason}") from error


def apply_pipeline(
    pipeline: A.Compose, image: Pixels, target: Target, size: tuple[int, int] | None
) -> ImageAndTarget:
    """Pass an image and its target, in pixels, through a pipeline.

    Raises:
        ValueError: the result is no image uint8 of (height, width) = `size`, or boxes lost their labels. None
            allows every size.
        Exception: anything that a transform raises.
    """
    made = pipeline(
        image=image,
        bboxes=target.boxes.numpy(),
        labels=target.labels.numpy(),
        difficult=target.difficult.numpy().view(np.uint8),
    )
    pixels, boxes, labels, difficult = (made[key] for key in ("image", "bboxes", "labels", "difficult"))
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 3 or pixels.shape[2] != 3:
        shape = f" {tuple(pixels.shape)}" if hasattr(pixels, "shape") else ""
        raise ValueError(f"must return an image (H, W, 3), this one is {type(pixels).__name__}{shape}")
    if pixels.dtype != np.uint8:
        raise ValueError(f"must return an image uint8, this one is {pixels.dtype}")
    if size is not None:
        check_size(pixels, size)
    if len(boxes) and boxes.shape[1] != 4:
        raise ValueError("loses the labels of the boxes: apply_to_bboxes must keep every column")
    return pixels, Target(
        torch.from_numpy(np.asarray(boxes, dtype=np.float32).reshape(-1, 4)),
        torch.from_numpy(np.asarray(labels, dtype=np.int64)),
        torch.from_numpy(np.asarray(difficult, dtype=np.bool_)),
        target.image_id,
    )


def check_size(image: Pixels, size: tuple[int, int]) -> None:
    """Check an augmented image against the (height, width) of the network; raises a ValueError."""
    if image.shape[:2] != size:
        raise ValueError(
            f"changes the size (height, width) to {image.shape[:2]}; the network needs {size}: add "
            f"A.Resize{size}"
        )


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
