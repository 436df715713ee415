from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nets.config import ModelConfig
from utils.cli.errors import UserError
from utils.data.dataset import VocDataset
from utils.data.dataset_report import Record
from utils.data.prepare import TrainingData
from utils.training.fingerprint import check_same_data, fingerprint
from utils.weights.checkpoint import Checkpoint

NAMES = ("cat", "dog")


def dataset(left: float = 0.0, **images: str) -> VocDataset:
    """Make images of these ids with objects of these classes, separated by blanks; boxes begin at `left`."""
    records = []
    for image_id, names in images.items():
        objects = tuple(names.split())
        boxes, flags = np.full((len(objects), 4), left, np.float32), np.zeros(len(objects), bool)
        records.append(Record(image_id, Path("x.jpg"), 40, 30, objects, boxes, flags))
    return VocDataset(records, NAMES)


def made(train: VocDataset, val: VocDataset | None = None) -> TrainingData:
    return TrainingData(train, val, ("train",), ())


BEFORE = made(dataset(a="cat cat", b="dog"), dataset(c="cat"))


def resumed(training: dict) -> Checkpoint:
    return Checkpoint(ModelConfig(2), NAMES, {}, run_config={"data": "old"}, training=training)


def test_an_empty_part_and_none() -> None:
    assert fingerprint(made(dataset())).keys() == {"train"}
    assert fingerprint(made(dataset(), dataset()))["val"]["images"] == 0


def test_the_same_data_in_another_folder_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    check_same_data("new", BEFORE, resumed({"data": fingerprint(BEFORE)}))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("data", "difference"),
    [
        (made(dataset(a="cat cat"), dataset(c="cat")), "train has 1 image, the run 2"),
        (made(dataset(a="cat cat", b="dog")), "val has 0 images, the run 1"),
        (made(dataset(a="cat cat", d="dog"), dataset(c="cat")), "train has 2 images, as the run, but not"),
        (made(dataset(b="dog", a="cat cat"), dataset(c="cat")), "train has 2 images, as the run, but not"),
        (made(dataset(a="cat cat", b=""), dataset(c="cat")), "train has 0 objects of dog, the run 1"),
        (made(dataset(a="cat cat", b="dog"), dataset(c="dog")), "val has 0 objects of cat, the run 1"),
        (made(dataset(a="cat cat", b="dog"), dataset(1.0, c="cat")), "val has as many objects as the run"),
        (made(dataset(a="cat dog", b="cat"), dataset(c="cat")), "train has as many objects as the run"),
    ],
)  # fmt: skip
def test_other_data_is_refused_or_warned_of(
    capsys: pytest.CaptureFixture[str], data: TrainingData, difference: str
) -> None:
    run = resumed({"data": fingerprint(BEFORE)})
    with pytest.raises(UserError, match=f"--data new: not the data of the run: {difference}"):
        check_same_data("new", data, run)
    check_same_data("old", data, run)
    assert f"warning: old: has changed since the run began: {difference}" in capsys.readouterr().err


def test_an_older_checkpoint_knows_no_boxes(capsys: pytest.CaptureFixture[str]) -> None:
    before = fingerprint(BEFORE)
    for part in before.values():
        del part["annotations"]
    moved = made(dataset(1.0, a="cat cat", b="dog"), dataset(1.0, c="cat"))
    check_same_data("old", moved, resumed({"data": before}))
    assert capsys.readouterr().err == ""


def test_an_older_checkpoint_knows_the_classes_only(capsys: pytest.CaptureFixture[str]) -> None:
    check_same_data("old", BEFORE, resumed({}))
    assert capsys.readouterr().err == ""
    check_same_data("new", BEFORE, resumed({}))
    assert capsys.readouterr().err.startswith("--data new: only the classes are compared")
