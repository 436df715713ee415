from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.utils.tools.conversion import (
    boxes_of,
    lists_of,
    refusal,
    run_convert,
    save_json,
    save_picture,
    save_text,
    snapshot,
)
from utils.data.voc_xml import VocObject

SHAPE = {"label": "cat", "points": [[12, 20], [2, 3]], "shape_type": "rectangle", "flags": {}}
CAT = VocObject("cat", (2, 3, 12, 20))


def describe(*shapes: Any, image: Any = "a.jpg") -> dict[str, Any]:
    return {"version": "5.5.0", "shapes": list(shapes), "imagePath": image, "imageData": None}


def make(folder: Path, *shapes: Any) -> Path:
    save_picture(folder / "a.jpg")
    save_json(folder / "a.json", describe(*shapes))
    return folder


def shape(kind: str | None, points: Any, label: Any = "cat", **more: Any) -> dict[str, Any]:
    found = {"label": label, "points": points, **more}
    return found if kind is None else {**found, "shape_type": kind}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        ([SHAPE], [CAT]),
        ([shape("rectangle", [[2, 3], [12, 3], [12, 20], [2, 20]])], [CAT]),  # versions from 5.6 on
        ([shape("polygon", [[2, 5], [12, 3], [7.5, 20]])], [CAT]),
        ([shape(None, [[2, 5], [12, 3], [7.5, 20]])], [CAT]),
        # the radius is 5: from (10, 12) to (13, 16)
        ([shape("circle", [[10, 12], [13, 16]])], [VocObject("cat", (5, 7, 15, 17))]),
        ([shape("mask", [[2, 3], [11, 19]], mask="iVBO")], [CAT]),
        ([shape("rectangle", [[2, 3], [12, 20]], " 猫 ", flags={"difficult": True})],
         [VocObject("猫", CAT.box, True)]),
        ([SHAPE | {"difficult": True}], [VocObject("cat", CAT.box, True)]),  # X-AnyLabeling
        ([SHAPE | {"difficult": False, "flags": None}], [CAT]),
        ([SHAPE | {"label": "cafe\u0301"}], [VocObject("caf\u00e9", CAT.box)]),
        *(
            ([shape(kind, [[2, 8], [7, 3], [12, 9], [6, 20]])], [CAT])
            for kind in ("rotation", "quadrilateral", "oriented_rectangle")
        ),
        ([shape("point", [[2, 3]]), SHAPE, shape("line", [[1, 1], [9, 9]])], [CAT]),
    ],
)  # fmt: skip
def test_shapes_by_hand(tmp_path: Path, given: list[Any], expected: list[VocObject]) -> None:
    assert run_convert(make(tmp_path / "in", *given), "--out", tmp_path / "out") == 0
    assert boxes_of(tmp_path / "out") == {"a": expected}


def test_what_is_no_rectangle_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(
        tmp_path / "in", SHAPE, shape("polygon", [[2, 5], [12, 3], [7, 20]]), shape("point", [[2, 3]])
    )
    save_picture(folder / "b.jpg")
    before = snapshot(folder)
    assert run_convert(folder, "--out", tmp_path / "out") == 0
    err = capsys.readouterr().err
    assert "shapes that become their enclosing box: 1 polygon" in err
    assert "shapes without area, skipped: 1 point" in err
    assert f"1 image without a JSON file, such as {folder}/b.jpg, skipped" in err
    assert snapshot(folder) == before


def test_folders_are_splits_and_images_may_lie_elsewhere(tmp_path: Path) -> None:
    for split, name in (("train", "a"), ("val", "b")):
        save_picture(tmp_path / f"in/images/{name}.jpg")
        save_json(tmp_path / f"in/{split}/{name}.json", describe(SHAPE, image=f"..\\images\\{name}.jpg"))
    assert run_convert(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert lists_of(tmp_path / "out") == {"train": ["a"], "val": ["b"]}
    (tmp_path / "in/images").rename(tmp_path / "pictures")
    argv = [tmp_path / "in", "--images", tmp_path / "pictures", "--out", tmp_path / "out2"]
    assert run_convert(*argv) == 0
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "out2")
    assert boxes_of(tmp_path / "out") == {"a": [CAT], "b": [CAT]}


