from __future__ import annotations

import numpy as np
import pytest
import torch

from nets.structures import Target
from utils.data.augment import LEVELS, Augmenter

SIZE = (64, 96)


def one_object(width: int, height: int) -> tuple[np.ndarray, Target]:
    """Make a black picture with one white object, difficult, of class 7, and one that is hardly there."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    x1, y1, x2, y2 = width // 4, height // 4, width // 2, height // 2
    image[y1:y2, x1:x2] = 255
    boxes = torch.tensor([[0, 0, 0.5, 0.5], [x1, y1, x2, y2]], dtype=torch.float32)
    return image, Target(boxes, torch.tensor([3, 7]), torch.tensor([False, True]), "a")


@pytest.mark.parametrize("level", sorted(LEVELS))
def test_picture_without_objects(level: str) -> None:
    augmenter = Augmenter(SIZE, level)
    rng = np.random.default_rng(0)
    image, target = augmenter.place(np.zeros((30, 40, 3), dtype=np.uint8), Target.empty("a"), rng)
    image, target = augmenter.finish(image, target, rng)
    assert image.shape == (*SIZE, 3)
    assert image.dtype == np.uint8
    assert (len(target), target.boxes.shape, target.image_id) == (0, (0, 4), "a")


@pytest.mark.parametrize("size", [(200, 160), (160, 200), (33, 47), (500, 60)])
def test_box_label_and_flag_follow_the_object(size: tuple[int, int]) -> None:
    augmenter = Augmenter(SIZE)
    flips = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        image, target = augmenter.place(*one_object(*size), rng)
        if len(target) == 0:  # moved out of the canvas
            continue
        assert target.labels.tolist() == [7]
        assert target.difficult.tolist() == [True]
        rows, columns = np.nonzero(image[..., 0] > 190)  # the canvas is grey, 128
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(target.boxes[0], expected, atol=1.5)
        _, finished = augmenter.finish(image, target, rng)
        x1, y1, x2, y2 = target.boxes[0].tolist()
        mirrored = [SIZE[1] - x2, y1, SIZE[1] - x1, y2]
        flipped = bool(np.allclose(finished.boxes[0], mirrored, atol=1e-3))
        flips.add(flipped)
        assert flipped or np.allclose(finished.boxes[0], [x1, y1, x2, y2], atol=1e-3)
    assert flips == {False, True}


def test_choices_depend_on_the_generator_alone() -> None:
    first, second = Augmenter(SIZE), Augmenter(SIZE)
    second.finish(*second.place(*one_object(40, 30), np.random.default_rng(9)), np.random.default_rng(9))

    def run(augmenter: Augmenter, seed: int) -> tuple[np.ndarray, Target]:
        rng = np.random.default_rng(seed)
        return augmenter.finish(*augmenter.place(*one_object(40, 30), rng), rng)

    np.testing.assert_array_equal(run(first, 1)[0], run(second, 1)[0])
    assert torch.equal(run(first, 1)[1].boxes, run(second, 1)[1].boxes)
    assert not np.array_equal(run(first, 1)[0], run(second, 2)[0])


def test_flip_and_colour_are_independent() -> None:
    """Both happen with probability about a half or more; one stream for both would tie them together."""
    left = np.zeros((8, 8, 3), dtype=np.uint8)
    left[:, :4] = 100
    augmenter = Augmenter((8, 8))
    outcomes = set()
    for seed in range(120):
        image, _ = augmenter.finish(left, Target.empty(), np.random.default_rng(seed))
        outcomes.add((bool(image[0, 0].sum() < image[0, -1].sum()), bool(image.max() > 100)))
    assert outcomes == {(False, False), (False, True), (True, False), (True, True)}
