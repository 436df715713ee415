from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

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

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "猫"}]
GOOD: dict[str, Any] = {
    "images": [{"id": 10, "file_name": "a.jpg", "width": 40, "height": 30}, {"id": 11, "file_name": "b.jpg"}],
    "categories": CATEGORIES,
    "annotations": [
        {"id": 1, "image_id": 10, "category_id": 3, "bbox": [2, 3, 8, 9]},
        {"id": 2, "image_id": 10, "category_id": 7, "bbox": [1.5, 2.25, 10.5, 4], "ignore": 1},
    ],
}


def make(folder: Path, data: Any = None, name: str = "instances_train2017.json") -> Path:
    """Write two pictures and their annotation file beside them."""
    for picture in ("a.jpg", "b.jpg"):
        save_picture(folder / picture)
    return save_json(folder / name, GOOD if data is None else data)


def test_no_images_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save_json(tmp_path / "in" / "x.json", {"images": [], "annotations": [], "categories": []})
    assert "none of the 0 images" in refusal(capsys, source, "--out", tmp_path / "out")


def test_boxes_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make(tmp_path / "in")
    before = snapshot(tmp_path / "in")
    assert run_convert(source, "--float-boxes", "--out", tmp_path / "out") == 0
    assert boxes_of(tmp_path / "out") == {
        "a": [VocObject("猫", (2, 3, 10, 12)), VocObject("dog", (1.5, 2.25, 12, 6.25), True)],
        "b": [],
    }
    xml = (tmp_path / "out/Annotations/a.xml").read_text(encoding="utf-8")
    assert "<xmin>3</xmin>" in xml  # VOC counts from 1
    assert "<xmax>10</xmax>" in xml
    assert "<xmin>2.5</xmin>" in xml
    assert lists_of(tmp_path / "out") == {"train": ["a", "b"]}
    assert (tmp_path / "out/JPEGImages/a.jpg").read_bytes() == (tmp_path / "in/a.jpg").read_bytes()
    assert snapshot(tmp_path / "in") == before
    out = capsys.readouterr().out
    assert "2 images, 2 objects: dog 1, 猫 1" in out
    assert out.splitlines()[-1] == f"next: python data.py check --data {tmp_path}/out"


def test_categories_of_one_name_and_a_split_without_objects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = [{"id": 7, "name": "cat"}, {"id": 3, "name": "cat"}]
    train = make(tmp_path / "in", {**GOOD, "categories": same})
    val = make(tmp_path / "in", {"images": GOOD["images"]}, "instances_val.json")
    assert run_convert(train, "--out", tmp_path / "out") == 0
    assert {item.name for item in boxes_of(tmp_path / "out")["a"]} == {"cat"}
    err = capsys.readouterr().err
    assert f"{train}: several categories are called 'cat' and become one class" in err
    assert "has an object" not in err
    assert run_convert(val, "--out", tmp_path / "empty") == 0
    assert "warning: val: none of its 2 images has an object" in capsys.readouterr().err


def test_crowds_and_polygons_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = copy.deepcopy(GOOD)
    data["annotations"] = [
        {"image_id": 10, "category_id": 3, "bbox": [2, 3, 8, 9], "iscrowd": 1},
        {"image_id": 10, "category_id": 7, "segmentation": [[4, 5, 14, 5, 9, 20], [2, 8, 3, 9]]},
    ]
    make(tmp_path / "in", data)
    both = [make(tmp_path / "in", data, f"instances_{split}.json") for split in ("train", "trainval")]
    assert run_convert(*both, "--out", tmp_path / "out") == 0  # objects in two lists count once
    assert boxes_of(tmp_path / "out")["a"] == [
        VocObject("猫", (2, 3, 10, 12), True),
        VocObject("dog", (2, 5, 14, 20)),
    ]
    err = capsys.readouterr().err
    assert "1 crowds (iscrowd) become difficult" in err
    assert "1 polygons" in err


def test_box_partly_outside_is_clipped_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = copy.deepcopy(GOOD)
    data["annotations"][0]["bbox"] = [30, 20, 20, 10]
    assert run_convert(make(tmp_path / "in", data), "--out", tmp_path / "out") == 0
    assert boxes_of(tmp_path / "out")["a"][0].box == (30, 20, 40, 30)
    said = capsys.readouterr()
    assert "annotation 1 (猫): clipped, partly outside the image of 40x30" in said.err
    assert "clipped: 1 object" in said.out


