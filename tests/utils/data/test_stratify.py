from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.utils.data.conftest import MakeVoc
from utils.cli.errors import UserError
from utils.data.dataset_report import scan_samples
from utils.data.sample_report import Record
from utils.data.samples import load_samples
from utils.data.stratify import group_near_duplicates, hold_out
from utils.data.voc import VocObject


@pytest.fixture
def voc(make_voc: MakeVoc) -> Path:
    """Write 40 images: a rare class in 4, a frequent one in 30, none in 6; 04 and 05 look like 00."""
    names = ["rare"] * 4 + ["frequent"] * 30
    objects = [[VocObject(name, (2, 3, 10, 12))] for name in names] + [[]] * 6
    folder = make_voc({"train": {f"{n:02}": objects[n] for n in range(40)}})
    for copy in ("04", "05"):
        shutil.copy(folder / "JPEGImages" / "00.jpg", folder / "JPEGImages" / f"{copy}.jpg")
    return folder


def records_of(folder: Path) -> list[Record]:
    return scan_samples(load_samples(folder, "train"), hashes=True).records


def draw(records: list[Record], seed: int = 0) -> tuple[list[Record], list[Record]]:
    groups = group_near_duplicates([record.image_hash or 0 for record in records])
    return hold_out(records, groups, seed)


def test_too_few_images(make_voc: MakeVoc) -> None:
    folder = make_voc({"train": {"a": [VocObject("cat", (2, 3, 10, 12))]}})
    with pytest.raises(UserError, match="--val none"):
        draw(records_of(folder))


@pytest.mark.parametrize("seed", range(5))
def test_classes_are_balanced_and_copies_stay_together(voc: Path, seed: int) -> None:
    records = records_of(voc)
    kept, held = draw(records, seed)
    ids = [record.image_id for record in held]
    assert sorted(ids + [record.image_id for record in kept]) == [record.image_id for record in records]
    assert ids == sorted(ids)
    counts = Counter(name for record in held for name in record.names)
    assert counts["rare"] == 1
    assert abs(counts["frequent"] - 3) <= 1
    assert len(held) == 4
    assert len({"00", "04", "05"} & set(ids)) in (0, 3)
    assert draw(records, seed) == (kept, held)


def test_the_seed_decides(voc: Path) -> None:
    records = records_of(voc)
    draws = {tuple(record.image_id for record in draw(records, seed)[1]) for seed in range(4)}
    assert len(draws) == 4


def test_the_only_image_of_a_class_is_trained_on(make_voc: MakeVoc) -> None:
    images = {f"{n:02}": [VocObject("once" if n == 0 else "often", (2, 3, 10, 12))] for n in range(20)}
    records = records_of(make_voc({"train": images}))
    for seed in range(5):
        _, held = draw(records, seed)
        assert {name for record in held for name in record.names} == {"often"}


def test_pictures_that_all_look_alike_are_divided_all_the_same(
    make_voc: MakeVoc, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fixed camera: every picture is a near-duplicate of the others."""
    folder = make_voc({"train": {f"{n:02}": [VocObject("cat", (2, 3, 10, 12))] for n in range(20)}})
    for n in range(1, 20):
        shutil.copy(folder / "JPEGImages" / "00.jpg", folder / "JPEGImages" / f"{n:02}.jpg")
    kept, held = draw(records_of(folder))
    assert (len(kept), len(held)) == (18, 2)
    assert "near-duplicates are not kept together" in capsys.readouterr().err
