from __future__ import annotations

import math

import numpy as np
import pytest

from nets.structures import Detections, Target
from tests.metrics_reference import CLASSES, make_detections, make_target, random_case
from utils.metrics.analysis import (
    CONFIDENCES,
    Rates,
    best_rates,
    precision_recall_curves,
    rate_curves,
    rates_at,
)
from utils.metrics.matching import Matching, class_aps, flatten, match

BOX, OTHER, FAR = [0.0, 0.0, 40.0, 40.0], [100.0, 0.0, 140.0, 40.0], [0.0, 100.0, 9.0, 109.0]
UNKNOWN = Rates(None, None, None, None)


def matched(objects: list, found: list, classes: int = 1) -> Matching:
    return match(flatten([make_detections(*found)], [make_target(*objects)], classes))


def slow_rates(matching: Matching, label: int, conf: float) -> tuple[float | None, float, float]:
    """Count over the detections one by one."""
    true = false = 0
    for row, is_right in zip(matching.ranked, matching.right, strict=True):
        if matching.boxes.label[row] == label and matching.boxes.score[row] >= np.float32(conf):
            true, false = true + is_right, false + (not is_right)
    recall = true / matching.truths[label]
    if not true + false:
        return None, recall, 0.0
    precision = true / (true + false)
    return precision, recall, 2 * precision * recall / (precision + recall) if true else 0.0


@pytest.mark.parametrize("images", [0, 2])
def test_nothing_at_all(images: int) -> None:
    matching = match(flatten([Detections.empty()] * images, [Target.empty()] * images, 2))
    assert best_rates(matching) == rates_at(matching, 0.25) == (UNKNOWN, UNKNOWN)
    for curves, shape in (
        (rate_curves(matching), (3, 2, len(CONFIDENCES))),
        (precision_recall_curves(matching), (2, 101)),
    ):
        assert curves.shape == shape
        assert np.isnan(curves).all()


def test_only_difficult_objects() -> None:
    assert best_rates(matched([(BOX, 0, True)], [(BOX, 0, 0.9), (BOX, 0, 0.8)])) == (UNKNOWN,)


def test_no_detection() -> None:
    matching = matched([(BOX, 0)], [])
    assert best_rates(matching) == (Rates(None, 0.0, 0.0, None),)
    assert rates_at(matching, 0.25) == (Rates(None, 0.0, 0.0, 0.25),)
    assert (precision_recall_curves(matching) == 0).all()


def test_nothing_right() -> None:
    assert best_rates(matched([(BOX, 0)], [(FAR, 0, 0.75), (FAR, 0, 0.5)])) == (Rates(0.0, 0.0, 0.0, 0.75),)


def test_hand_worked() -> None:
    """F1 is 2/3 with one of two objects, 1/2 with a wrong one more, 4/5 with both."""
    matching = matched([(BOX, 0), (OTHER, 0)], [(BOX, 0, 0.75), (FAR, 0, 0.5), (OTHER, 0, 0.375)])
    assert best_rates(matching) == (Rates(2 / 3, 1.0, 0.8, 0.375),)
    assert rates_at(matching, 0.5) == (Rates(0.5, 0.5, 0.5, 0.5),)
    assert rates_at(matching, 0.51) == (Rates(1.0, 0.5, 2 / 3, 0.51),)
    precision, recall, _ = rate_curves(matching)
    at = {round(float(conf), 3): index for index, conf in enumerate(CONFIDENCES)}
    assert precision[0, [at[0.0], at[0.4], at[0.6]]] == pytest.approx([2 / 3, 0.5, 1.0])
    assert recall[0, [at[0.0], at[0.4], at[0.6], at[0.8]]] == pytest.approx([1.0, 0.5, 0.5, 0.0])
    assert math.isnan(precision[0, at[0.8]])
    assert precision_recall_curves(matching)[0, [0, 50, 51, 100]] == pytest.approx([1.0, 1.0, 2 / 3, 2 / 3])


def test_equal_scores_are_taken_together() -> None:
    """Before the wrong one of the same score F1 would be 1; no threshold gives that."""
    assert best_rates(matched([(BOX, 0)], [(BOX, 0, 0.5), (FAR, 0, 0.5)])) == (Rates(0.5, 1.0, 2 / 3, 0.5),)


def test_a_score_of_the_threshold_is_taken_though_float32_rounds_it_down() -> None:
    matching = matched([(BOX, 0)], [(BOX, 0, 0.7)])
    assert matching.ranked_scores[0] < 0.7
    assert rates_at(matching, 0.7) == (Rates(1.0, 1.0, 1.0, 0.7),)


@pytest.mark.parametrize("seed", range(20))
def test_equals_counting_one_by_one(seed: int) -> None:
    matching = match(random_case(seed))
    curves, best, reported = rate_curves(matching), best_rates(matching), rates_at(matching, 0.25)
    at_recall = precision_recall_curves(matching)
    aps = class_aps(matching.ranked_labels, matching.right, matching.truths)
    for label in range(CLASSES):
        if not matching.truths[label]:
            assert best[label] == reported[label] == UNKNOWN
            continue
        expected = slow_rates(matching, label, 0.25)
        assert (reported[label].precision, reported[label].recall, reported[label].f1) == pytest.approx(
            expected
        )
        scores = sorted({*matching.ranked_scores[matching.ranked_labels == label].tolist()})
        f1s = [slow_rates(matching, label, score)[2] for score in scores]
        assert best[label].f1 == pytest.approx(max(f1s, default=0.0))
        for index in range(0, len(CONFIDENCES), 50):
            precision, recall, f1 = slow_rates(matching, label, CONFIDENCES[index])
            rates = [math.nan if precision is None else precision, recall, f1]
            assert curves[:, label, index] == pytest.approx(rates, nan_ok=True)
        assert at_recall[label].mean() == pytest.approx(aps[label], abs=1e-12)
