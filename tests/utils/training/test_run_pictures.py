from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nets.structures import Detections, Target
from tests.utils.data.conftest import MakeVoc, make_voc
from utils.data.dataset import VocDataset
from utils.data.dataset_report import scan_samples
from utils.data.samples import load_samples
from utils.data.voc_xml import VocObject
from utils.training import run_pictures as pictures
from utils.training.run_pictures import save_train_batch, save_val_batch
from utils.vision.colors import class_colors

__all__ = ["make_voc"]

NAMES = ("cat", "dog")
CAT = VocObject("cat", (4, 6, 24, 26))
STRIP, GAP = 24, 12


class FakePredictor:
    """Finds a dog in every picture."""

    class_names = NAMES

    def __init__(self, *scores: float) -> None:
        self.scores = scores

    def __call__(self, image: np.ndarray) -> Detections:
        assert image.dtype == np.uint8
        count = len(self.scores)
        boxes = torch.tensor([[4.0, 6.0, 24.0, 26.0]]).repeat(count, 1)
        return Detections(boxes, torch.tensor(self.scores), torch.ones(count, dtype=torch.int64))


def load(make: MakeVoc, images: dict[str, list[VocObject]]) -> VocDataset:
    return VocDataset(
        scan_samples(load_samples(make({"train": images}), "train"), training=False).records, NAMES
    )


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "JPEG"
        return np.asarray(image).astype(int)


def is_color(pixel: np.ndarray, label: int) -> bool:
    return bool(np.abs(pixel - class_colors(NAMES)[label]).max() < 60)  # JPEG


def make_target(difficult: bool = False, label: int = 0, count: int = 1) -> Target:
    boxes = torch.tensor([[16.0, 24.0, 48.0, 56.0]]).repeat(count, 1)
    flags = torch.full((count,), difficult)
    return Target(boxes, torch.full((count,), label), flags, "an id")


def test_a_train_batch_without_objects(tmp_path: Path) -> None:
    images = torch.full((1, 3, 64, 64), 50, dtype=torch.uint8)
    save_train_batch(tmp_path / "a.jpg", images, [Target.empty("a")], ())
    page = read(tmp_path / "a.jpg")
    assert page.shape == (STRIP + 416, 416, 3)
    assert np.abs(page[STRIP + 8 :] - 50).max() < 10
    assert page[:STRIP].min() < 80  # the id


def test_boxes_of_a_train_batch_lie_where_they_belong(tmp_path: Path) -> None:
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    targets = [Target.empty(), make_target(label=1)]
    save_train_batch(tmp_path / "a.jpg", images, targets, NAMES)
    page = read(tmp_path / "a.jpg")
    assert page.shape == (STRIP + 416, 2 * 416 + GAP, 3)
    picture = page[STRIP:, 416 + GAP :]
    scale = 416 / 64  # the box is drawn at (104, 156) to (312, 364)
    assert is_color(picture[round(40 * scale), round(16 * scale)], label=1)
    assert is_color(picture[round(56 * scale) - 1, round(32 * scale)], label=1)
    assert picture[round(40 * scale), round(32 * scale)].max() < 30
    assert page[STRIP + 4 :, :416].max() < 30


@pytest.mark.parametrize(
    ("count", "size", "shape"),
    [(3, (64, 64), (440, 3 * 416 + 2 * GAP)), (20, (32, 64), (4 * 232 + 3 * GAP, 4 * 416 + 3 * GAP))],
)
def test_a_train_batch_is_a_grid_of_at_most_16(
    count: int, size: tuple[int, int], shape: tuple[int, int], tmp_path: Path
) -> None:
    images = torch.zeros(count, 3, *size, dtype=torch.uint8)
    save_train_batch(tmp_path / "a.jpg", images, [make_target()] * count, NAMES)
    assert read(tmp_path / "a.jpg").shape[:2] == shape


def test_no_val_picture_of_nothing(tmp_path: Path) -> None:
    save_val_batch(tmp_path / "a.jpg", FakePredictor(), VocDataset([], NAMES))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_truth_stands_beside_prediction(make_voc: MakeVoc, tmp_path: Path) -> None:
    dataset = load(make_voc, {"a": [CAT]})
    save_val_batch(tmp_path / "a.jpg", FakePredictor(0.9, 0.1), dataset)  # type: ignore[arg-type]
    page = read(tmp_path / "a.jpg")
    assert page.shape == (STRIP + 312, 2 * 416 + 4, 3)  # 40 x 30 at 416 x 312
    row, column = STRIP + round(16 * 10.4), round(4 * 10.4)
    assert is_color(page[row, column], label=0)
    assert is_color(page[row, 416 + 4 + column], label=1)


@pytest.mark.parametrize(
    ("scores", "shown", "words"),
    [
        ((), 0, "nothing, not even"),
        ((0.009,), 0, "nothing, not even"),
        ((0.2, 0.1), 2, "nothing with 0.25 or more; the best 2"),
        ((0.2, 0.1, 0.05, 0.04), 3, "the best 3"),
        ((0.2, 0.009), 1, "the best 1"),
        ((0.9, 0.25, 0.24), 2, "2 with a score of 0.25 or more"),
    ],
)
def test_only_what_scores_is_shown_but_something_if_possible(
    scores: tuple[float, ...],
    shown: int,
    words: str,
    make_voc: MakeVoc,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[tuple[int, str]] = []
    draw: Callable[..., np.ndarray] = pictures.draw_cell

    def spy(image: np.ndarray, objects: Detections, names: Any, caption: str, cell: Any) -> np.ndarray:
        drawn.append((len(objects), caption))
        return draw(image, objects, names, caption, cell)

    monkeypatch.setattr(pictures, "draw_cell", spy)
    dataset = load(make_voc, {"a": [CAT]})
    save_val_batch(tmp_path / "a.jpg", FakePredictor(*scores), dataset)  # type: ignore[arg-type]
    assert drawn[0] == (1, "truth  a")
    assert drawn[1][0] == shown
    assert words in drawn[1][1]


def test_pictures_are_spread_over_the_data(
    make_voc: MakeVoc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, loaded = load(make_voc, {f"{i:02}": [] for i in range(15)}), []
    monkeypatch.setattr(
        dataset, "read", lambda index: (loaded.append(index), VocDataset.read(dataset, index))[1]
    )
    save_val_batch(tmp_path / "a.jpg", FakePredictor(), dataset)  # type: ignore[arg-type]
    assert loaded == [0, 2, 4, 6, 8, 10, 12, 14]


def test_an_unreadable_picture_is_passed_over(
    make_voc: MakeVoc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = load(make_voc, {"a": [CAT], "b": [CAT]})
    dataset.records[0].image_path.unlink()
    save_val_batch(tmp_path / "a.jpg", FakePredictor(0.9), dataset)  # type: ignore[arg-type]
    assert "a.jpg" in capsys.readouterr().err
    assert read(tmp_path / "a.jpg").shape == (STRIP + 312, 2 * 416 + 4, 3)
