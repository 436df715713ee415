from __future__ import annotations

import numpy as np
import pytest

from nets.structures import Detections, Target
from tests.metrics_reference import CLASSES, as_files, devkit_ap, make_detections, make_target, random_case
from utils.metrics.matching import flatten, match, mean_known
from utils.metrics.voc_ap import VocResult, average_precisions, voc_ap


def measure(found: list[Detections], targets: list[Target], num_classes: int) -> VocResult:
    return voc_ap(match(flatten(found, targets, num_classes)))


@pytest.mark.parametrize("images", [0, 2])
def test_nothing_at_all(images: int) -> None:
    result = measure([Detections.empty()] * images, [Target.empty()] * images, num_classes=2)
    assert result.area == result.eleven_point == (None, None)
    assert result.ground_truths == (0, 0)


BOX, OTHER, FAR = [0.0, 0.0, 10.0, 10.0], [100.0, 0.0, 110.0, 10.0], [50.0, 50.0, 60.0, 60.0]
HALF = [0.0, 0.0, 10.0, 5.0]  # IoU with BOX is exactly 0.5
LESS = [0.0, 0.0, 10.0, 4.9]
TRUTH = (BOX, 0, False)


@pytest.mark.parametrize(
    ("objects", "found", "area", "eleven_point"),
    [
        ([TRUTH], [], 0.0, 0.0),
        ([TRUTH], [(BOX, 0, 0.9)], 1.0, 1.0),
        ([TRUTH], [(HALF, 0, 0.9)], 1.0, 1.0),
        ([TRUTH], [(LESS, 0, 0.9)], 0.0, 0.0),
        ([TRUTH], [(BOX, 1, 0.9)], 0.0, 0.0),  # right place, wrong class
        ([TRUTH], [(BOX, 0, 0.9), (BOX, 0, 0.8)], 1.0, 1.0),  # a duplicate behind the last hit costs nothing
        (
            [TRUTH, (OTHER, 0, False)],
            [(BOX, 0, 0.9), (BOX, 0, 0.8), (OTHER, 0, 0.7)],
            0.5 + 1 / 3,
            (6 + 5 * 2 / 3) / 11,
        ),
        ([TRUTH], [(FAR, 0, 0.9), (BOX, 0, 0.8)], 0.5, 0.5),
        (
            [TRUTH, (OTHER, 0, True)],
            [(OTHER, 0, 0.9), (OTHER, 0, 0.8), (BOX, 0, 0.7)],
            1.0,
            1.0,
        ),  # difficult: ignored
        (
            [TRUTH, (HALF, 0, True)],
            [(HALF, 0, 0.9), (BOX, 0, 0.8)],
            1.0,
            1.0,
        ),  # the most overlapped one decides
    ],
)
def test_hand_worked(objects: list, found: list, area: float, eleven_point: float) -> None:
    result = measure([make_detections(*found)], [make_target(*objects)], num_classes=2)
    assert result.area[0] == pytest.approx(area)
    assert result.eleven_point[0] == pytest.approx(eleven_point)
    assert result.area[1] is None


def test_a_detection_counts_in_its_own_image_only() -> None:
    targets = [make_target(TRUTH), Target.empty()]
    result = measure([Detections.empty(), make_detections((BOX, 0, 0.9))], targets, num_classes=1)
    assert result.area == (0.0,)


def test_class_with_only_difficult_objects_is_left_out_of_the_mean() -> None:
    target = make_target(TRUTH, (OTHER, 1, True))
    result = measure([make_detections((BOX, 0, 0.9), (OTHER, 1, 0.9))], [target], num_classes=2)
    assert result.ground_truths == (1, 0)
    assert result.area == (1.0, None)
    assert mean_known(result.eleven_point) == 1.0


def test_eleven_points_are_compared_as_whole_numbers() -> None:
    """Recall 3/10 reaches the point 0.3, although 3 / 10 < 0.1 * 3 in floating point."""
    assert average_precisions(np.array([True] * 3), count=10) == pytest.approx((0.3, 4 / 11))


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_equals_the_devkit_line_by_line(first: int) -> None:
    for seed in range(first, first + 50):
        boxes = random_case(seed)
        result = voc_ap(match(boxes))
        for label in range(CLASSES):
            expected = devkit_ap(*as_files(boxes), label + 1)
            ours = result.area[label], result.eleven_point[label]
            assert ours == (pytest.approx(expected, abs=1e-9) if expected else (None, None)), seed
