from __future__ import annotations

import numpy as np
import pytest
import torch

from nets.structures import Target
from utils.data.mosaic import ImageAndTarget, mixup, mosaic
from utils.data.targets import join_targets


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
