from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from nets.config import OFFICIAL_ANCHORS
from utils.cli.anchor_file import read_anchors, split_masks, write_anchors
from utils.cli.errors import UserError
from utils.data.anchor_boxes import draw_centers, fit_anchors, lloyd, shape_ious, used_anchors


def test_only_the_anchors_of_a_head_count() -> None:
    assert used_anchors(OFFICIAL_ANCHORS, ((3, 4, 5), (1, 2, 3))) == OFFICIAL_ANCHORS[1:]
    assert used_anchors(OFFICIAL_ANCHORS, ((3, 4, 5), (0, 1, 2))) == OFFICIAL_ANCHORS


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
