from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from nets.config import OFFICIAL_ANCHORS, USUAL_ANCHORS
from utils.cli.errors import UserError
from utils.data.anchor_boxes import (
    draw_centers,
    fit_anchors,
    lloyd,
    read_anchors,
    shape_ious,
    split_masks,
    used_anchors,
    write_anchors,
)

SIX = "10,20, 30,40, 50,60, 70,80, 90,100, 110,120"
HALVED = ((3, 4, 5), (0, 1, 2))


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "anchors.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no anchors in it"),
        ("# only a comment\n", "no anchors in it"),
        ("masks = 3,4,5 0,1,2\n", "no anchors in it"),
        ("10,20, 30", "an odd number of values, 3"),
        (SIX.replace("50", "fifty"), "'fifty' is not a number"),
        *(
            (SIX.replace("50", bad), f"{bad} is not a valid side")
            for bad in ("0", "-5", "nan", "inf", "1e999", "0.02")
        ),
        ("10,20, 30,40, 50,60, 70,80", "4 anchors, 6 are needed"),
        (SIX + ", 130,140, 150,160", "8 anchors, 6 are needed for two heads and 9 for three"),
        (SIX + "\nmasks = 3,4,6 0,1,2", "name an anchor that is not among 6"),
        (SIX + "\nmasks = 3,4,5 0,1", "equally many anchor indices per head"),
        (SIX + "\nmasks = 4,5 2,3 0", "equally many anchor indices per head"),
        (SIX + "\nmasks = 3,4 0,1,2,5", "equally many anchor indices per head"),
        (SIX + "\nmasks = 3,4,-5 0,1,2", "equally many anchor indices per head"),
        (SIX + "\nmasks = 3,4,4 0,1,2", "an anchor twice"),
        (SIX + "\nsizes = 3,4,5", "'sizes' is neither anchors nor masks"),
        (b"\xff\xfe\x00\x81", "not UTF-8 text"),
        (b"10,20\0", "not UTF-8 text"),
        (b"1," * 60_000, "more than 0.1 MB"),
    ],
)
def test_a_file_that_makes_no_sense_is_named(tmp_path: Path, content: str | bytes, reason: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UserError, match=reason) as caught:
        read_anchors(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) - len(str(path)) < 200


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no\.txt: no such anchor file"):
        read_anchors(tmp_path / "no.txt")
    with pytest.raises(UserError, match="not a regular file"):
        read_anchors(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        SIX,
        SIX.replace(" ", "") + ",\n",
        "\ufeff" + SIX.replace(", ", "\r\n") + "\r\n",
        "anchors = " + SIX + "  # as in a .cfg",
        "# six\n10 20\n30 40\n\n50 60\n70 80\n90 100\n110 120\n",
        "10,20,\n30,40,\n50,60,\n70,80,\n90,100,\n110,120,\nmasks = (3,4,5), (0,1,2)\n",
    ],
)
def test_ways_to_write_six_anchors(tmp_path: Path, content: str) -> None:
    anchors, masks = read_anchors(written(tmp_path, content))
    assert anchors == ((10, 20), (30, 40), (50, 60), (70, 80), (90, 100), (110, 120))
    assert masks == HALVED


def test_official_anchors_keep_their_masks_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    text = ",  ".join(f"{width},{height}" for width, height in OFFICIAL_ANCHORS)
    assert read_anchors(written(tmp_path, text)) == (OFFICIAL_ANCHORS, ((3, 4, 5), (1, 2, 3)))
    assert read_anchors(written(tmp_path, text + "\nmasks = 3,4,5 0,1,2"))[1] == HALVED


NINE = SIX + ", 130,140, 150,160, 170,180"
THIRDS = ((6, 7, 8), (3, 4, 5), (0, 1, 2))


@pytest.mark.parametrize(
    ("content", "masks"),
    [
        (NINE, THIRDS),
        (NINE + "\nmasks = 6,7,8  3,4,5  0,1,2", THIRDS),
        (NINE + "\nmasks = 6, 7, 8   3, 4, 5   0, 1, 2", THIRDS),
        (NINE + "\nmasks = (6, 7, 8), (3, 4, 5), (0, 1, 2)", THIRDS),
        (NINE + "\nmasks = [[6,7,8],[3,4,5],[0,1,2]]", THIRDS),
        (NINE + "\nmasks = 6,7,8\nmasks = 3,4,5\nmasks = 0,1,2", THIRDS),
        (SIX + "\nmasks = 4,5  2,3  0,1", ((4, 5), (2, 3), (0, 1))),
        (SIX + "\nmasks = 5 3 1", ((5,), (3,), (1,))),
        (NINE + "\nmasks = 6,7,8  3,4,5", ((6, 7, 8), (3, 4, 5))),
        *((SIX + f"\nmasks = {text}", HALVED) for text in ("3 4 5 0 1 2", "3,4,5,0,1,2", "[3 4 5] [0 1 2]")),
    ],
)
def test_masks_name_two_or_three_heads(tmp_path: Path, content: str, masks: tuple) -> None:
    assert read_anchors(written(tmp_path, content))[1] == masks


def test_darknets_own_nine_anchors_are_read(tmp_path: Path) -> None:
    text = "12, 16, 19, 36, 40, 28, 36, 75, 76, 55, 72, 146, 142, 110, 192, 243, 459, 401"
    assert read_anchors(written(tmp_path, "anchors = " + text)) == USUAL_ANCHORS[3]


