from __future__ import annotations

import dataclasses
import runpy
import sys
from pathlib import Path

import pytest

from nets.structures import Detections, Target
from tests.metrics_reference import make_detections, make_target, plain_coco, random_case, save_files
from utils.metrics import coco_ap as coco_ap_module
from utils.metrics.coco_ap import ENGINE, ENGINES, CocoResult, build_ground_truth, coco_ap, list_detections
from utils.metrics.matching import flatten

BOX, OTHER, FAR = [0.0, 0.0, 40.0, 40.0], [100.0, 0.0, 140.0, 40.0], [200.0, 0.0, 240.0, 40.0]
ALL_ENGINES = ("pycocotools", "faster-coco-eval")


@pytest.fixture(params=ALL_ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    if request.param not in ENGINES:
        pytest.skip(f"{request.param} is not installed")
    return request.param


def measure(targets: list[Target], found: list[Detections], engine: str) -> CocoResult:
    return coco_ap(flatten(found, targets, num_classes=2), engine)


def as_list(result: CocoResult) -> list[float | None]:
    *means, ap50, ap50_95 = dataclasses.astuple(result)
    return [*means, *ap50, *ap50_95]


def test_no_detections_is_zero_not_an_error(engine: str) -> None:
    result = measure([make_target((BOX, 0))], [Detections.empty()], engine)
    assert (result.map50, result.map50_95, result.ar100) == (0.0, 0.0, 0.0)
    assert result.ap50 == (0.0, None)


@pytest.mark.parametrize("target", [Target.empty(), make_target((BOX, 0, True))])
@pytest.mark.parametrize("found", [Detections.empty(), make_detections((BOX, 0, 0.9))])
def test_no_ground_truth_is_none(found: Detections, target: Target, engine: str) -> None:
    result = measure([target], [found], engine)
    assert result.map50 is None
    assert result.map_small is None
    assert result.ap50_95 == (None, None)


def test_perfect_detections(engine: str) -> None:
    found = make_detections((BOX, 0, 0.9), (OTHER, 1, 0.8))
    result = measure([make_target((BOX, 0), (OTHER, 1))], [found], engine)
    assert result.map50 == pytest.approx(1.0)
    assert result.map50_95 == pytest.approx(1.0)
    assert result.ap50 == pytest.approx((1.0, 1.0))
    assert result.ar100 == pytest.approx(1.0)
    assert result.map_medium == pytest.approx(1.0)
    assert result.map_small is None
    assert result.map_large is None


def test_the_thresholds_tell_apart_how_well_a_box_fits(engine: str) -> None:
    shifted = [0.0, 0.0, 40.0, 32.0]  # IoU 0.8: right at 0.5, 0.55 ... 0.8, that is 7 of 10 thresholds
    result = measure([make_target((BOX, 0))], [make_detections((shifted, 0, 0.9))], engine)
    assert result.map50 == pytest.approx(1.0)
    assert result.map75 == pytest.approx(1.0)
    assert result.map50_95 == pytest.approx(0.7)


@pytest.mark.parametrize(("difficult", "expected"), [(False, 51 / 101), (True, 1.0)])
def test_a_missed_difficult_object_does_not_count(difficult: bool, expected: float, engine: str) -> None:
    target = make_target((BOX, 0), (OTHER, 0, difficult))
    assert measure([target], [make_detections((BOX, 0, 0.9))], engine).map50 == pytest.approx(expected)


@pytest.mark.parametrize(
    ("objects", "found", "expected"),
    [
        # What is on the difficult object counts neither way,
        ([(BOX, 0), (OTHER, 0, True)], [(OTHER, 0, 0.9), (BOX, 0, 0.8)], 1.0),
        # nor a second one there, nor one with half of its area inside;
        ([(BOX, 0), (OTHER, 0, True)], [(OTHER, 0, 0.9), (OTHER, 0, 0.8), (BOX, 0, 0.7)], 1.0),
        ([(BOX, 0), (OTHER, 0, True)], [([120.0, 0.0, 160.0, 9.0], 0, 0.9), (BOX, 0, 0.7)], 1.0),
        # but one with less inside is wrong, as is one of another class.
        ([(BOX, 0), (OTHER, 0, True)], [([121.0, 0.0, 161.0, 9.0], 0, 0.9), (BOX, 0, 0.7)], 0.5),
        ([(BOX, 0), (OTHER, 1, True)], [(OTHER, 0, 0.9), (BOX, 0, 0.7)], 0.5),
        # An object that is not difficult comes first although it is overlapped less (IoU 0.75 to 1).
        ([(BOX, 0), ([0.0, 0.0, 40.0, 30.0], 0, True)], [([0.0, 0.0, 40.0, 30.0], 0, 0.9)], 1.0),
        # A wrong detection, then one of two objects: precision 1/2 up to recall 1/2, at 51 points of 101.
        ([(BOX, 0), (BOX, 0), (OTHER, 0, True)], [(FAR, 0, 0.9), (BOX, 0, 0.8)], 0.5 * 51 / 101),
    ],
)  # fmt: skip
def test_hand_worked_with_difficult_objects(objects: list, found: list, expected: float, engine: str) -> None:
    result = measure([make_target(*objects)], [make_detections(*found)], engine)
    assert result.map50 == pytest.approx(expected, abs=1e-9)
    assert result.ap50 == (pytest.approx(expected, abs=1e-9), None)


def test_plain_pycocotools_gives_the_same_on_the_files_that_are_written(tmp_path: Path, engine: str) -> None:
    """While difficult objects were `iscrowd: 0`, it counted them: the missed OTHER made 51 / 101 of 1."""
    target = make_target((BOX, 0), (OTHER, 0, True))
    boxes = flatten([make_detections((BOX, 0, 0.9), (OTHER, 1, 0.8))], [target], 2)
    expected = plain_coco(*save_files(boxes, tmp_path))
    assert expected.map50 == pytest.approx(1.0)
    assert as_list(coco_ap(boxes, engine)) == pytest.approx(as_list(expected), abs=1e-12)


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("difficult", [0.0, 0.4])
def test_plain_pycocotools_gives_the_same_on_random_files(
    tmp_path: Path, seed: int, difficult: float, engine: str
) -> None:
    boxes = random_case(seed, difficult=difficult)
    expected = as_list(plain_coco(*save_files(boxes, tmp_path)))
    assert expected[0] is not None
    assert as_list(coco_ap(boxes, engine)) == pytest.approx(expected, abs=1e-12)


def test_without_the_optional_package_pycocotools_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [*ENGINES][-1] == ENGINE
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)  # importing it fails
    module = runpy.run_path(str(coco_ap_module.__file__))
    assert module["ENGINE"] == "pycocotools"
    assert [*module["ENGINES"]] == ["pycocotools"]


def test_pycocotools_is_silent(capsys: pytest.CaptureFixture[str], engine: str) -> None:
    measure([make_target((BOX, 0))], [make_detections((BOX, 0, 0.9))], engine)
    assert capsys.readouterr() == ("", "")


def test_the_dictionaries_are_cocos() -> None:
    target = make_target(([10.0, 20.0, 40.0, 60.0], 1, True))
    found = make_detections(([10.0, 20.0, 40.5, 60.0], 1, 0.75))
    boxes = flatten([Detections.empty(), found], [Target.empty(), target], 2)
    truth = build_ground_truth(boxes, ("cat", "dog"), ["a.jpg", "b.jpg"], [(200, 300), (100, 50)])
    assert truth["images"][1] == {"id": 2, "file_name": "b.jpg", "width": 50, "height": 100}
    assert truth["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    box = {"id": 1, "image_id": 2, "category_id": 2, "bbox": [10.0, 20.0, 30.0, 40.0]}
    assert truth["annotations"] == [box | {"area": 1200.0, "iscrowd": 1, "ignore": 1}]
    row = {"image_id": 2, "category_id": 2, "bbox": [10.0, 20.0, 30.5, 40.0], "score": 0.75}
    assert list_detections(boxes) == [row]
