from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from utils.data.canvas import choose_canvas
from utils.data.dataset import VocDataset
from utils.data.dataset_report import Record
from utils.vision.letterbox import letterbox


def dataset_of(*sizes: tuple[int, int]) -> VocDataset:
    """Give an image of each (height, width), with one object of a quarter of each side."""
    records = [
        Record(
            str(number),
            Path(f"{number}.jpg"),
            width,
            height,
            ("thing",),
            np.array([[0, 0, width / 4, height / 4]], dtype=np.float32),
            np.zeros(1, dtype=np.bool_),
        )
        for number, (height, width) in enumerate(sizes)
    ]
    return VocDataset(records, ("thing",))


def gray_by_letterbox(sizes: list[tuple[int, int]], size: tuple[int, int]) -> float:
    whites = [letterbox(np.full((*shape, 3), 255, np.uint8), size)[0] for shape in sizes]
    return float(np.mean([(white != 255).mean() for white in whites]))


@pytest.mark.parametrize(
    ("sizes", "current", "best"),
    [
        ([(480, 640)] * 3, (416, 416), (352, 480)),
        ([(640, 480)] * 3, (416, 416), (480, 352)),
        ([(400, 400)] * 3, (416, 416), (416, 416)),
        ([(480, 640), (640, 480)], (416, 416), None),
        ([(100, 800), (101, 777), (300, 301)], (256, 256), None),
        ([(480, 640)], (64, 64), (64, 64)),  # 64 x 96 costs half as much again
    ],
)
def test_the_size_with_the_least_gray_at_the_same_cost(
    sizes: list[tuple[int, int]], current: tuple[int, int], best: tuple[int, int] | None
) -> None:
    choice = choose_canvas(dataset_of(*sizes), current)
    pixels, sides = current[0] * current[1], range(32, 2048, 32)
    near = [(h, w) for h in sides for w in sides if 0.94 * pixels <= h * w <= 1.06 * pixels]
    least = min(gray_by_letterbox(sizes, size) for size in near)
    assert gray_by_letterbox(sizes, choice.best) == pytest.approx(least, abs=0.003)
    assert choice.gray[0] == pytest.approx(gray_by_letterbox(sizes, current), abs=0.003)
    assert choice.gray[1] == pytest.approx(gray_by_letterbox(sizes, choice.best), abs=0.003)
    if best is not None:
        assert choice.best == best


def test_a_size_that_train_refuses_is_never_named() -> None:
    best = choose_canvas(dataset_of((20, 3000)), (1280, 1280)).best
    assert max(best) <= 4096


def test_the_gain_in_words() -> None:
    """640 x 480 pixels fill 416 x 312 and 469 x 352; a quarter of the sides is 90 and 102."""
    choice = choose_canvas(dataset_of((480, 640)), (416, 416))
    assert choice.is_worthwhile
    assert choice.describe() == (
        "--imgsz 416 416: 25% stays gray; --imgsz 352 480 costs about the same: 2%, "
        "median side of the objects 90 -> 102 pixels"
    )
    square = choose_canvas(dataset_of((400, 400)), (416, 416))
    assert not square.is_worthwhile
    assert (
        square.describe() == "--imgsz 416 416: 0% stays gray, the least of all sizes of about the same cost"
    )


def test_images_without_objects() -> None:
    record = dataset_of((480, 640)).records[0]
    empty = Record("a", record.image_path, 640, 480, (), np.zeros((0, 4), np.float32), np.zeros(0, np.bool_))
    assert "objects 0 -> 0 pixels" in choose_canvas(VocDataset([empty], ("thing",)), (416, 416)).describe()
