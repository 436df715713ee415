"""Check of the user's own transforms before the first step."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import albumentations as A
import numpy as np
import torch
from torch import Tensor

from nets.structures import Target
from utils.cli.errors import UserError
from utils.data.augmentation import Augmenter, apply_pipeline, build_box_params, check_size
from utils.data.custom_augmentation import Transform
from utils.data.mosaic import ImageAndTarget
from utils.vision.image_reader import Pixels
from utils.vision.letterbox import FILL

# Transforms of albumentations 2.0.8 that run and leave wrong boxes.
UNSUPPORTED = {
    "Morphological": "leaves boxes that do not fit the objects",
    "RandomGridShuffle": "cuts objects into parts, which a box cannot follow",
}
_SEEDS = 4
_DRAWS = 24  # of all transforms together, each applied in half of them if its own p is below 1
_VISIBLE = 0.5  # of an object's pixels, of which its box must be kept
_COLUMNS = 4  # and rows of the made objects


def check_augmentation(augmenter: Augmenter) -> None:
    """Run each of the user's own transforms, then all together, on a made image.

    A transform must return uint8 RGB, keep label and flag of each box, keep a box for at least one of a few
    seeds and for each object that can be seen, and be a function of the image and of the generators that it
    is given. All together must return the network's size; so a crop may be followed by a resize.

    Raises:
        UserError: names the transform and what it does.
    """
    if augmenter.own is None:
        return
    where, resizing = f"--augment {augmenter.name}", []

    def check_each(transforms: Sequence[Transform], item: ImageAndTarget) -> ImageAndTarget:
        """Check each transform on what those before it make, always applied; return the last result."""
        for transform in transforms:
            if isinstance(transform, (A.Compose, A.Sequential)):
                item = check_each(transform.transforms, item)
            elif isinstance(transform, A.BaseCompose):  # alternatives, such as OneOf
                if isinstance(transform, A.SelectiveChannelTransform) and not all(
                    isinstance(each, (A.ImageOnlyTransform, A.BaseCompose)) for each in _walk([transform])
                ):
                    raise UserError(
                        f"{where}: SelectiveChannelTransform: moves no boxes; use it for colors only"
                    )
                made = [check_each([part], item) for part in transform.transforms]
                item = next((one for one in made if one[0].shape != item[0].shape), item)
            else:
                made = _check_alone(where, transform, item)
                if resized := [one for one in made if one[0].shape != item[0].shape]:
                    resizing.append(type(transform).__name__)
                    item = max(resized, key=lambda one: len(one[1]))
        return item

    item = draw_objects(augmenter.size)
    last = check_each(augmenter.own, item)
    names = ", ".join(resizing) or "all transforms together"
    try:
        check_size(last[0], augmenter.size)
    except ValueError as error:
        raise UserError(f"{where}: {names}: {error}") from None
    rare = [each for each in _walk(augmenter.own) if 0 < each.p < 1]
    kept = [each.p for each in rare]
    try:
        for each in rare:
            each.p = 0.5
        _check(f"{where}: {names}", augmenter.own, item, augmenter.size, _DRAWS)
    finally:
        for each, probability in zip(rare, kept, strict=True):
            each.p = probability


def _walk(transforms: Sequence[Transform]) -> Iterator[Transform]:
    for each in transforms:
        yield each
        yield from _walk(each.transforms) if isinstance(each, A.BaseCompose) else ()


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
        image[y1:y2, x1:x2] = _color(number)
        boxes.append([x1, y1, x2, y2])
    labels = torch.arange(count)
    return image, Target(torch.tensor(boxes, dtype=torch.float32), labels, _is_difficult(labels), "check")


def _color(number: int) -> tuple[int, int, int]:
    return (number * 37 + 60) % 256, (number * 91) % 256, (255 - number * 53) % 256


def _is_difficult(labels: Tensor) -> Tensor:
    return labels % 3 == 0


def _check_alone(where: str, transform: A.BasicTransform, item: ImageAndTarget) -> list[ImageAndTarget]:
    """Check a transform, always applied, and return what it makes of an item with a few seeds."""
    where = f"{where}: {type(transform).__name__}"
    if reason := UNSUPPORTED.get(type(transform).__name__):
        raise UserError(f"{where}: {reason}; remove it")
    probability, transform.p = transform.p, 1.0
    try:
        return _check(where, [transform], item, None)
    finally:
        transform.p = probability


def _check(
    where: str,
    transforms: Sequence[Transform],
    item: ImageAndTarget,
    size: tuple[int, int] | None,
    seeds: int = _SEEDS,
) -> list[ImageAndTarget]:
    pipeline = A.Compose(
        [A.NoOp(), *transforms],
        bbox_params=build_box_params(check_each_transform=True),
        is_check_shapes=False,
    )
    try:
        made = []
        for seed in range(seeds):
            first, second = (_run(pipeline, item, size, seed, global_seed) for global_seed in (0, 1))
            if not np.array_equal(first[0], second[0]) or not torch.equal(first[1].boxes, second[1].boxes):
                raise ValueError(
                    "gives two results for one random state; draw from self.random_generator or "
                    "self.py_random, and keep no state"
                )
            if not torch.equal(first[1].difficult, _is_difficult(first[1].labels)):
                raise ValueError("changes labels or difficult flags of boxes")
            _check_boxes(item, first)
            made.append(first)
        if len(item[1]) and not any(len(target) for _, target in made):
            raise ValueError("loses every box")
        return made
    except Exception as error:  # the user's own code may fail in any way
        reason = " ".join(str(error).split())[:300]
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise UserError(f"{where}: {kind}{reason}") from error


def _check_boxes(before: ImageAndTarget, after: ImageAndTarget) -> None:
    """Check that an object whose own color is still seen has its box, and that the middle is inside.

    Objects at the border may be cut by a crop, so that too little of them is left for a box.

    Raises:
        ValueError: a box is lost, or is elsewhere.
    """
    left, top, right, bottom = after[1].boxes.T.numpy() if len(after[1]) else np.zeros((4, 0))
    place_of = {label: place for place, label in enumerate(after[1].labels.tolist())}
    for label in before[1].labels.tolist():
        count = int((before[0] == _color(label)).all(axis=2).sum())
        rows, columns = (after[0] == _color(label)).all(axis=2).nonzero()
        if not count or len(rows) < _VISIBLE * count or 0 in (rows.min(), columns.min()):
            continue
        if rows.max() == after[0].shape[0] - 1 or columns.max() == after[0].shape[1] - 1:
            continue
        if (place := place_of.get(label)) is None:
            raise ValueError("loses the box of an object that is seen")
        x, y = columns.mean() + 0.5, rows.mean() + 0.5
        if not (left[place] <= x <= right[place] and top[place] <= y <= bottom[place]):
            raise ValueError("leaves a box where its object is not")


def _run(
    pipeline: A.Compose, item: ImageAndTarget, size: tuple[int, int] | None, seed: int, global_seed: int
) -> ImageAndTarget:
    """Run a pipeline while the global generators have a known state, which must stay; then restore them."""
    saved = _global_states()
    try:
        random.seed(global_seed)
        np.random.seed(global_seed)
        torch.random.default_generator.manual_seed(global_seed)
        before = _global_states()
        pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        made = apply_pipeline(pipeline, item[0].copy(), item[1], size)
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
