from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.utils.data.conftest import MakeVoc
from utils.data.layout import load_samples
from utils.data.scan import Record, scan
from utils.data.split import difference_hashes, group_near_duplicates, hold_out
from utils.data.voc import VocObject
from utils.errors import UserError


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
    return scan(load_samples(folder, "train")).records


@pytest.mark.parametrize(
    ("hashes", "groups"),
    [
        ([], []),
        ([0], [[0]]),
        ([0, 0b1111, 0b11111 << 40], [[0, 1], [2]]),
        ([0, 0b11111, 0b111], [[0, 1, 2]]),  # the third joins the first two
        ([2**64 - 1, 0, 2**64 - 1], [[0, 2], [1]]),
    ],
)
def test_groups(hashes: list[int], groups: list[list[int]]) -> None:
    assert group_near_duplicates(np.array(hashes, dtype=np.uint64)) == groups


def test_hash_of_a_slope_and_of_a_copy(voc: Path) -> None:
    records = records_of(voc)
    hashes = difference_hashes(records)
    assert hashes.dtype == np.uint64
    assert hashes[0] == hashes[4] == hashes[5]
    assert len(set(hashes.tolist())) == 38


def test_too_few_images(make_voc: MakeVoc) -> None:
    folder = make_voc({"train": {"a": [VocObject("cat", (2, 3, 10, 12))]}})
    with pytest.raises(UserError, match="--val none"):
        hold_out(records_of(folder))


@pytest.mark.parametrize("seed", range(5))
def test_classes_are_balanced_and_copies_stay_together(voc: Path, seed: int) -> None:
    records = records_of(voc)
    kept, held = hold_out(records, 0.25, seed)
    ids = [record.image_id for record in held]
    assert sorted(ids + [record.image_id for record in kept]) == [record.image_id for record in records]
    assert ids == sorted(ids)
    counts = Counter(name for record in held for name in record.names)
    assert counts["rare"] == 1
    assert abs(counts["frequent"] - 7.5) <= 1
    assert len(held) == 10
    assert len({"00", "04", "05"} & set(ids)) in (0, 3)
    assert hold_out(records, 0.25, seed) == (kept, held)


def test_the_seed_decides(voc: Path) -> None:
    records = records_of(voc)
    draws = {tuple(record.image_id for record in hold_out(records, 0.25, seed)[1]) for seed in range(4)}
    assert len(draws) == 4


def test_the_only_image_of_a_class_is_trained_on(make_voc: MakeVoc) -> None:
    images = {f"{n:02}": [VocObject("once" if n == 0 else "often", (2, 3, 10, 12))] for n in range(20)}
    records = records_of(make_voc({"train": images}))
    for seed in range(5):
        _, held = hold_out(records, 0.1, seed)
        assert {name for record in held for name in record.names} == {"often"}
