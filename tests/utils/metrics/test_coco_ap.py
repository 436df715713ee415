from __future__ import annotations

import copy

import pytest
import torch

from nets.structures import Detections, Target
from utils.metrics.coco_ap import CocoResult, build_detections, build_ground_truth, coco_ap

NAMES = ("cat", "dog")
BOX, OTHER = [0.0, 0.0, 40.0, 40.0], [100.0, 0.0, 140.0, 40.0]


def make_target(boxes: list[list[float]], labels: list[int], difficult: list[bool] | None = None) -> Target:
    hard = torch.tensor(difficult or [False] * len(labels), dtype=torch.bool)
    return Target(torch.tensor(boxes).reshape(-1, 4), torch.tensor(labels, dtype=torch.int64), hard)


def make_found(boxes: list[list[float]], labels: list[int], scores: list[float]) -> Detections:
    return Detections(
        torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), torch.tensor(labels, dtype=torch.int64)
    )


def measure(targets: list[Target], found: list[Detections]) -> CocoResult:
    names = [f"{index}.jpg" for index in range(len(targets))]
    return coco_ap(
        build_ground_truth(targets, NAMES, names, [(200, 300)] * len(targets)), build_detections(found)
    )


def test_no_detections_is_zero_not_an_error() -> None:
    result = measure([make_target([BOX], [0])], [Detections.empty()])
    assert (result.map50, result.map50_95, result.ar100) == (0.0, 0.0, 0.0)
    assert result.ap50 == (0.0, None)


@pytest.mark.parametrize("found", [Detections.empty(), make_found([BOX], [0], [0.9])])
def test_no_ground_truth_is_none(found: Detections) -> None:
    result = measure([Target.empty()], [found])
    assert result.map50 is None
    assert result.map_small is None
    assert result.ap50_95 == (None, None)


def test_perfect_detections() -> None:
    result = measure([make_target([BOX, OTHER], [0, 1])], [make_found([BOX, OTHER], [0, 1], [0.9, 0.8])])
    assert result.map50 == pytest.approx(1.0)
    assert result.map50_95 == pytest.approx(1.0)
    assert result.ap50 == pytest.approx((1.0, 1.0))
    assert result.ar100 == pytest.approx(1.0)
    assert result.map_medium == pytest.approx(1.0)
    assert result.map_small is None
    assert result.map_large is None


def test_the_thresholds_tell_apart_how_well_a_box_fits() -> None:
    shifted = [0.0, 0.0, 40.0, 32.0]  # IoU 0.8: right at 0.5, 0.55 ... 0.8, that is 7 of 10 thresholds
    result = measure([make_target([BOX], [0])], [make_found([shifted], [0], [0.9])])
    assert result.map50 == pytest.approx(1.0)
    assert result.map75 == pytest.approx(1.0)
    assert result.map50_95 == pytest.approx(0.7)


@pytest.mark.parametrize(("difficult", "expected"), [(False, 0.5), (True, 1.0)])
def test_a_detection_on_a_difficult_object_does_not_count(difficult: bool, expected: float) -> None:
    """The stock evaluation forgets `ignore`: the missed OTHER would cost half the recall."""
    target = make_target([BOX, OTHER], [0, 0], [False, difficult])
    assert measure([target], [make_found([BOX], [0], [0.9])]).map50 == pytest.approx(expected, abs=0.01)
    assert measure([target], [make_found([OTHER, BOX], [0, 0], [0.9, 0.8])]).map50 == pytest.approx(1.0)


def test_the_dictionaries_are_cocos_and_stay_unchanged() -> None:
    target = make_target([[10.0, 20.0, 40.0, 60.0]], [1], [True])
    truth = build_ground_truth([Target.empty(), target], NAMES, ["a.jpg", "b.jpg"], [(200, 300), (100, 50)])
    found = build_detections([Detections.empty(), make_found([[10.0, 20.0, 40.5, 60.0]], [1], [0.75])])
    assert truth["images"][1] == {"id": 2, "file_name": "b.jpg", "width": 50, "height": 100}
    assert truth["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    box = {"id": 1, "image_id": 2, "category_id": 2, "bbox": [10.0, 20.0, 30.0, 40.0]}
    assert truth["annotations"] == [box | {"area": 1200.0, "iscrowd": 0, "ignore": 1}]
    assert found == [{"image_id": 2, "category_id": 2, "bbox": [10.0, 20.0, 30.5, 40.0], "score": 0.75}]
    before = copy.deepcopy((truth, found))
    coco_ap(truth, found)
    assert (truth, found) == before


def test_pycocotools_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    measure([make_target([BOX], [0])], [make_found([BOX], [0], [0.9])])
    assert capsys.readouterr() == ("", "")
