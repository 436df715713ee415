from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from nets.structures import Target
from utils.data.augmentation import LEVELS, Augmenter, ColorMatrix, _draw_size, color_matrix, flip

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
    image, target = augmenter.to_canvas(np.zeros((30, 40, 3), dtype=np.uint8), Target.empty("a"), rng)
    image, target = augmenter.flip_and_recolor(image, target, rng)
    assert image.shape == (*SIZE, 3)
    assert image.dtype == np.uint8
    assert (len(target), target.boxes.shape, target.image_id) == (0, (0, 4), "a")


@pytest.mark.parametrize("size", [(200, 160), (160, 200), (33, 47), (500, 60)])
def test_box_label_and_flag_follow_the_object(size: tuple[int, int]) -> None:
    augmenter = Augmenter(SIZE)
    flips = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        image, target = augmenter.to_canvas(*one_object(*size), rng)
        if len(target) == 0:  # moved out of the canvas
            continue
        assert target.labels.tolist() == [7]
        assert target.difficult.tolist() == [True]
        rows, columns = np.nonzero(image[..., 0] > 190)  # the canvas is gray, 128
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(target.boxes[0], expected, atol=1.5)
        _, finished = augmenter.flip_and_recolor(image, target, rng)
        x1, y1, x2, y2 = target.boxes[0].tolist()
        mirrored = [SIZE[1] - x2, y1, SIZE[1] - x1, y2]
        flipped = bool(np.allclose(finished.boxes[0], mirrored, atol=1e-3))
        flips.add(flipped)
        assert flipped or np.allclose(finished.boxes[0], [x1, y1, x2, y2], atol=1e-3)
    assert flips == {False, True}


def test_choices_depend_on_the_generator_alone() -> None:
    first, second = Augmenter(SIZE), Augmenter(SIZE)
    second.flip_and_recolor(
        *second.to_canvas(*one_object(40, 30), np.random.default_rng(9)), np.random.default_rng(9)
    )

    def run(augmenter: Augmenter, seed: int) -> tuple[np.ndarray, Target]:
        rng = np.random.default_rng(seed)
        return augmenter.flip_and_recolor(*augmenter.to_canvas(*one_object(40, 30), rng), rng)

    np.testing.assert_array_equal(run(first, 1)[0], run(second, 1)[0])
    assert torch.equal(run(first, 1)[1].boxes, run(second, 1)[1].boxes)
    assert not np.array_equal(run(first, 1)[0], run(second, 2)[0])


def test_flip_and_color_are_independent() -> None:
    """Both happen with probability about a half or more; one stream for both would tie them together."""
    left = np.zeros((8, 8, 3), dtype=np.uint8)
    left[:, :4] = 100
    augmenter = Augmenter((8, 8))
    outcomes = set()
    for seed in range(120):
        image, _ = augmenter.flip_and_recolor(left, Target.empty(), np.random.default_rng(seed))
        outcomes.add((bool(image[0, 0].sum() < image[0, -1].sum()), bool(image.max() > 100)))
    assert outcomes == {(False, False), (False, True), (True, False), (True, True)}


def test_flip_mirrors_picture_and_boxes() -> None:
    assert flip(np.zeros((4, 6, 3), dtype=np.uint8), Target.empty("a"))[1].boxes.shape == (0, 4)
    image, target = one_object(40, 30)
    mirrored, moved = flip(image, target)
    np.testing.assert_array_equal(mirrored, image[:, ::-1])
    rows, columns = np.nonzero(mirrored[..., 0])
    assert moved.boxes[1].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_reference_draws_the_sizes_of_the_reference() -> None:
    """A picture of 300 x 200: stretched by up to 1.3/0.7 either way, then fitted and scaled by 0.25 to 2."""
    level = LEVELS["reference"]
    assert level is not None
    sizes = [_draw_size((200, 300), (400, 400), level, np.random.default_rng(seed)) for seed in range(400)]
    scales = [max(size) / 400 for size in sizes]
    aspects = [width / height / 1.5 for height, width in sizes]
    assert 0.245 < min(scales) < 0.28
    assert 1.97 < max(scales) <= 2.0
    assert np.mean(scales) == pytest.approx(1.125, abs=0.06)
    assert 0.7 / 1.3 - 0.01 < min(aspects) < 0.62
    assert 1.65 < max(aspects) < 1.3 / 0.7 + 0.02


def test_color_matrix_by_hand() -> None:
    rgb = np.array([200.0, 100.0, 50.0, 1.0])
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    np.testing.assert_allclose(color_matrix(0, 1, 1, 1) @ rgb, rgb[:3], atol=1e-9)
    np.testing.assert_allclose(color_matrix(0, 0, 1, 1) @ rgb, [luma] * 3, atol=0.1)
    np.testing.assert_allclose(color_matrix(0, 0.5, 1, 1) @ rgb, (rgb[:3] + luma) / 2, atol=0.1)
    np.testing.assert_allclose(color_matrix(0, 1, 0.5, 1) @ rgb, rgb[:3] / 2, atol=1e-9)
    np.testing.assert_allclose(color_matrix(0, 1, 1, 0.5) @ rgb, rgb[:3] / 2 + 64, atol=1e-9)
    turned = color_matrix(0.3, 1, 1, 1) @ rgb
    assert turned @ [0.299, 0.587, 0.114] == pytest.approx(luma, abs=0.1)
    np.testing.assert_allclose(color_matrix(-0.3, 1, 1, 1) @ [*turned, 1], rgb[:3], atol=1e-9)


@pytest.mark.parametrize("rgb", [(200, 100, 50), (90, 160, 80), (60, 90, 180)])
def test_the_hue_turns_by_about_the_angle_and_one_way(rgb: tuple[int, int, int]) -> None:
    turns = []
    for angle in (-0.05, 0.05):
        turned = color_matrix(2 * np.pi * angle, 1, 1, 1) @ [*rgb, 1]
        change = colorsys.rgb_to_hsv(*turned / 255)[0] - colorsys.rgb_to_hsv(*np.array(rgb) / 255)[0]
        turns.append((change + 0.5) % 1 - 0.5)
    assert 0.02 < abs(turns[0]) < 0.09
    assert 0.02 < abs(turns[1]) < 0.09
    assert turns[0] * turns[1] < 0


@pytest.mark.parametrize("knob", ["hue", "saturation", "brightness", "contrast"])
def test_every_color_knob_has_an_effect(knob: str) -> None:
    ranges = {"hue": 0.0, "saturation": 0.0, "brightness": 0.0, "contrast": 0.0}
    image = np.full((2, 2, 3), [200, 100, 50], dtype=np.uint8)
    still, moving = ColorMatrix(**ranges), ColorMatrix(**{**ranges, knob: 0.1})
    for transform in (still, moving):
        transform.set_random_state(np.random.default_rng(3), None)
    np.testing.assert_array_equal(still.apply(image, **still.get_params()), image)
    assert not np.array_equal(moving.apply(image, **moving.get_params()), image)
