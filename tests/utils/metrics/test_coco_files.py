from __future__ import annotations

import json
from pathlib import Path

import pytest

from nets.structures import Detections, Target
from tests.metrics_reference import make_detections, make_target
from utils.metrics import coco_ap
from utils.metrics.coco_ap import build_ground_truth, iterate_detections, write_detections
from utils.metrics.matching import flatten

NAMES = ("cat", "dog")


def test_without_detections_the_file_is_an_empty_list(tmp_path: Path) -> None:
    write_detections(flatten([], [], 1), tmp_path / "detections.json")
    assert (tmp_path / "detections.json").read_text() == "[]\n"


def test_the_dictionaries_are_cocos() -> None:
    target = make_target(([10.0, 20.0, 40.0, 60.0], 1, True))
    found = make_detections(([10.0, 20.0, 40.5, 60.0], 1, 0.75))
    boxes = flatten([Detections.empty(), found], [Target.empty(), target], 2)
    truth = build_ground_truth(boxes, NAMES, ["a.jpg", "b.jpg"], [(200, 300), (100, 50)])
    assert truth["images"][1] == {"id": 2, "file_name": "b.jpg", "width": 50, "height": 100}
    assert truth["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    box = {"id": 1, "image_id": 2, "category_id": 2, "bbox": [10.0, 20.0, 30.0, 40.0]}
    assert truth["annotations"] == [box | {"area": 1200.0, "iscrowd": 0, "ignore": 1}]
    row = {"image_id": 2, "category_id": 2, "bbox": [10.0, 20.0, 30.5, 40.0], "score": 0.75}
    assert list(iterate_detections(boxes)) == [row]


@pytest.mark.parametrize("part", [1, 2, 3, 4])
def test_a_file_written_in_parts_is_one_list(
    part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coco_ap, "_CHUNK", part)
    found = make_detections(*(([0.0, 0.0, 10.0 + i, 1 / 3], 0, 0.1 * i) for i in range(3)))
    boxes = flatten([found], [Target.empty()], 1)
    write_detections(boxes, tmp_path / "detections.json")
    assert json.loads((tmp_path / "detections.json").read_text()) == list(iterate_detections(boxes))