def test_size_of_another_image_is_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "in")
    save_json(folder / "a.json", describe(SHAPE) | {"imageWidth": 400, "imageHeight": 300})
    assert run_convert(folder, "--out", tmp_path / "out") == 0
    assert "a.jpg: is 40x30, the source says 400x300" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (5, "is not a JSON object"),
        (SHAPE | {"label": ""}, "label '' is not a class name"),
        (SHAPE | {"label": None}, "label None is not a class name"),
        (SHAPE | {"points": None}, "points None are not pairs"),
        (SHAPE | {"points": [[1, 2], [3]]}, "are not pairs of pixel numbers"),
        (SHAPE | {"points": [[1, 2], [3, "4"]]}, "are not pairs of pixel numbers"),
        (SHAPE | {"points": [[1, 2], [3, float("nan")]]}, "are not pairs of pixel numbers"),
        (SHAPE | {"points": [[1, 2], [3, -1e300]]}, "are not pairs of pixel numbers"),
        (SHAPE | {"points": [[1, 2]]}, "a shape_type 'rectangle' of 1 points has no box"),
        (SHAPE | {"points": []}, "a shape_type 'rectangle' of 0 points has no box"),
        (SHAPE | {"shape_type": "banana"}, "a shape_type 'banana' of 2 points has no box"),
        (SHAPE | {"shape_type": ["x"]}, "has no box"),
        (SHAPE | {"shape_type": "rotation"}, "a shape_type 'rotation' of 2 points has no box"),
        (SHAPE | {"points": [[1, 2], [1, 20]]}, "shape 2 (cat): inverted"),
        (SHAPE | {"points": [[60, 60], [90, 90]]}, "shape 2 (cat): wholly outside the image"),
    ],
)
def test_fault_of_a_shape(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: Any, reason: str
) -> None:
    folder = make(tmp_path / "in", SHAPE, fault)
    said = refusal(capsys, folder, "--out", tmp_path / "out")
    assert f"{folder}/a.json: shape 2" in said
    assert reason in said
    assert run_convert(folder, "--out", tmp_path / "out", "--skip-bad") == 0
    assert boxes_of(tmp_path / "out") == {"a": [CAT]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "b.json: not JSON"),
        (" " * 16_000_001, "b.json: more than 16 MB"),
        ("[]", "b.json: not labelme"),
        ('{"shapes": 5}', "b.json: not labelme"),
        ('{"shapes": [], "imagePath": "../../secret.jpg"}', "imagePath '../../secret.jpg' is no path inside"),
        ('{"shapes": [], "imagePath": "/etc/secret.jpg"}', "imagePath '/etc/secret.jpg' is no path inside"),
        ('{"shapes": [], "imagePath": null}', "imagePath None is no path inside"),
        ('{"shapes": [], "imagePath": "gone.jpg"}', "imagePath 'gone.jpg' is not found below "),
        (
            '{"shapes": [], "imagePath": "gone.jpg", "imageData": "iVBO"}',
            "b.json: image 'gone.jpg' is only in this file (imageData); save it as an image",
        ),
        (
            '{"shapes": [], "imagePath": "C:\\\\x\\\\gone.jpg", "imageData": "iVBO"}',
            "is only in this file (imageData)",
        ),
    ],
)
def test_fault_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str) -> None:
    folder = make(tmp_path / "in", SHAPE)
    save_text(folder / "b.json", text)
    assert reason in refusal(capsys, folder, "--out", tmp_path / "out")
    assert run_convert(folder, "--out", tmp_path / "out", "--skip-bad") == 0
    assert boxes_of(tmp_path / "out") == {"a": [CAT]}


def test_images_are_found_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_json(tmp_path / "in/a.json", describe(SHAPE, image="D:\\work\\a.jpg") | {"imageData": "iVBO"})
    save_picture(tmp_path / "pictures/below/a.jpg")
    assert run_convert(tmp_path / "in", "--images", tmp_path / "pictures", "--out", tmp_path / "out") == 0
    assert boxes_of(tmp_path / "out") == {"a": [CAT]}
    assert f"1 image found by file name below {tmp_path}/pictures" in capsys.readouterr().err
    save_picture(tmp_path / "pictures/above/a.jpg")
    said = refusal(capsys, tmp_path / "in", "--images", tmp_path / "pictures", "--out", tmp_path / "out2")
    assert "a.json: imagePath 'D:\\\\work\\\\a.jpg' may be " in said


def test_json_files_in_a_folder_of_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_json(tmp_path / "in/labels/a.json", describe(SHAPE))
    save_picture(tmp_path / "in/images/a.jpg")
    assert "give --images DIR" in refusal(capsys, tmp_path / "in/labels", "--out", tmp_path / "out")
    assert run_convert(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert boxes_of(tmp_path / "out") == {"a": [CAT]}
    assert f"1 image found by file name below {tmp_path}/in" in capsys.readouterr().err


@pytest.mark.parametrize(
    "marks", [{"difficult": 1}, {"difficult": "true"}, {"flags": {"Difficult": True}}, {"Difficult": "1"}]
)
def test_difficult_in_any_spelling(tmp_path: Path, marks: dict[str, Any]) -> None:
    folder = make(tmp_path / "in", SHAPE | marks, SHAPE | {"difficult": 0, "flags": {"difficult": "no"}})
    assert run_convert(folder, "--out", tmp_path / "out") == 0
    assert [item.difficult for item in boxes_of(tmp_path / "out")["a"]] == [True, False]


def test_shapes_with_a_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "in", SHAPE, SHAPE | {"score": 0.5}, SHAPE | {"score": None})
    assert run_convert(folder, "--out", tmp_path / "out") == 0
    assert "1 object with a score in 1 image, as unreviewed predictions have: used" in capsys.readouterr().err
    assert len(boxes_of(tmp_path / "out")["a"]) == 3
    save_picture(folder / "b.jpg")
    save_json(folder / "b.json", describe(SHAPE | {"score": "high"}, image="b.jpg"))
    assert run_convert(folder, "--skip-unreviewed", "--out", tmp_path / "out2") == 0
    err = capsys.readouterr().err
    assert "2 objects with a score in 2 images, as unreviewed predictions have: skipped" in err
    assert "1 image with such objects only: skipped" in err
    assert boxes_of(tmp_path / "out2") == {"a": [CAT, CAT]}


def test_no_json_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_picture(tmp_path / "in/a.jpg")
    argv = [tmp_path / "in", "--from", "labelme", "--out", tmp_path / "out"]
    assert "no .json file in it" in refusal(capsys, *argv)


def test_one_file_is_enough(tmp_path: Path) -> None:
    folder = make(tmp_path / "in", copy.deepcopy(SHAPE))
    assert run_convert(folder / "a.json", "--out", tmp_path / "out") == 0
    assert boxes_of(tmp_path / "out") == {"a": [CAT]}