def test_boxes_drawn_on_stored_pixels_are_turned(tmp_path: Path) -> None:
    save_picture(tmp_path / "in/a.jpg", 40, 30, orientation=6)  # is shown with 30 columns and 40 rows
    data = copy.deepcopy(GOOD)
    del data["images"][1]
    assert run_convert(save_json(tmp_path / "in/x.json", data), "--out", tmp_path / "out") == 0
    # The stored bottom is displayed at the left: x1 = 30 - 12, x2 = 30 - 3, and y is the stored x.
    assert boxes_of(tmp_path / "out")["a"][0].box == (18, 2, 27, 10)
    data["images"][0] |= {"width": 30, "height": 40}
    assert run_convert(save_json(tmp_path / "in/x.json", data), "--out", tmp_path / "out2") == 0
    assert boxes_of(tmp_path / "out2")["a"][0].box == (2, 3, 10, 12)


@pytest.mark.parametrize(
    "marks",
    [
        *({"iscrowd": value} for value in ("1", True, 1.0)),
        {"ignore": True},
        *({"difficult": value} for value in (1, True, "true")),
        *({"attributes": {"difficult": value}} for value in (1, True, "True")),
    ],
)
def test_difficult_in_any_spelling(tmp_path: Path, marks: dict[str, Any]) -> None:
    data = copy.deepcopy(GOOD)
    data["annotations"] = [data["annotations"][0] | marks, data["annotations"][0] | {"iscrowd": "0"}]
    assert run_convert(make(tmp_path / "in", data), "--out", tmp_path / "out") == 0
    assert [item.difficult for item in boxes_of(tmp_path / "out")["a"]] == [True, False]


