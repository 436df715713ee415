from __future__ import annotations

import numpy as np
import pytest
import torch

from nets.structures import Target
from utils.data.mosaic import (
    ImageAndTarget,
    PasteRegion,
    downscale,
    empty_canvas,
    join_targets,
    mixup,
    mosaic,
    paste,
    transform_boxes,
)
from utils.vision.letterbox import resize


def picture(
    value: int, width: int = 40, height: int = 30, boxes: list[list[float]] | None = None
) -> ImageAndTarget:
    """Make a picture of one gray value whose objects carry that value as label."""
    boxes = [[0, 0, width, height]] if boxes is None else boxes
    count = len(boxes)
    target = Target(
        torch.tensor(boxes, dtype=torch.float32).reshape(count, 4),
        torch.full((count,), value),
        torch.zeros(count, dtype=torch.bool),
        str(value),
    )
    return np.full((height, width, 3), value, dtype=np.uint8), target


def test_mosaic_of_pictures_without_objects() -> None:
    canvas, target = mosaic(
        [picture(value, boxes=[]) for value in (1, 2, 3, 4)], (64, 96), np.random.default_rng(0)
    )
    assert canvas.shape == (64, 96, 3)
    assert len(target) == 0
    assert set(np.unique(canvas)) == {1, 2, 3, 4, 128}


@pytest.mark.parametrize("seed", range(20))
def test_boxes_lie_exactly_on_their_pictures(seed: int) -> None:
    sizes = [(40, 30), (300, 200), (10, 80), (64, 64)]
    items = [picture(value, *size) for value, size in enumerate(sizes, start=1)]
    canvas, target = mosaic(items, (64, 96), np.random.default_rng(seed))
    assert target.image_id == "1"
    seen = dict(zip(target.labels.tolist(), target.boxes.tolist(), strict=True))
    for value in range(1, 5):
        rows, columns = np.nonzero(canvas[..., 0] == value)
        if value in seen:
            assert seen[value] == pytest.approx(
                [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            )


def test_each_quarter_shows_its_picture_at_the_center() -> None:
    canvas, _ = mosaic([picture(value) for value in (1, 2, 3, 4)], (64, 64), np.random.default_rng(3))
    ys, xs = np.nonzero(canvas[..., 0] == 1)
    center_y, center_x = ys.max() + 1, xs.max() + 1
    around = [canvas[center_y + dy, center_x + dx, 0] for dy in (-1, 0) for dx in (-1, 0)]
    assert around == [1, 2, 3, 4]


def test_hardly_visible_objects_are_dropped() -> None:
    strip = [[0.0, 0.0, 400.0, 1.0]]  # thinner than two pixels once it is scaled
    _, target = mosaic(
        [picture(v, 400, 300, strip) for v in (1, 2, 3, 4)], (64, 64), np.random.default_rng(0)
    )
    assert len(target) == 0


def test_mosaic_takes_four() -> None:
    with pytest.raises(ValueError, match="takes 4 images, got 3"):
        mosaic([picture(1)] * 3, (64, 64), np.random.default_rng(0))


def test_mixup_blends_and_keeps_every_object() -> None:
    image, target = mixup(picture(0, boxes=[]), picture(200), np.random.default_rng(0))
    share = 1 - np.random.default_rng(0).beta(8.0, 8.0)
    assert image[0, 0, 0] == pytest.approx(200 * share, abs=1)
    assert target.labels.tolist() == [200]
    assert join_targets([Target.empty(), target], "x").image_id == "x"


def target_of(boxes: list[list[float]]) -> Target:
    count = len(boxes)
    return Target(
        torch.tensor(boxes, dtype=torch.float32).reshape(count, 4),
        torch.arange(count),
        torch.arange(count) % 2 == 1,
        "a",
    )


def test_nothing_to_move() -> None:
    moved = transform_boxes(Target.empty("a"), (30, 40), PasteRegion((60, 80), (5, 5), ((0, 64), (0, 96))))
    assert (len(moved), moved.boxes.shape, moved.image_id) == (0, (0, 4), "a")


@pytest.mark.parametrize(
    ("size", "corner", "window"),
    [
        ((40, 50), (10, 20), ((0, 64), (0, 96))),  # all of it shows
        ((90, 120), (-20, -15), ((0, 64), (0, 96))),  # larger than the canvas
        ((40, 50), (-10, 60), ((0, 64), (0, 96))),
        ((40, 50), (-10, 15), ((0, 22), (30, 60))),  # in a window
        ((7, 9), (3, 4), ((0, 64), (0, 96))),  # shrunk more than twice
    ],
)
def test_a_picture_lies_in_its_window_alone(
    size: tuple[int, int], corner: tuple[int, int], window: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    canvas, small = empty_canvas((64, 96)), downscale(image, size)
    paste(canvas, image, PasteRegion(size, corner, window))
    for y in range(64):
        for x in range(96):
            inside = window[0][0] <= y < window[0][1] and window[1][0] <= x < window[1][1]
            row, column = y - corner[0], x - corner[1]
            covered = inside and 0 <= row < size[0] and 0 <= column < size[1]
            expected = small[row, column].tolist() if covered else [128] * 3
            assert canvas[y, x].tolist() == expected


def test_shrinking_is_the_letterbox_s_until_it_would_skip_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    for size in ((90, 120), (60, 80), (31, 42)):
        np.testing.assert_array_equal(downscale(image, size), resize(image, size))
    noise = np.random.default_rng(0).integers(0, 256, (240, 240, 3), dtype=np.uint8)
    for side in (80, 60, 35, 20):  # the mean of n numbers varies by a 1 / sqrt(n) of what they do
        expected = noise.std() * side / 240
        assert downscale(noise, (side, side)).std() < 1.3 * expected
        assert resize(noise, (side, side)).std() > 1.4 * expected


def test_boxes_follow_by_a_loop() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        corners = rng.uniform(0, 1, (30, 2, 2)) * [80, 60]
        boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1).round(1)
        size = tuple(int(v) for v in rng.integers(10, 150, 2))
        top, left = (int(v) for v in rng.integers(-60, 40, 2))
        place = PasteRegion(size, (top, left), ((5, 50), (10, 90)))
        expected = []
        for number, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
            sx, sy = size[1] / 80, size[0] / 60
            whole = x1 * sx + left, y1 * sy + top, x2 * sx + left, y2 * sy + top
            cut = [
                min(max(v, low), high) for v, low, high in zip(whole, (10, 5) * 2, (90, 50) * 2, strict=True)
            ]
            width, height = cut[2] - cut[0], cut[3] - cut[1]
            area = (whole[2] - whole[0]) * (whole[3] - whole[1])
            if width >= 2 and height >= 2 and width * height >= 0.2 * area:
                expected.append((number, cut))
        moved = transform_boxes(target_of(boxes.tolist()), (60, 80), place)
        assert moved.labels.tolist() == [number for number, _ in expected]
        assert moved.difficult.tolist() == [number % 2 == 1 for number, _ in expected]
        np.testing.assert_allclose(
            moved.boxes.numpy(), np.reshape([box for _, box in expected], (-1, 4)), atol=1e-3
        )
