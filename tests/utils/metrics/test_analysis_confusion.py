from __future__ import annotations

import numpy as np
import pytest

from nets.structures import Detections, Target
from tests.metrics_reference import CLASSES, make_detections, make_target, random_case
from utils.metrics.analysis import count_confusion, count_faults, rates_at
from utils.metrics.matching import Matching, flatten, match

BOX, OTHER, FAR = [0.0, 0.0, 40.0, 40.0], [100.0, 0.0, 140.0, 40.0], [0.0, 100.0, 9.0, 109.0]
SHORT = [0.0, 0.0, 40.0, 30.0]  # IoU 0.75 with BOX


def matched(*images: tuple[list, list], classes: int = 2) -> Matching:
    found = [make_detections(*found) for _, found in images]
    return match(flatten(found, [make_target(*objects) for objects, _ in images], classes))


@pytest.mark.parametrize("images", [0, 2])
def test_nothing_at_all(images: int) -> None:
    matching = match(flatten([Detections.empty()] * images, [Target.empty()] * images, 2))
    assert count_confusion(matching, 0.25).tolist() == [[0] * 3] * 3
    assert [faults.tolist() for faults in count_faults(matching, 0.25)] == [[0] * images] * 2


@pytest.mark.parametrize(
    ("objects", "found", "expected"),
    [
        ([(BOX, 0)], [], {(0, 2): 1}),
        ([], [(BOX, 1, 0.9)], {(2, 1): 1}),
        ([(BOX, 0)], [(BOX, 0, 0.9)], {(0, 0): 1}),
        ([(BOX, 0)], [(BOX, 0, 0.2)], {(0, 2): 1}),  # below the score
        ([(BOX, 0)], [(BOX, 0, 0.25)], {(0, 0): 1}),
        ([(BOX, 0)], [(BOX, 1, 0.9)], {(0, 1): 1}),
        ([(BOX, 0)], [(BOX, 0, 0.9), (BOX, 0, 0.8)], {(0, 0): 1, (2, 0): 1}),  # a duplicate is on nothing
        # The same class comes first, whatever the score and the IoU.
        ([(BOX, 0)], [(BOX, 1, 0.9), (SHORT, 0, 0.3)], {(0, 0): 1, (2, 1): 1}),
        # The better detection takes what is left, and of that the object that it overlaps most.
        ([(BOX, 0), (SHORT, 1)], [(SHORT, 2, 0.9), (BOX, 2, 0.8)], {(1, 2): 1, (0, 2): 1}),
        ([(BOX, 0)], [(SHORT, 2, 0.9), (BOX, 1, 0.8)], {(0, 2): 1, (3, 1): 1}),
        # Difficult objects are not there, and what took one neither.
        ([(BOX, 0, True)], [(BOX, 0, 0.9)], {}),
        ([(BOX, 0, True)], [(BOX, 1, 0.9)], {(2, 1): 1}),
        ([(BOX, 0, True), (SHORT, 0)], [(BOX, 1, 0.9)], {(0, 1): 1}),
    ],
)  # fmt: skip
def test_hand_worked(objects: list, found: list, expected: dict[tuple[int, int], int]) -> None:
    classes = 1 + max([1, *(row[1] for row in objects), *(row[1] for row in found)])
    expected_matrix = np.zeros((classes + 1, classes + 1), dtype=int)
    for place, count in expected.items():
        expected_matrix[place] = count
    confusion = count_confusion(matched((objects, found), classes=classes), 0.25)
    assert confusion.tolist() == expected_matrix.tolist()


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("conf", [0.0, 0.25, 0.7])
def test_it_agrees_with_precision_and_recall(seed: int, conf: float) -> None:
    matching = match(random_case(seed))
    matrix = count_confusion(matching, conf)
    reaching = sum(map(len, matching.split_at(conf)))
    assert matrix[:CLASSES].sum(axis=1).tolist() == matching.truths.tolist()
    assert matrix.sum() - matrix[:CLASSES].sum() + matrix[:CLASSES, :CLASSES].sum() == reaching
    for label, rates in enumerate(rates_at(matching, conf)):
        if rates.recall is not None:
            assert matrix[label, label] / matching.truths[label] == pytest.approx(rates.recall)
            detections = matrix[:, label].sum()
            assert (matrix[label, label] / detections if detections else None) == pytest.approx(
                rates.precision
            )
    missed, wrong = count_faults(matching, conf)
    assert missed.sum() == matching.truths.sum() - np.trace(matrix)
    assert wrong.sum() == reaching - np.trace(matrix)


def test_missed_and_wrong_are_counted_in_each_image() -> None:
    matching = matched(
        ([(BOX, 0)], [(BOX, 0, 0.9)]),
        ([(BOX, 0)], [(BOX, 1, 0.9)]),  # another class: missed, and wrong
        ([(BOX, 0, True)], [(FAR, 0, 0.2)]),  # difficult, and below the score
        ([(BOX, 0), (OTHER, 0), (FAR, 1)], [(FAR, 1, 0.3)]),
        ([], [(BOX, 0, 0.9), (BOX, 1, 0.9), (FAR, 1, 0.9)]),
    )
    missed, wrong = count_faults(matching, 0.25)
    assert missed.tolist() == [0, 1, 0, 2, 0]
    assert wrong.tolist() == [0, 1, 0, 0, 3]