def test_rotated_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A box of 8 x 9 around (15, 14.5), turned by 90 degrees, is 9 x 8."""
    data = copy.deepcopy(GOOD)
    box = {"image_id": 10, "category_id": 3, "bbox": [11, 10, 8, 9]}
    data["annotations"] = [box | {"attributes": {"rotation": angle}} for angle in (90.0, 0.0)]
    assert run_convert(make(tmp_path / "in", data), "--float-boxes", "--out", tmp_path / "out") == 0
    first, second = boxes_of(tmp_path / "out")["a"]
    assert (first.box, second.box) == ((10.5, 10.5, 19.5, 18.5), (11, 10, 19, 19))
    assert "1 rotated boxes become their enclosing box" in capsys.readouterr().err


def test_every_json_of_a_folder_is_read_or_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, name in (("train", "instances_train2017.json"), ("val", "val_boxes.json")):
        data = copy.deepcopy(GOOD)
        data["images"] = [{"id": 10, "file_name": f"{split}.jpg"}]
        save_json(tmp_path / "in/Annotations" / name, data | {"annotations": data["annotations"][:1]})
        save_picture(tmp_path / f"in/Images/{split.title()}2017/{split}.jpg")
    save_json(tmp_path / "in/Annotations/captions_train2017.json", GOOD)
    save_json(tmp_path / "in/Annotations/colors.json", {})
    save_picture(tmp_path / "in/Images/Train2017/more.jpg")
    assert run_convert(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert lists_of(tmp_path / "out") == {"train": ["train"], "val": ["val"]}
    err = capsys.readouterr().err
    assert "1 image in no JSON file, such as " in err
    assert f"2 JSON files not read, such as {tmp_path}/in/Annotations/captions_train2017.json" in err


def test_scores_come_back(tmp_path: Path) -> None:
    data = copy.deepcopy(GOOD)
    data["annotations"] = [data["annotations"][0] | {"score": score} for score in (0.5, "high")]
    assert run_convert(make(tmp_path / "in", data), "--out", tmp_path / "voc") == 0
    assert run_convert(tmp_path / "voc", "--to", "coco", "--out", tmp_path / "coco") == 0
    text = (tmp_path / "coco/annotations/instances_train.json").read_text(encoding="utf-8")
    written = json.loads(text, parse_constant=pytest.fail)  # NaN is no JSON
    assert [item["score"] for item in written["annotations"]] == [0.5, "nan"]
    assert run_convert(tmp_path / "coco", "--out", tmp_path / "again") == 0
    assert [str(item.score) for item in boxes_of(tmp_path / "again")["a"]] == ["0.5", "nan"]


def test_several_files_are_several_splits(tmp_path: Path) -> None:
    data = copy.deepcopy(GOOD)
    data["images"] = data["images"][:1]
    train = make(tmp_path / "in/annotations", name="instances_train2017.json")
    val = make(tmp_path / "in/annotations", data, name="instances_val2017.json")
    assert run_convert(train, val, "--out", tmp_path / "out") == 0
    assert lists_of(tmp_path / "out") == {"train": ["a", "b"], "val": ["a"]}  # one image, listed in both
    assert run_convert(tmp_path / "in", "--out", tmp_path / "whole") == 0  # the folder finds the same files
    assert snapshot(tmp_path / "whole") == snapshot(tmp_path / "out")


def test_roboflow_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "valid"):
        make(tmp_path / "in" / split, name="_annotations.coco.json")
    assert run_convert(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert lists_of(tmp_path / "out") == {"train": ["train_a", "train_b"], "val": ["valid_a", "valid_b"]}
    assert "gets the id 'train_a'" in capsys.readouterr().err
    assert boxes_of(tmp_path / "out")["valid_a"][0].box == (2, 3, 10, 12)


def test_no_split_makes_no_list(tmp_path: Path) -> None:
    assert run_convert(make(tmp_path / "in", name="labels.json"), "--out", tmp_path / "out") == 0
    assert lists_of(tmp_path / "out") == {}


def test_official_layout_and_images_flag(tmp_path: Path) -> None:
    source = make(tmp_path / "in/annotations")
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "in/train2017").mkdir(exist_ok=True)
        (tmp_path / "in/annotations" / name).rename(tmp_path / "in/train2017" / name)
    assert run_convert(source, "--out", tmp_path / "out") == 0
    (tmp_path / "in/train2017").rename(tmp_path / "elsewhere")
    assert run_convert(source, "--out", tmp_path / "out2", "--images", tmp_path / "elsewhere") == 0
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "out2")


def test_byte_order_mark(tmp_path: Path) -> None:
    source = make(tmp_path / "in")
    source.write_text(source.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert run_convert(source, "--out", tmp_path / "out") == 0


def change(path: str, value: Any) -> Any:
    """Return the good data with one value replaced; a path such as images/0/id leads to it."""
    data = copy.deepcopy(GOOD)
    *way, last = path.split("/")
    place: Any = data
    for step in way:
        place = place[int(step) if step.isdigit() else step]
    place[int(last) if last.isdigit() else last] = value
    return data


@pytest.mark.parametrize(
    "name", ["a.jpg", "images\\1\\a.jpg", "D:\\data\\a.jpg", "/home/x/a.jpg", "..\\..\\a.jpg", "x%20y/a.jpg"]
)
def test_images_of_another_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    source = save_json(tmp_path / "in/x.json", change("images/0/file_name", name))
    for image in ("secret/a.jpg", "images/sub/a.jpg", "images/b.jpg"):
        save_picture(tmp_path / image)
    argv = [source, "--images", tmp_path / "images", "--out"]
    assert run_convert(*argv, tmp_path / "out") == 0
    assert f"1 image found by file name below {tmp_path}/images" in capsys.readouterr().err
    assert set(boxes_of(tmp_path / "out")) == {"a", "b"}
    copied, below = tmp_path / "out/JPEGImages/a.jpg", tmp_path / "images/sub/a.jpg"
    assert copied.read_bytes() == below.read_bytes()
    save_picture(tmp_path / "images/other/a.jpg")
    said = refusal(capsys, *argv, tmp_path / "out2")
    assert f"may be {tmp_path}/images/other/a.jpg or {tmp_path}/images/sub/a.jpg; rename one of them" in said


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "/etc/passwd", "a\0.jpg", "\ud800.jpg", "x" * 5000 + ".jpg", 5]
)
def test_no_path_leads_out_of_the_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: Any
) -> None:
    source = save_json(tmp_path / "in/x.json", change("images/0/file_name", name))
    for image in ("secret.jpg", "images/a.jpg", "images/b.jpg"):
        save_picture(tmp_path / image)
    said = refusal(capsys, source, "--images", tmp_path / "images", "--out", tmp_path / "out")
    assert "is no path inside" in said or "cannot read the image" in said


def test_marks_of_other_tools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = change("annotations/0/attributes", {"difficult": True, "occluded": False})  # CVAT
    data["annotations"][0]["attributes"]["confidence"] = "95%"
    data["annotations"][1]["score"] = 0.5
    data["categories"][0]["name"] = "cafe\u0301"
    assert run_convert(make(tmp_path / "in", data), "--out", tmp_path / "out") == 0
    assert "2 objects with a score in 1 image" in capsys.readouterr().err
    found = [item for items in boxes_of(tmp_path / "out").values() for item in items]
    assert found[0].difficult
    assert "caf\u00e9" in {item.name for item in found}


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("images/0/file_name", "../secret.jpg", "image 1: file_name '../secret.jpg' is no path inside"),
        ("images/0/file_name", "/etc/passwd", "image 1: file_name '/etc/passwd' is no path inside"),
        ("images/0/file_name", "..\\secret.jpg", "is no path inside"),
        ("images/0/file_name", "C:\\secret.jpg", "is no path inside"),
        ("images/0/file_name", "a\0.jpg", "is no path inside"),
        ("images/0/file_name", "\ud800.jpg", "cannot read the image"),
        (
            "images/0/file_name",
            [["x"] * 9] * 9,
            "[list, list, list, list, list, list, ...] is no path inside",
        ),
        ("images/0/file_name", 5, "is no path inside"),
        ("images/0/file_name", "missing.jpg", "missing.jpg: cannot read the image: No such file"),
        ("images/0/file_name", "x" * 5000 + ".jpg", "cannot read the image: File name too long"),
        ("images/0/file_name", "instances_train2017.json", "not a supported image file"),
        ("images/0/id", None, "image 1: has no valid id"),
        ("images/0/id", [1], "image 1: has no valid id"),
        ("images/1/id", 10, "image 2: duplicate id 10"),
        ("images/0", "a.jpg", "image 1: has no valid id"),
        ("annotations/0", [], "annotation 1: is not a JSON object"),
        ("annotations/0/image_id", 99, "annotation 1: image_id 99 is not among the images"),
        ("annotations/0/image_id", {}, "annotation 1: image_id dict is not among the images"),
        ("annotations/0/category_id", 10**400, "annotation 1: category_id a huge number is not among"),
        ("annotations/0/category_id", 99, "annotation 1: category_id 99 is not among the categories"),
        ("annotations/0/category_id", True, "annotation 1: category_id True is not among the categories"),
        ("annotations/0/bbox", None, "annotation 1: has no bbox"),
        ("annotations/0/bbox", [1, 2, 3], "bbox [1, 2, 3] is not four pixel numbers"),
        ("annotations/0/bbox", [1, 2, "3", 4], "is not four pixel numbers"),
        ("annotations/0/bbox", [1, 2, float("nan"), 4], "is not four pixel numbers"),
        ("annotations/0/bbox", [1, 2, float("inf"), 4], "is not four pixel numbers"),
        ("annotations/0/bbox", [1, 2, 1e308, 4], "is not four pixel numbers"),
        ("annotations/0/bbox", [1, 2, 10**400, 4], "is not four pixel numbers"),
        ("annotations/0/bbox", [1, 2, True, 4], "is not four pixel numbers"),
        ("annotations/0/bbox", [1, 2, -3, 4], "width and height must be above 0"),
        ("annotations/0/bbox", [1, 2, 0, 4], "width and height must be above 0"),
        ("annotations/0/bbox", [100, 100, 5, 5], "annotation 1 (猫): wholly outside the image of 40x30"),
        ("annotations/0/bbox", [5, 5, 1, 9], "annotation 1 (猫): no area"),
    ],
)
def test_fault_is_named_and_can_be_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str, value: Any, reason: str
) -> None:
    source = make(tmp_path / "in", change(path, value))
    said = refusal(capsys, source, "--out", tmp_path / "out")
    assert reason in said
    assert "add --skip-bad" in said
    assert run_convert(source, "--out", tmp_path / "out", "--skip-bad") == 0
    result = capsys.readouterr()
    assert f"skipped: {'1 image' if 'images' in path else '0 images'}, " in result.out
    assert reason in result.err
    assert len(boxes_of(tmp_path / "out")) == (1 if "images" in path else 2)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([], "not COCO: it has no list `images`"),
        ({"images": {}}, "not COCO: it has no list `images`"),
        (change("annotations", {}), "`annotations` is not a list"),
        (change("categories", "cat"), "`categories` is not a list"),
        (change("categories/0", "cat"), "category 1 has no valid name and id"),
        (change("categories/0/name", ""), "category 1 has no valid name and id"),
        (change("categories/0/name", " \n"), "category 1 has no valid name and id"),
        (change("categories/0/name", "a\ud800b"), "category 1 has no valid name and id"),
        (change("categories/0/name", "a\u0001b"), "category 1 has no valid name and id"),
        (change("categories/0/id", 3), "category 2: duplicate id 3"),
        (change("images/0/file_name", "x/a.jpg") | {"annotations": []}, None),
    ],
)
def test_file_that_is_no_coco(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: Any, reason: str | None
) -> None:
    source = make(tmp_path / "in", data)
    said = refusal(capsys, source, "--out", tmp_path / "out", "--from", "coco")
    assert str(source if reason else "a.jpg") in said
    assert (reason or "No such file") in said


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"images": ' + b"[" * 200_000, "nested too deep"),
        (b'{"images": [' + b"9" * 5000 + b"]}", "not JSON: Exceeds the limit"),
        (b'{"images": [], "annotations": [1], "annotations": []}', "the key 'annotations' is given twice"),
        ("{}".encode("utf-16"), "not UTF-8 text"),
        (b"\xff\xd8\xff\xe0", "not UTF-8 text"),
    ],
)
def test_file_that_is_no_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, reason: str
) -> None:
    (tmp_path / "in").mkdir()
    source = tmp_path / "in/x.json"
    source.write_bytes(content)
    start = time.perf_counter()
    assert reason in refusal(capsys, source, "--out", tmp_path / "out")
    assert time.perf_counter() - start < 2


def test_size_is_limited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utils.formats.coco.MAX_JSON_BYTES", 2_000_000)
    source = save_text(tmp_path / "in/x.json", " " * 2_000_001)
    assert "x.json: more than 2 MB" in refusal(capsys, source, "--out", tmp_path / "out")


def test_images_that_are_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save_json(tmp_path / "in/x.json", GOOD)
    assert "such as 'a.jpg', are missing; give --images DIR" in refusal(
        capsys, source, "--out", tmp_path / "o"
    )


def test_one_image_with_two_different_annotations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = make(tmp_path / "in")
    val = make(tmp_path / "in", change("annotations/0/bbox", [1, 1, 9, 9]), name="instances_val2017.json")
    assert "a.jpg: is listed twice, with different objects" in refusal(
        capsys, train, val, "--out", tmp_path / "out"
    )


def test_pycocotools_reads_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_convert(make(tmp_path / "in"), "--float-boxes", "--out", tmp_path / "voc") == 0
    assert run_convert(tmp_path / "voc", "--out", tmp_path / "coco") == 0
    assert f"{tmp_path}/coco/annotations/instances_train.json" in capsys.readouterr().out
    coco = COCO(str(tmp_path / "coco/annotations/instances_train.json"))
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["a.jpg", "b.jpg"]
    assert coco.getImgIds() == [1, 2]
    assert [category["name"] for category in coco.loadCats([1, 2])] == ["dog", "猫"]
    first, second = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert first["bbox"] == [2, 3, 8, 9]
    assert (first["category_id"], first["ignore"], first["area"], first["iscrowd"]) == (2, 0, 72, 0)
    assert second["bbox"] == [1.5, 2.25, 10.5, 4]
    assert (second["category_id"], second["ignore"], second["iscrowd"]) == (1, 1, 1)
    assert json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())["info"] == {
        "split": "train"
    }
    assert {path.name for path in (tmp_path / "coco/images").iterdir()} == {"a.jpg", "b.jpg"}
