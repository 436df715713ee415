from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.utils.data.conftest import MakeVoc, save_picture
from utils.cli.errors import UserError
from utils.data.dataset_report import Record, scan_samples
from utils.data.samples import load_samples
from utils.data.stratify import group_near_duplicates, hold_out, merge_groups, stratified_split
from utils.data.voc_xml import VocObject
from utils.vision.image_reader import hash_image

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def records_of(*shown: str) -> list[Record]:
    """Make a record for each text of class letters: "ab" shows a and b."""
    return [
        Record(
            f"{n:04}", Path(f"{n:04}.jpg"), 40, 30, tuple(names), np.zeros((len(names), 4)), np.zeros(0, bool)
        )
        for n, names in enumerate(shown)
    ]


def alone(records: list[Record]) -> list[list[int]]:
    return [[place] for place in range(len(records))]


def images_of(part: list[Record], name: str) -> int:
    return sum(name in record.names for record in part)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_images(count: int) -> None:
    records = records_of(*"a" * count)
    with pytest.raises(UserError, match="too few for 3 parts"):
        stratified_split(records, alone(records), SHARES)


def test_one_group_of_all_cannot_be_divided() -> None:
    records = records_of(*"aaaaaaaa")
    with pytest.raises(UserError, match="too few"):
        stratified_split(records, [list(range(8))], SHARES)


@pytest.mark.parametrize("seed", range(5))
def test_every_class_has_its_share(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shares = {"a": 0.9, "b": 0.5, "c": 0.2, "d": 0.04}
    records = records_of(
        *("".join(n for n, share in shares.items() if rng.random() < share) for _ in range(500))
    )
    parts = stratified_split(records, alone(records), SHARES, seed)
    assert list(parts) == list(SHARES)
    assert sorted(r.image_id for part in parts.values() for r in part) == [r.image_id for r in records]
    for name, share in SHARES.items():
        assert abs(len(parts[name]) - 500 * share) <= 3
        assert [r.image_id for r in parts[name]] == sorted(r.image_id for r in parts[name])
        for label in shares:
            assert abs(images_of(parts[name], label) - share * images_of(records, label)) <= 3


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_together_and_are_balanced(seed: int) -> None:
    rng = np.random.default_rng(seed)
    owner = rng.integers(0, 60, 400)
    groups = [np.flatnonzero(owner == group).tolist() for group in range(60)]
    groups = [group for group in groups if group]
    records = records_of(*("ab"[group % 2] for group in owner))
    parts = stratified_split(records, groups, SHARES, seed)
    part_of = {record.image_id: name for name, part in parts.items() for record in part}
    for group in groups:
        assert len({part_of[records[place].image_id] for place in group}) == 1
    for name in ("val", "test"):
        for label in "ab":
            assert abs(images_of(parts[name], label) - 0.1 * images_of(records, label)) <= 5


def test_rare_classes_are_everywhere_as_far_as_they_reach() -> None:
    records = records_of(*["a"] * 60, "b", "c", "c", "d", "d", "d")
    for seed in range(5):
        parts = stratified_split(records, alone(records), SHARES, seed)
        counts = {name: Counter(n for record in part for n in record.names) for name, part in parts.items()}
        assert [counts[name]["b"] for name in SHARES] == [1, 0, 0]
        assert [counts[name]["c"] for name in SHARES] == [1, 0, 1]
        assert [counts[name]["d"] for name in SHARES] == [1, 1, 1]


def test_the_seed_decides() -> None:
    records = records_of(*"ab" * 30)
    draws = [stratified_split(records, alone(records), SHARES, seed) for seed in (0, 0, 1, 2)]
    ids = [tuple(record.image_id for record in draw["test"]) for draw in draws]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


@pytest.mark.parametrize(
    ("groupings", "merged"),
    [
        ([], []),
        ([[[0], [1]]], [[0], [1]]),
        ([[[0], [1], [2], [3]], [[3, 1]]], [[0], [1, 3], [2]]),
        ([[[0, 1], [2, 3], [4]], [[1, 2]]], [[0, 1, 2, 3], [4]]),
        ([[[0, 1], [2, 3], [4, 5]], [[5, 0], [3, 4]]], [[0, 1, 2, 3, 4, 5]]),
    ],
)
def test_groups_are_joined_where_they_meet(groupings: list[list[list[int]]], merged: list[list[int]]) -> None:
    assert merge_groups(*groupings) == merged


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
    assert group_near_duplicates(hashes) == groups


def test_many_equal_hashes_are_one_group_quickly() -> None:
    assert group_near_duplicates([0] * 20_000) == [list(range(20_000))]


def test_a_smaller_copy_is_near_and_another_picture_is_not(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.jpg", 400, 300, seed=1)
    save_picture(tmp_path / "b.jpg", 400, 300, seed=2)
    Image.open(tmp_path / "a.jpg").resize((200, 150)).save(tmp_path / "c.jpg", quality=50)
    hashes = [hash_image(tmp_path / name)[1] for name in ("a.jpg", "b.jpg", "c.jpg")]
    assert group_near_duplicates(hashes) == [[0, 2], [1]]


@pytest.fixture
def voc(make_voc: MakeVoc) -> Path:
    """Write 40 images: a rare class in 4, a frequent one in 30, none in 6; 04 and 05 look like 00."""
    names = ["rare"] * 4 + ["frequent"] * 30
    objects = [[VocObject(name, (2, 3, 10, 12))] for name in names] + [[]] * 6
    folder = make_voc({"train": {f"{n:02}": objects[n] for n in range(40)}})
    for copy in ("04", "05"):
        shutil.copy(folder / "JPEGImages" / "00.jpg", folder / "JPEGImages" / f"{copy}.jpg")
    return folder


def scan(folder: Path) -> list[Record]:
    return scan_samples(load_samples(folder, "train"), hashes=True).records


def draw(records: list[Record], seed: int = 0) -> tuple[list[Record], list[Record]]:
    groups = group_near_duplicates([record.image_hash or 0 for record in records])
    return hold_out(records, groups, seed)


def test_too_few_images_to_hold_out(make_voc: MakeVoc) -> None:
    folder = make_voc({"train": {"a": [VocObject("cat", (2, 3, 10, 12))]}})
    with pytest.raises(UserError, match="--val none"):
        draw(scan(folder))


@pytest.mark.parametrize("seed", range(5))
def test_classes_are_balanced_and_copies_stay_together(voc: Path, seed: int) -> None:
    records = scan(voc)
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


def test_pictures_that_all_look_alike_are_divided_all_the_same(
    make_voc: MakeVoc, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fixed camera: every picture is a near-duplicate of the others."""
    folder = make_voc({"train": {f"{n:02}": [VocObject("cat", (2, 3, 10, 12))] for n in range(20)}})
    for n in range(1, 20):
        shutil.copy(folder / "JPEGImages" / "00.jpg", folder / "JPEGImages" / f"{n:02}.jpg")
    kept, held = draw(scan(folder))
    assert (len(kept), len(held)) == (18, 2)
    assert "near-duplicates are not kept together" in capsys.readouterr().err
