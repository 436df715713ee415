from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from nets.structures import Target
from utils.data.augmentation import LEVELS, Augmenter, ColorMatrix, _draw_size, color_matrix
from utils.data.mosaic import PasteRegion, transform_boxes

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
    image, target = augmenter.augment(np.zeros((30, 40, 3), dtype=np.uint8), Target.empty("a"), rng)
    assert image.shape == (*SIZE, 3)
    assert image.dtype == np.uint8
    assert (len(target), target.boxes.shape, target.image_id) == (0, (0, 4), "a")


@pytest.mark.parametrize("size", [(200, 160), (160, 200), (33, 47), (500, 60)])
def test_box_label_and_flag_follow_the_object(size: tuple[int, int]) -> None:
    placement = Augmenter(SIZE, own=[])
    met = 0
    for seed in range(20):
        image, target = placement.augment(*one_object(*size), np.random.default_rng(seed))
        if len(target) == 0:  # moved out of the canvas
            continue
        met += 1
        assert target.labels.tolist() == [7]
        assert target.difficult.tolist() == [True]
        rows, columns = np.nonzero(image[..., 0] > 190)  # the canvas is gray, 128
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(target.boxes[0], expected, atol=1.5)
    assert met > 10


def test_boxes_are_those_of_the_placement_by_hand() -> None:
    """The pipeline moves, mirrors and drops boxes as `transform_boxes`, whose rule a loop tests."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 1, (40, 2, 2)) * [90, 60]
    boxes = torch.tensor(np.concatenate([corners.min(1), corners.max(1)], axis=1), dtype=torch.float32)
    target = Target(boxes, torch.arange(40), torch.arange(40) % 3 == 0, "a")
    level, flips = LEVELS["reference"], set()
    assert level is not None
    for seed in range(20):
        _, made = Augmenter(SIZE, "reference").augment(
            np.zeros((60, 90, 3), dtype=np.uint8), target, np.random.default_rng(seed)
        )
        draws = np.random.default_rng(seed)
        draws.integers(2**63)  # seeds the second generator of the pipeline
        size = _draw_size((60, 90), SIZE, level, draws)
        corner = [
            int(draws.integers(min(0, s - n), max(0, s - n) + 1)) for s, n in zip(SIZE, size, strict=True)
        ]
        region = PasteRegion(size, (corner[0], corner[1]), ((0, SIZE[0]), (0, SIZE[1])))
        placed = transform_boxes(target, (60, 90), region)
        mirrored = placed.boxes.clone()
        mirrored[:, [0, 2]] = SIZE[1] - placed.boxes[:, [2, 0]]
        assert made.labels.tolist() == placed.labels.tolist()
        assert made.difficult.tolist() == placed.difficult.tolist()
        is_flipped = not np.allclose(made.boxes, placed.boxes, atol=1e-3)
        np.testing.assert_allclose(made.boxes, mirrored if is_flipped else placed.boxes, atol=1e-3)
        flips.add(is_flipped)
    assert flips == {False, True}


def test_choices_depend_on_the_generator_alone() -> None:
    first, second = Augmenter(SIZE), Augmenter(SIZE)
    second.augment(*one_object(40, 30), np.random.default_rng(9))

    def run(augmenter: Augmenter, seed: int) -> tuple[np.ndarray, Target]:
        return augmenter.augment(*one_object(40, 30), np.random.default_rng(seed))

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
        image, _ = augmenter.augment(left, Target.empty(), np.random.default_rng(seed), is_placed=True)
        outcomes.add((bool(image[0, 0].sum() < image[0, -1].sum()), bool(image.max() > 100)))
    assert outcomes == {(False, False), (False, True), (True, False), (True, True)}


def test_a_mosaic_is_not_placed_again() -> None:
    image = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    whole = Target(torch.tensor([[0.0, 0.0, SIZE[1], SIZE[0]]]), torch.tensor([3]), torch.tensor([True]), "a")
    for seed in range(5):
        made, target = Augmenter(SIZE).augment(image, whole, np.random.default_rng(seed), is_placed=True)
        assert target.boxes.tolist() == [[0, 0, SIZE[1], SIZE[0]]]
        both = [np.corrcoef(made.ravel(), view.ravel())[0, 1] for view in (image, image[:, ::-1])]
        assert max(both) > 0.5


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