def test_masks_may_be_of_any_length(tmp_path: Path) -> None:
    anchors, masks = read_anchors(written(tmp_path, "1,1, 2.5,2, 3,3, 4,4\nmasks = 2,3 0,1"))
    assert (anchors, masks) == (((1, 1), (2.5, 2), (3, 3), (4, 4)), ((2, 3), (0, 1)))


@pytest.mark.parametrize(("number", "heads"), [(2, 2), (6, 2), (8, 2), (3, 3), (6, 3), (9, 3)])
def test_what_is_written_is_read(tmp_path: Path, number: int, heads: int) -> None:
    anchors = tuple((10.5 + index, 20.0 + 3 * index) for index in range(number))
    masks = split_masks(number, heads)
    assert [index for mask in masks[::-1] for index in mask] == list(range(number))
    write_anchors(tmp_path / "a.txt", anchors, masks, "two\nlines, and = 5")
    assert read_anchors(tmp_path / "a.txt") == (anchors, masks)


def test_only_the_anchors_of_a_head_count() -> None:
    assert used_anchors(OFFICIAL_ANCHORS, ((3, 4, 5), (1, 2, 3))) == OFFICIAL_ANCHORS[1:]
    assert used_anchors(OFFICIAL_ANCHORS, HALVED) == OFFICIAL_ANCHORS


# Fitting.


def iou_of(first: Sequence[float], second: Sequence[float]) -> float:
    shared = min(first[0], second[0]) * min(first[1], second[1])
    return shared / (first[0] * first[1] + second[0] * second[1] - shared)


def some_sizes(seed: int, count: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(3.5, 0.8, (count, 2))


def slow_lloyd(sizes: np.ndarray, centers: np.ndarray) -> np.ndarray:
    while True:
        owners = [max(range(len(centers)), key=lambda place: iou_of(size, centers[place])) for size in sizes]
        moved = []
        for place, center in enumerate(centers):
            members = [size for size, owner in zip(sizes, owners, strict=True) if owner == place]
            moved.append(np.mean(members, axis=0) if members else center)
        way = max(
            abs(new - old)
            for pair in zip(moved, centers, strict=True)
            for new, old in zip(*pair, strict=True)
        )
        centers = np.array(moved)
        if way < 0.01:
            return centers


def test_iou_of_shapes() -> None:
    assert shape_ious(np.zeros((0, 2)), OFFICIAL_ANCHORS).shape == (0, 6)
    sizes = some_sizes(0, 20)
    expected = [[iou_of(size, anchor) for anchor in OFFICIAL_ANCHORS] for size in sizes]
    np.testing.assert_allclose(shape_ious(sizes, OFFICIAL_ANCHORS), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_k_means_is_lloyds(seed: int) -> None:
    sizes = some_sizes(seed)
    start = draw_centers(sizes, 6, np.random.default_rng(seed))
    np.testing.assert_allclose(lloyd(sizes, start), slow_lloyd(sizes, start), rtol=1e-9)


def test_a_center_without_boxes_stays() -> None:
    centers = lloyd(np.array([[10.0, 10], [12, 12]]), np.array([[11.0, 11], [500, 500]]))
    np.testing.assert_allclose(centers, [[11, 11], [500, 500]])


def test_the_start_prefers_what_is_far() -> None:
    """Of 1000 boxes a single one is unlike the rest; by its distance it is nearly always drawn."""
    sizes = np.array([[10.0, 10.0 + 1e-5 * step] for step in range(999)] + [[400.0, 300.0]])
    draws = [draw_centers(sizes, 2, np.random.default_rng(seed)) for seed in range(20)]
    assert sum((draw == [400, 300]).all(axis=1).any() for draw in draws) >= 19


@pytest.mark.parametrize("sizes", [np.zeros((0, 2)), np.full((9, 2), 7.0), some_sizes(0, 5)])
def test_too_few_different_boxes(sizes: np.ndarray) -> None:
    with pytest.raises(UserError, match="too few for 6 anchors"):
        fit_anchors(sizes, 6)


def test_clear_clusters_are_found_sorted_by_area_and_the_seed_repeats_them() -> None:
    centers = np.array([[12.0, 15], [30, 61], [64, 31], [90, 120], [200, 100], [300, 310]])
    noise = np.random.default_rng(0).uniform(-1, 1, (50, 6, 2))
    sizes = (centers + noise).reshape(-1, 2)
    fitted = fit_anchors(sizes, 6, seed=3)
    assert fitted == fit_anchors(sizes, 6, seed=3)
    expected = sorted(map(tuple, (centers + noise.mean(axis=0)).round(1)), key=lambda size: size[0] * size[1])
    np.testing.assert_allclose(fitted, expected, atol=0.01)


def test_the_best_of_several_starts_is_taken() -> None:
    sizes = some_sizes(1)
    fitted = shape_ious(sizes, fit_anchors(sizes, 6)).max(axis=1).mean()
    rng = np.random.default_rng(0)
    single = [
        shape_ious(sizes, lloyd(sizes, draw_centers(sizes, 6, rng))).max(axis=1).mean() for _ in range(10)
    ]
    assert max(single) - min(single) > 0.003
    assert fitted == pytest.approx(max(single), abs=1e-3)  # rounded to tenths of a pixel


def test_tiny_boxes_give_anchors_that_can_be_read_back(tmp_path: Path) -> None:
    anchors = fit_anchors(np.array([[0.2, 0.4], [0.5, 3], [4, 5], [9, 9]]), 2)
    write_anchors(tmp_path / "a.txt", anchors, split_masks(2, 2), "tiny")
    assert read_anchors(tmp_path / "a.txt")[0] == anchors
