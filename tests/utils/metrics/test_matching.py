from __future__ import annotations

import numpy as np
import pytest

from nets.structures import Detections, Target
from tests.metrics_reference import (
    as_files,
    devkit_iou,
    make_detections,
    make_target,
    random_case,
    share_inside,
)
from utils.metrics.coco_ap import coco_ap
from utils.metrics.matching import FlatBoxes, Matching, flatten, match

BOX, OTHER, FAR = [0.0, 0.0, 40.0, 40.0], [100.0, 0.0, 140.0, 40.0], [0.0, 50.0, 9.0, 59.0]


def reaching(matching: Matching, conf: float) -> int:
    return sum(map(len, matching.split_at(conf)))


def coco_greedy(boxes: FlatBoxes) -> tuple[list[int], list[int]]:
    """Match as COCOeval.evaluateImg does, with its loops; returns `taken` and what counts."""
    truth, found = as_files(boxes)
    taken, counting = [-1] * len(found), []
    for image, category in {(row["image_id"], row["category_id"]) for row in found}:
        where = {"image_id": image, "category_id": category}
        objects = [i for i, row in enumerate(truth["annotations"]) if where.items() <= row.items()]
        rows = [i for i, row in enumerate(found) if where.items() <= row.items()]
        rows.sort(key=lambda i: -found[i]["score"])
        for row in rows[:100]:
            best, iou = -1, 0.5
            for index in objects:
                one = truth["annotations"][index]
                if index in taken or one["iscrowd"]:
                    continue
                if devkit_iou(found[row]["bbox"], one["bbox"]) >= iou:
                    best, iou = index, devkit_iou(found[row]["bbox"], one["bbox"])
            taken[row] = best
            crowds = [one for i in objects if (one := truth["annotations"][i])["iscrowd"]]
            if best >= 0 or not any(share_inside(found[row]["bbox"], one["bbox"]) >= 0.5 for one in crowds):
                counting.append(row)
    return taken, sorted(counting)


@pytest.mark.parametrize("images", [0, 2])
def test_nothing_at_all(images: int) -> None:
    matching = match(flatten([Detections.empty()] * images, [Target.empty()] * images, 2))
    assert (len(matching.ranked), matching.truths.tolist(), matching.map50()) == (0, [0, 0], None)
    assert reaching(matching, 0.0) == 0


def test_only_difficult_objects() -> None:
    matching = match(flatten([make_detections((BOX, 0, 0.9))], [make_target((BOX, 0, True))], 1))
    assert (matching.taken.tolist(), matching.taker.tolist(), len(matching.ranked)) == ([-1], [-1], 0)
    assert matching.map50() is None


def test_objects_without_detections() -> None:
    matching = match(flatten([Detections.empty()], [make_target((BOX, 0))], 1))
    assert (matching.taker.tolist(), matching.map50()) == ([-1], 0.0)


def test_hand_worked() -> None:
    """A duplicate, another class, two detections inside a difficult object, one beside everything."""
    found = make_detections(
        (BOX, 0, 0.9), (BOX, 0, 0.8), (BOX, 1, 0.7), (OTHER, 0, 0.6), (OTHER, 0, 0.5), (FAR, 0, 0.4)
    )  # fmt: skip
    matching = match(flatten([found], [make_target((BOX, 0), (OTHER, 0, True))], 2))
    assert matching.taken.tolist() == [0, -1, -1, -1, -1, -1]
    assert matching.taker.tolist() == [0, -1]
    assert matching.ranked.tolist() == [0, 1, 2, 5]
    assert matching.right.tolist() == [True, False, False, False]
    assert [reaching(matching, conf) for conf in (0.0, 0.4, 0.5, 0.7, 0.9, 1.0)] == [4, 4, 3, 3, 1, 0]
    assert matching.map50() == pytest.approx(1.0)


def test_the_ranking_is_over_all_images() -> None:
    found = [make_detections((BOX, 0, 0.5), (OTHER, 0, 0.3)), make_detections((BOX, 0, 0.9), (OTHER, 0, 0.3))]
    matching = match(flatten(found, [Target.empty()] * 2, 1))
    assert matching.ranked.tolist() == [2, 0, 1, 3]


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_equals_cocos_loops(first: int) -> None:
    for seed in range(first, first + 20):
        boxes = random_case(seed)
        matching = match(boxes)
        taken, counting = coco_greedy(boxes)
        assert matching.taken.tolist() == taken, seed
        assert sorted(matching.ranked.tolist()) == counting
        assert matching.right.tolist() == [taken[row] >= 0 for row in matching.ranked]
        assert all(taken[row] == index for index, row in enumerate(matching.taker.tolist()) if row >= 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200))
def test_map50_is_that_of_pycocotools(seed: int) -> None:
    """On ties, difficult objects, duplicates, empty images and a class without objects."""
    boxes = random_case(seed)
    assert match(boxes).map50() == pytest.approx(coco_ap(boxes, "pycocotools").map50, abs=1e-9)


@pytest.mark.parametrize("seed", range(0, 6, 2))
def test_equal_scores_in_many_images_are_ranked_as_pycocotools_does(seed: int) -> None:
    boxes = random_case(seed, images=60)
    assert match(boxes).map50() == pytest.approx(coco_ap(boxes, "pycocotools").map50, abs=1e-9)


def test_of_equally_overlapped_objects_the_last_is_taken_as_pycocotools_does() -> None:
    """The first detection lies half-way between the objects, the second on the last one only."""
    target = make_target(([0, 0, 10, 30], 0), ([4, 0, 14, 30], 0))
    found = make_detections(([2, 0, 12, 30], 0, 0.9), ([6, 0, 16, 30], 0, 0.8))
    boxes = flatten([found], [target], 1)
    assert match(boxes).taken.tolist() == [1, -1]
    assert match(boxes).map50() == pytest.approx(coco_ap(boxes, "pycocotools").map50, abs=1e-9)


def test_more_than_a_hundred_detections_of_a_class_in_an_image_are_capped_as_coco_does() -> None:
    rows = [(([200.0, 0.0, 240.0, 40.0]), 0, 0.9 - 0.001 * i) for i in range(100)]
    boxes = flatten(
        [make_detections(*rows, (BOX, 0, 0.1), (OTHER, 1, 0.05))], [make_target((BOX, 0), (OTHER, 1))], 2
    )
    matching = match(boxes)
    assert (matching.taken[100], matching.taken[101], len(matching.ranked)) == (-1, 1, 101)
    assert matching.map50() == pytest.approx(coco_ap(boxes, "pycocotools").map50, abs=1e-9)
    assert matching.map50() == pytest.approx(0.5)


def test_scores_are_compared_as_predict_does() -> None:
    """In float32 0.7 is a little less than in float64, and a score of 0.7 is one of at least 0.7."""
    matching = match(flatten([make_detections((BOX, 0, 0.7))], [Target.empty()], 1))
    assert float(np.float32(0.7)) < 0.7
    assert reaching(matching, 0.7) == 1
