from __future__ import annotations

import numpy as np
import pytest

from nets.structures import Detections, Target
from tests.metrics_reference import CLASSES, make_detections, make_target, random_boxes, random_case
from utils.metrics import interval
from utils.metrics.interval import (
    RESAMPLES,
    draw_images,
    map50_of_draws,
    percentile_interval,
    resampled_map50,
)
from utils.metrics.matching import Matching, flatten, match


def map50_interval(matching: Matching) -> tuple[float, float] | None:
    return percentile_interval(map50_of_draws(matching))


BOX, FAR = [0.0, 0.0, 40.0, 40.0], [0.0, 100.0, 40.0, 140.0]


@pytest.mark.parametrize("images", [0, 2])
@pytest.mark.parametrize("target", [Target.empty(), make_target((BOX, 0, True))])
def test_without_ground_truth_there_is_none(images: int, target: Target) -> None:
    assert map50_interval(match(flatten([Detections.empty()] * images, [target] * images, 2))) is None


def test_without_detections_it_is_zero() -> None:
    boxes = flatten([Detections.empty()] * 3, [make_target((BOX, 0)), Target.empty(), Target.empty()], 2)
    assert map50_interval(match(boxes)) == (0.0, 0.0)


def test_as_many_images_are_drawn_as_there_are() -> None:
    drawn = draw_images(50)
    assert drawn.shape == (RESAMPLES, 50)
    assert (drawn.sum(axis=1) == 50).all()
    assert drawn.mean(axis=0) == pytest.approx(np.ones(50), abs=0.4)
    assert len(np.unique(drawn, axis=0)) == RESAMPLES


@pytest.mark.parametrize("cells", [1, 300, 4_000_000])
def test_equals_measuring_the_images_that_were_drawn(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interval, "_CELLS_AT_A_TIME", cells)
    for seed in range(4):
        found, targets = random_boxes(seed, images=8, is_exact=False)  # no equal scores in an image
        drawn = draw_images(8, resamples=25, seed=seed)
        values = resampled_map50(match(flatten(found, targets, CLASSES)), drawn)
        for value, counts in zip(values, drawn, strict=True):
            places = np.repeat(np.arange(8), counts)
            again = match(flatten([found[i] for i in places], [targets[i] for i in places], CLASSES)).map50()
            assert value == pytest.approx(np.nan if again is None else again, abs=1e-9, nan_ok=True)


def test_each_image_once_is_map50() -> None:
    for seed in range(10):
        matching = match(random_case(seed))
        once = np.ones((1, matching.boxes.num_images), dtype=np.int32)
        assert resampled_map50(matching, once)[0] == pytest.approx(matching.map50(), abs=1e-12)


def test_it_contains_the_estimate_and_is_the_same_again() -> None:
    matching = match(random_case(2, images=120))
    limits = map50_interval(matching)
    assert limits is not None
    assert limits[0] < matching.map50() < limits[1]
    assert 0.0 <= limits[0] < limits[1] <= 1.0
    assert map50_interval(match(random_case(2, images=120))) == limits


def test_it_is_as_wide_as_theory_says() -> None:
    """Of one object an image half are found: recall, and so AP, scatters by sqrt(0.25 / n)."""
    found = [make_detections(*([(BOX, 0, 0.9)] * (i % 2))) for i in range(400)]
    limits = map50_interval(match(flatten(found, [make_target((BOX, 0))] * 400, 1)))
    assert limits is not None
    assert limits[1] - limits[0] == pytest.approx(2 * 1.96 * 0.025, rel=0.2)
