"""Check of the user's own transforms before the first step."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import albumentations as A
import numpy as np
import torch

from nets.structures import Target
from utils.cli.errors import UserError
from utils.data.augmentation import Augmenter, apply_pipeline, build_box_params
from utils.data.custom_augmentation import Transform
from utils.data.mosaic import ImageAndTarget
from utils.vision.image_reader import Pixels
from utils.vision.letterbox import FILL

_SEEDS = 4
_COLUMNS = 4  # and rows of the made objects


def check_augmentation(augmenter: Augmenter) -> None:
    """Run each of the user's own transforms, then all together, on a made image.

    A transform must keep the size, return uint8 RGB, keep label and flag of each box, keep a box for at least
    one of a few seeds, and be a function of the image and of the generators that it is given.

    Raises:
        UserError: names the transform and what it does.
    """
    if augmenter.own is None:
        return
    item = draw_objects(augmenter.size)
    for transform in _each(augmenter.own):
        _check(augmenter, [transform], item, type(transform).__name__)
    _check(augmenter, augmenter.own, item, "all transforms together")


def draw_objects(size: tuple[int, int]) -> ImageAndTarget:
    """Draw 16 rectangles, each of another color, on gray; every third one is difficult.

    Args:
        size: (height, width) of the image in pixels.

    Returns:
        The image, uint8 (H, W, 3), and its objects; the label of each is its number.
    """
    image: Pixels = np.full((*size, 3), FILL, dtype=np.uint8)
    boxes, count = [], _COLUMNS**2
    for number in range(count):
        row, column = divmod(number, _COLUMNS)
        y1, y2 = ((row + part) * size[0] // _COLUMNS for part in (0, 1))
        x1, x2 = ((column + part) * size[1] // _COLUMNS for part in (0, 1))
        dy, dx = (y2 - y1) // 4, (x2 - x1) // 4
        y1, x1, y2, x2 = y1 + dy, x1 + dx, y2 - dy, x2 - dx
        image[y1:y2, x1:x2] = [(number * 37 + 60) % 256, (number * 91) % 256, (255 - number * 53) % 256]
        boxes.append([x1, y1, x2, y2])
    labels = torch.arange(count)
    return image, Target(torch.tensor(boxes, dtype=torch.float32), labels, labels % 3 == 0, "check")


def _each(transforms: Sequence[Transform]) -> Iterator[A.BasicTransform]:
    for transform in transforms:
        if isinstance(transform, A.BaseCompose):
            yield from _each(transform.transforms)
        else:
            yield transform


def _check(augmenter: Augmenter, transforms: Sequence[Transform], item: ImageAndTarget, name: str) -> None:
    image, target = item
    pipeline = A.Compose(list(transforms), bbox_params=build_box_params(check_each_transform=True))
    alone = transforms[0] if len(transforms) == 1 and isinstance(transforms[0], A.BasicTransform) else None
    probability, kept = (alone.p if alone else 1.0), 0
    try:
        if alone:
            alone.p = 1.0
        for seed in range(_SEEDS):
            first, second = (
                _run(pipeline, image.copy(), target, augmenter.size, seed, own) for own in (0, 1)
            )
            if not np.array_equal(first[0], second[0]) or not torch.equal(first[1].boxes, second[1].boxes):
                raise ValueError(
                    "gives two results for one random state: draw from self.random_generator or "
                    "self.py_random, and keep no state"
                )
            flags = target.difficult[first[1].labels] if len(first[1]) else first[1].difficult
            if not torch.equal(flags, first[1].difficult):
                raise ValueError("changes the labels or difficult flags of the boxes")
            kept += len(first[1])
        if not kept:
            raise ValueError("loses every box")
    except Exception as error:  # the user's own code may fail in any way
        reason = " ".join(str(error).split())
        raise UserError(
            f"--augment {augmenter.name}: {name}: {reason[:300] or type(error).__name__}"
        ) from error
    finally:
        if alone:
            alone.p = probability


def _run(
    pipeline: A.Compose, image: Pixels, target: Target, size: tuple[int, int], seed: int, global_seed: int
) -> ImageAndTarget:
    """Run a pipeline while the global generators have a known state, which must stay; then restore them."""
    saved = _global_states()
    try:
        random.seed(global_seed)
        np.random.seed(global_seed)
        torch.random.default_generator.manual_seed(global_seed)
        before = _global_states()
        pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        made = apply_pipeline(pipeline, image, target, size)
        if used := [name for name, state in _global_states().items() if not _is_equal(state, before[name])]:
            raise ValueError(f"draws from the global generator of {used[0]}; use self.random_generator")
        return made
    finally:
        random.setstate(saved["random"])
        np.random.set_state(saved["numpy"])
        torch.random.default_generator.set_state(saved["torch"])


def _global_states() -> dict[str, Any]:
    return {
        "random": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.random.default_generator.get_state(),
    }


def _is_equal(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
