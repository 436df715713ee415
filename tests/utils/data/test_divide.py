from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from utils.cli.errors import UserError
from utils.data.sample_report import Record
from utils.data.stratify import merge_groups, stratified_split

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
