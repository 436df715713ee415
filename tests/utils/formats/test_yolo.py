from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.utils.tools.conversion import (
    boxes_of,
    lists_of,
    refusal,
    run_convert,
    save_picture,
    save_text,
    snapshot,
)
from utils.data.voc_xml import VocObject, write_annotation
from utils.formats import yolo

NAMES = "names: [cat, dog]\n"


def make(root: Path, *lines: str, names: str = NAMES) -> Path:
    """Write images/a.jpg of 40 x 30 pixels, its label with these lines, and data.yaml."""
    save_picture(root / "images/a.jpg")
    save_text(root / "labels/a.txt", "".join(f"{line}\n" for line in lines))
    save_text(root / "data.yaml", names)
    return root


def test_folder_without_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_text(tmp_path / "in/data.yaml", NAMES)
    assert "no images in it" in refusal(capsys, tmp_path / "in", "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], []),
        ([""], []),
        # 40 x 30 pixels: the center (20, 15), the size (10, 12)
        (["1 0.5 0.5 0.25 0.4"], [VocObject("dog", (15, 9, 25, 21))]),
        (["0 0.5 0.5 1 1", "1.0 0.25 0.5 0.5 1.0"],
         [VocObject("cat", (0, 0, 40, 30)), VocObject("dog", (0, 0, 20, 30))]),
        (["0 0.1 0.2 0.5 0.2 0.3 0.8"], [VocObject("cat", (4, 6, 20, 24))]),  # a triangle
        (["0 0.1 0.2 0.5 0.2 0.5 0.8 0.1 0.8"], [VocObject("cat", (4, 6, 20, 24))]),  # a turned box's corners
        (["0 0.333333 0.5 0.25 0.4"], [VocObject("cat", (8.33, 9, 18.33, 21))]),
    ],
)  # fmt: skip
def test_lines_by_hand(tmp_path: Path, lines: list[str], expected: list[VocObject]) -> None:
    make(tmp_path / "in", *lines)
    assert run_convert(tmp_path / "in", "--float-boxes", "--out", tmp_path / "out") == 0
    assert boxes_of(tmp_path / "out") == {"a": expected}
    assert lists_of(tmp_path / "out") == {}


def test_too_many_objects_of_one_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "in", *["0 0.5 0.5 0.25 0.4"] * 3)
    monkeypatch.setattr(yolo, "MAX_OBJECTS", 2)
    error = refusal(capsys, tmp_path / "in", "--out", tmp_path / "out")
    assert "a.txt: 3 lines; an image may have 2 objects" in error


def test_whole_pixels_come_back_from_six_decimals(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    width, height = 1237, 911
    corners = np.sort(random.integers(0, (width, height), (200, 2, 2)), axis=1)
    corners = corners[(corners[:, 1] - corners[:, 0] >= 2).all(axis=1)]
    lines = []
    for (x1, y1), (x2, y2) in corners.tolist():
        cx, cy = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height
        lines.append(f"0 {cx:.6f} {cy:.6f} {(x2 - x1) / width:.6f} {(y2 - y1) / height:.6f}")
    make(tmp_path / "in", *lines)
    save_picture(tmp_path / "in/images/a.jpg", width, height)
    assert run_convert(tmp_path / "in", "--out", tmp_path / "out") == 0
    found = np.array([item.box for item in boxes_of(tmp_path / "out")["a"]])
    np.testing.assert_array_equal(found, corners.reshape(-1, 4))


def test_fractions_are_of_the_image_as_displayed(tmp_path: Path) -> None:
    make(tmp_path / "in", "0 0.5 0.5 0.2 0.5")
    save_picture(tmp_path / "in/images/a.jpg", 40, 30, orientation=6)  # 30 x 40 as displayed
    assert run_convert(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert boxes_of(tmp_path / "out")["a"][0].box == (12, 10, 18, 30)


def test_what_is_not_a_box_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "in", "0 0.1 0.2 0.5 0.2 0.3 0.8")
    save_picture(tmp_path / "in/images/background.jpg")
    before = snapshot(tmp_path / "in")
    assert run_convert(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert boxes_of(tmp_path / "out")["background"] == []
    err = capsys.readouterr().err
    assert "1 polygon replaced by the enclosing box" in err
    assert "1 image without a label file, taken as without objects" in err
    assert snapshot(tmp_path / "in") == before


def test_keypoints_leave_the_box(tmp_path: Path) -> None:
    make(tmp_path / "in", "0 0.5 0.5 0.25 0.4 0.1 0.2 2 0.3 0.3 1", names=NAMES + "kpt_shape: [2, 3]\n")
    assert run_convert(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert boxes_of(tmp_path / "out")["a"][0].box == (15, 9, 25, 21)


@pytest.mark.parametrize(
    "style", ["ultralytics", "roboflow", "dictionary", "foreign path", "lists", "no yaml"]
)
def test_layouts_and_splits(tmp_path: Path, style: str) -> None:
    root = tmp_path / "in"
    is_roboflow = style == "roboflow"
    for split, name in (("train", "a"), ("train", "b"), ("valid" if is_roboflow else "val", "c")):
        for kind, ending in (("images", "jpg"), ("labels", "txt")):
            folder = root / split / kind if is_roboflow else root / kind / split
            path = folder / f"{name}.{ending}"
            save_picture(path) if kind == "images" else save_text(path, "1 0.5 0.5 0.25 0.4\n")
    yamls = {
        "ultralytics": f"path: .\ntrain: images/train\nval: images/val\ntest:\n{NAMES}",
        "roboflow": f"train: ../train/images\nval: ../valid/images\nnc: 2\n{NAMES}",
        "dictionary": "train: images/train\nval: [images/val]\nnames:\n  0: cat\n  1: dog\n",
        "foreign path": f"path: /content/datasets/pets\ntrain: images/train\nval: images/val\n{NAMES}",
        "lists": f"train: train.txt\nval: lists/val.txt\n{NAMES}",
    }
    if style in yamls:
        save_text(root / "data.yaml", yamls[style])
    else:
        save_text(root / "classes.txt", "cat\ndog\n")
    if style == "lists":
        save_text(root / "train.txt", f"./images/train/a.jpg\n{root}/images/train/b.jpg\n\n")
        save_text(root / "lists/val.txt", "images/val/c.jpg\n")
    assert run_convert(root, "--out", tmp_path / "out") == 0
    assert lists_of(tmp_path / "out") == {"train": ["a", "b"], "val": ["c"]}
    assert set(boxes_of(tmp_path / "out")) == {"a", "b", "c"}
    assert all(found == [VocObject("dog", (15, 9, 25, 21))] for found in boxes_of(tmp_path / "out").values())


def test_cvat_without_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "in"
    for part, name in (("train", "cam0/a"), ("valid", "b"), ("test", "c")):
        save_text(root / f"obj_{part}_data/{name}.txt", "1 0.5 0.5 0.25 0.4\n")
        save_text(root / f"{part}.txt", f"data/obj_{part}_data/{name}.jpg\n")
        save_picture(tmp_path / f"pictures/{name}.jpg")
    lists = "".join(f"{part} = data/{part}.txt\n" for part in ("train", "valid", "test"))
    save_text(root / "obj.data", f"classes = 2\n{lists}names = data/obj.names\n")
    save_text(root / "obj.names", "cafe\u0301\n犬\n")
    assert "obj_train_data/cam0/a.jpg: cannot read" in refusal(capsys, root, "--out", tmp_path / "out")
    for number, source in enumerate((root, root / "obj.data")):
        out = tmp_path / f"out{number}"
        assert run_convert(source, "--images", tmp_path / "pictures", "--out", out) == 0
        assert lists_of(out) == {"train": ["a"], "val": ["b"], "test": ["c"]}
        assert boxes_of(out) == {name: [VocObject("犬", (15, 9, 25, 21))] for name in "abc"}
    assert "3 images found by file name below" in capsys.readouterr().err


def test_cvat_folders_without_lists_are_splits(tmp_path: Path) -> None:
    for part, name in (("train", "a"), ("valid", "b")):
        save_picture(tmp_path / f"in/obj_{part}_data/{name}.jpg")
        save_text(tmp_path / f"in/obj_{part}_data/{name}.txt", "1 0.5 0.5 0.25 0.4\n")
    save_text(tmp_path / "in/obj.names", "cat\ndog\n")
    assert run_convert(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert lists_of(tmp_path / "out") == {"train": ["a"], "val": ["b"]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("names = data/obj.names\ntrain = data/gone.txt\n", "'data/gone.txt' is not found in"),
        ("names = ../../secret.names\n", "'../../secret.names' is not found in"),
        ("names = /etc/hosts\n", "'/etc/hosts' is not found in"),
        ("names = data/obj.names\ntrain = data/list.txt\n", "list.txt: line 1: '/etc/a.jpg' leads out of"),
        ("\xff", "no class names in it"),
        ("names = data/obj.names\nclasses = 2\n", "obj.data: 1 class name, but the number of classes is 2"),
    ],
)
def test_obj_data_that_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    save_text(tmp_path / "in/obj.data", text)
    save_text(tmp_path / "in/list.txt", "/etc/a.jpg\n")
    save_text(tmp_path / "in/obj.names" if "obj.names" in text else tmp_path / "x", "cat\n")
    assert reason in refusal(capsys, tmp_path / "in", "--out", tmp_path / "out")


def test_images_in_no_split_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "in", "1 0.5 0.5 0.25 0.4", names=f"{NAMES}train: train.txt\n")
    save_picture(tmp_path / "in/images/b.jpg")
    save_text(tmp_path / "in/train.txt", "images/a.jpg\n")
    assert run_convert(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert f"1 image in no split of {tmp_path}/in/data.yaml, such as {tmp_path}/in/images/b.jpg, skipped" in (
        capsys.readouterr().err
    )


def test_images_and_labels_side_by_side(tmp_path: Path) -> None:
    save_picture(tmp_path / "in/a.jpg")
    save_text(tmp_path / "in/a.txt", "0 0.5 0.5 0.25 0.4\n")
    save_text(tmp_path / "in/classes.txt", "cat\n")
    assert run_convert(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert boxes_of(tmp_path / "out") == {"a": [VocObject("cat", (15, 9, 25, 21))]}


@pytest.mark.parametrize("pictures", ["JPEGImages", "pictures"])
def test_pictures_beside_a_folder_of_labels_are_not_without_labels(tmp_path: Path, pictures: str) -> None:
    save_picture(tmp_path / "in" / pictures / "a.jpg")
    save_text(tmp_path / "in/labels/a.txt", "0 0.5 0.5 0.25 0.4\n")
    save_text(tmp_path / "in/classes.txt", "cat\n")
    named = ["--images", tmp_path / "in" / pictures]
    for number, argv in enumerate([named, []] if pictures == "JPEGImages" else [named]):
        out = tmp_path / f"out{number}"
        assert run_convert(tmp_path / "in", "--from", "yolo", *argv, "--out", out) == 0
        assert boxes_of(out) == {"a": [VocObject("cat", (15, 9, 25, 21))]}


def test_a_label_that_no_picture_takes_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_picture(tmp_path / "in/pictures/a.jpg")
    save_text(tmp_path / "in/labels/a.txt", "0 0.5 0.5 0.25 0.4\n")
    save_text(tmp_path / "in/classes.txt", "cat\n")
    said = refusal(capsys, tmp_path / "in", "--from", "yolo", "--out", tmp_path / "out")
    assert "labels/a.txt: no image belongs to this label" in said


def test_images_elsewhere_and_classes_of_a_file(tmp_path: Path) -> None:
    save_picture(tmp_path / "pictures/train/a.jpg")
    save_text(tmp_path / "in/labels/train/a.txt", "1 0.5 0.5 0.25 0.4\n")
    classes = save_text(tmp_path / "classes.txt", "cat\n犬\n")
    argv = [tmp_path / "in", "--images", tmp_path / "pictures", "--classes", classes]
    assert run_convert(*argv, "--out", tmp_path / "out") == 0
    assert boxes_of(tmp_path / "out") == {"a": [VocObject("犬", (15, 9, 25, 21))]}
    assert lists_of(tmp_path / "out") == {"train": ["a"]}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2 0.5 0.5 0.25 0.4", "class 2, but there are 2 class names"),
        ("-1 0.5 0.5 0.25 0.4", "class -1, but there are 2 class names"),
        ("0.5 0.5 0.5 0.25 0.4", "class 0.5, but there are 2 class names"),
        ("cat 0.5 0.5 0.25 0.4", "is not all numbers"),
        ("0 0.5 nan 0.25 0.4", "is not all numbers"),
        ("0 0.5 0.5 0.2_5 0.4", "is not all numbers"),
        ("\u0660 0.5 0.5 0.25 0.4", "is not all numbers"),
        ("0 0.5 inf 0.25 0.4", "is not all numbers"),
        ("0 0.5 1e400 0.25 0.4", "is not all numbers"),
        ("0 20 15 10 12", "has a number outside 0 to 1"),
        ("0 0.5 0.5 -0.25 0.4", "has a number outside 0 to 1"),
        ("0 0.5 0.5 0 0.4", "has no width or height"),
        ("0 0.5 0.5 0.25", "is neither `class cx cy w h` nor a polygon"),
        ("0 0.5 0.5 0.25 0.4 9", "has a number outside 0 to 1"),
        ("0", "is neither `class cx cy w h` nor a polygon"),
        ("0 0.5 0.5 0.01 0.4", "less than a pixel wide or high"),
    ],
)
def test_fault_of_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, reason: str) -> None:
    make(tmp_path / "in", "1 0.5 0.5 0.25 0.4", line)
    said = refusal(capsys, tmp_path / "in", "--out", tmp_path / "out")
    assert f"{tmp_path}/in/labels/a.txt: line 2" in said
    assert reason in said
    assert run_convert(tmp_path / "in", "--out", tmp_path / "out", "--skip-bad") == 0
    assert boxes_of(tmp_path / "out")["a"] == [VocObject("dog", (15, 9, 25, 21))]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("labels/a.txt", b"\xff\xfe0\x00", "a.txt: not UTF-8 text"),
        ("labels/a.txt", b"0 " * 8_000_001, "a.txt: more than 16 MB"),
        ("labels/b.txt", b"", "b.txt: no image belongs to this label"),
        ("images/b.jpg", b"<html>", "b.jpg: not an image that can be read: an HTML page"),
        ("images/b.jpg", b"", "b.jpg: not an image that can be read: the file is empty"),
    ],
)
def test_fault_of_an_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, reason: str
) -> None:
    make(tmp_path / "in")
    save_picture(tmp_path / "in/images/good.jpg")
    (tmp_path / "in" / name).write_bytes(content)
    assert reason in refusal(capsys, tmp_path / "in", "--out", tmp_path / "out")
    assert run_convert(tmp_path / "in", "--out", tmp_path / "out", "--skip-bad") == 0
    assert "skipped: 1 image" in capsys.readouterr().out
    assert "good" in boxes_of(tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("names: !!python/object/apply:os.system ['touch PWNED']", "not a plain YAML file"),
        ("names: [cat", "not a plain YAML file"),
        ("[" * 100_000, "not a plain YAML file"),
        ("- cat", "not a YAML file of lines"),
        ("", "no class names in it; give --classes"),
        ("nc: 2", "no class names in it; give --classes"),
        ("names: 5", "is not a list of class names"),
        ("names: []", "is not a list of class names"),
        ("names: [yes, no]", "put yes, no and the like in quotes"),
        ("names: [cat, cat]", "has a duplicate name"),
        ("nc: 3\nnames: [cat, dog]", "data.yaml: 2 class names, but the number of classes is 3"),
        ("names: [cat, dog]\nnames: [cat]", "not a plain YAML file: the key 'names' is given twice"),
        ("names: {1: cat, 2: dog}", "the keys of `names` are not 0, 1, 2"),
        (NAMES + "train: ../../elsewhere", "'../../elsewhere' is not found in"),
        (NAMES + "train: /etc", "'/etc' is not found in"),
        (NAMES + "train: [5]", "5 is not found in"),
        (NAMES + "train: [[[images]]]", "[list] is not found in"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]", "an alias (*name) is refused"),
        (NAMES + "train: list.txt", "list.txt: line 1: '/etc/hosts.jpg' leads out of"),
    ],
)
def test_data_yaml_that_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    make(tmp_path / "in", names=text)
    save_text(tmp_path / "in/list.txt", "/etc/hosts.jpg\n")
    assert reason in refusal(capsys, tmp_path / "in", "--out", tmp_path / "out")
    assert not Path("PWNED").exists()


def test_one_folder_for_two_splits_is_read_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(
        tmp_path / "in",
        "0 0.5 0.5 0.25 0.4",
        "9 0.5 0.5 0.25 0.4",
        names=NAMES + "train: images\nval: images\n",
    )
    assert "more, see above" not in refusal(capsys, tmp_path / "in", "--out", tmp_path / "out")
    assert run_convert(tmp_path / "in", "--out", tmp_path / "out", "--skip-bad") == 0
    assert lists_of(tmp_path / "out") == {"train": ["a"], "val": ["a"]}
    assert "skipped: 0 images, 1 object" in capsys.readouterr().out


# The writer.


def make_voc(folder: Path, splits: dict[str, dict[str, list[VocObject]]]) -> Path:
    for split, images in splits.items():
        for name, objects in images.items():
            save_picture(folder / f"JPEGImages/{name}.jpg", 613, 457)
            (folder / "Annotations").mkdir(exist_ok=True)
            write_annotation(folder / f"Annotations/{name}.xml", f"{name}.jpg", 613, 457, objects)
        save_text(folder / f"ImageSets/Main/{split}.txt", "".join(f"{name}\n" for name in images))
    return folder


def written_yaml(folder: Path) -> dict:
    return yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))


def random_objects(random: np.random.Generator) -> list[VocObject]:
    low, size = random.uniform(0, 300, (5, 2)), random.uniform(2, 150, (5, 2))
    boxes = np.concatenate((low, low + size), axis=1).round(2).tolist()
    return [VocObject(str(random.choice(["cat", "yes", "猫"])), tuple(box)) for box in boxes]


def test_without_lists_images_and_labels_are_flat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_voc(tmp_path / "voc", {"all": {"a": [VocObject("cat", (0, 0, 613, 457))], "b": []}})
    (source / "ImageSets/Main/all.txt").unlink()
    assert run_convert(source, "--to", "yolo", "--out", tmp_path / "out") == 0
    files = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert files == ["data.yaml", "images/a.jpg", "images/b.jpg", "labels/a.txt", "labels/b.txt"]
    assert (tmp_path / "out/labels/b.txt").read_bytes() == b""
    assert (tmp_path / "out/labels/a.txt").read_text() == "0 0.50000000 0.50000000 1.00000000 1.00000000\n"
    assert written_yaml(tmp_path / "out") == {
        "path": str(tmp_path / "out"), "train": "images", "nc": 1, "names": ["cat"]
    }  # fmt: skip
    out = capsys.readouterr().out
    assert "data.yaml has no val, which most YOLO trainers need; add the line," in out
    assert out.splitlines()[0].startswith("voc -> yolo")
    assert run_convert(tmp_path / "out", "--out", tmp_path / "back") == 0


@pytest.mark.parametrize("seed", range(4))
def test_what_is_written_is_read_back(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    splits = {"train": ["a", "b.c"], "val": ["画像 1"], "test": ["t"]}
    made = {split: {name: random_objects(random) for name in names} for split, names in splits.items()}
    source = make_voc(tmp_path / "voc", made)
    assert run_convert(source, "--to", "yolo", "--out", tmp_path / "out") == 0
    found = {split: written_yaml(tmp_path / "out")[split] for split in splits}
    assert found == {split: f"images/{split}" for split in splits}
    assert run_convert(tmp_path / "out", "--float-boxes", "--out", tmp_path / "back") == 0
    assert lists_of(tmp_path / "back") == splits
    expected = {name: objects for images in made.values() for name, objects in images.items()}
    back = boxes_of(tmp_path / "back")
    assert back.keys() == expected.keys()
    for name, objects in expected.items():
        assert [item.name for item in back[name]] == [item.name for item in objects]
        boxes = [[item.box for item in items] for items in (back[name], objects)]
        np.testing.assert_allclose(*boxes, atol=1e-4)


def test_ultralytics_finds_each_label_beside_its_image(tmp_path: Path) -> None:
    """It replaces the last /images/ of the path, and starts at `path` where that is absolute."""
    made = {"train": {"a": []}, "val": {"b": []}}
    assert run_convert(make_voc(tmp_path / "voc", made), "--to", "yolo", "--out", tmp_path / "out") == 0
    config = written_yaml(tmp_path / "out")
    assert config["nc"] == len(config["names"]) == 0
    for split in ("train", "val"):
        (image,) = (Path(config["path"]) / config[split]).iterdir()
        label = "/labels/".join(str(image).rsplit("/images/", 1)).rsplit(".", 1)[0] + ".txt"
        assert Path(label).is_file()


def test_splits_of_several_years_and_trainval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An image is written once although VOC lists it in train and in trainval."""
    made = {"train": {"a": []}, "val": {"b": []}, "trainval": {"a": [], "b": []}}
    make_voc(tmp_path / "kit/VOC2007", made | {"test": {"t": []}})
    make_voc(tmp_path / "kit/VOC2012", {"trainval": {"c": []}, "rest": {"d": []}})
    assert run_convert(tmp_path / "kit", "--to", "yolo", "--out", tmp_path / "out") == 0
    config = written_yaml(tmp_path / "out")
    assert config["train"] == ["images/VOC2007_train", "images/VOC2012_trainval"]
    assert (config["val"], config["test"]) == ("images/VOC2007_val", "images/VOC2007_test")
    folders = {path.name for path in (tmp_path / "out/images").iterdir()}
    assert folders == {f"VOC2007_{split}" for split in ("train", "val", "test")} | {
        "VOC2012_trainval", "VOC2012_rest"
    }  # fmt: skip
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 5
    assert "not named in data.yaml: images/VOC2012_rest;" in capsys.readouterr().out


def test_difficult_objects_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hard = VocObject("cat", (2, 3, 20, 30), True)
    made = {"train": {"a": [hard, replace(hard, difficult=False)], "b": [hard]}, "val": {"c": []}}
    assert run_convert(make_voc(tmp_path / "voc", made), "--to", "yolo", "--out", tmp_path / "out") == 0
    assert "skipped: 2 difficult objects; YOLO has no such flag" in capsys.readouterr().out
    labels = tmp_path / "out/labels/train"
    assert [len((labels / f"{name}.txt").read_text().splitlines()) for name in "ab"] == [1, 0]


def test_images_in_no_split_are_kept_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train/a", "val/b", "c"):
        shape = {"label": "cat", "points": [[2, 3], [20, 30]], "shape_type": "rectangle"}
        save_picture(tmp_path / f"in/{name}.jpg")
        text = json.dumps({"shapes": [shape], "imagePath": f"{Path(name).name}.jpg"})
        save_text(tmp_path / f"in/{name}.json", text)
    assert run_convert(tmp_path / "in", "--to", "yolo", "--out", tmp_path / "out") == 0
    assert (tmp_path / "out/labels/unlisted/c.txt").is_file()
    assert "not named in data.yaml: images/unlisted;" in capsys.readouterr().out


def test_a_sixth_number_is_a_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "in", "1 0.5 0.5 0.25 0.4 0.875", "1 0.5 0.5 0.25 0.4")  # as predict.py --txt --scores
    assert run_convert(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert "1 object with a score in 1 image, as unreviewed predictions have: used" in capsys.readouterr().err
    dog = VocObject("dog", (15, 9, 25, 21))
    assert boxes_of(tmp_path / "out") == {"a": [replace(dog, score=0.875), dog]}
    assert run_convert(tmp_path / "in", "--skip-unreviewed", "--out", tmp_path / "out2") == 0
    assert boxes_of(tmp_path / "out2") == {"a": [dog]}


def test_a_missing_split_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = NAMES + "train: ../images\ntest: ../test/images\n"
    make(tmp_path / "in", "1 0.5 0.5 0.25 0.4", names=names)
    assert run_convert(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert "skipped: " in (said := capsys.readouterr().err)
    assert "'../test/images' is not found in" in said
    assert lists_of(tmp_path / "out") == {"train": ["a"]}
    save_picture(tmp_path / "in/Test/b.jpg")  # may be what it means
    assert "'../test/images' is not found in" in refusal(capsys, tmp_path / "in", "--out", tmp_path / "out2")


def test_an_image_in_two_lists_is_counted_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = NAMES + "train: train.txt\nval: val.txt\n"
    make(tmp_path / "in", "0 0.1 0.2 0.5 0.2 0.3 0.8", names=names)
    for split in ("train", "val"):
        save_text(tmp_path / f"in/{split}.txt", "'images/a.jpg'\n")
    assert run_convert(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert "1 polygon replaced" in capsys.readouterr().err
    assert lists_of(tmp_path / "out") == {"train": ["a"], "val": ["a"]}


def test_folder_called_testing(tmp_path: Path) -> None:
    for split in ("training", "testing"):
        save_picture(tmp_path / f"in/images/{split}/{split[0:3]}.jpg")
        save_text(tmp_path / f"in/labels/{split}/{split[0:3]}.txt", "1 0.5 0.5 0.25 0.4\n")
    save_text(tmp_path / "in/classes.txt", "cat\ndog\n")
    assert run_convert(tmp_path / "in", "--out", tmp_path / "out") == 0
    assert lists_of(tmp_path / "out") == {"train": ["tra"], "test": ["tes"]}


def test_labels_beside_images_without_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Side by side, and as CVAT exports: other texts and labels of images in no list are no faults."""
    save_picture(tmp_path / "flat/a.jpg")
    save_text(tmp_path / "flat/a.txt", "0 0.5 0.5 0.2 0.2")
    save_text(tmp_path / "flat/README.txt", "Exported by hand")
    save_text(tmp_path / "flat/classes.txt", "cat")
    cvat = tmp_path / "cvat"
    for name in ("a", "unlisted"):
        save_picture(cvat / f"obj_train_data/{name}.jpg")
        save_text(cvat / f"obj_train_data/{name}.txt", "0 0.5 0.5 0.2 0.2")
    save_text(cvat / "train.txt", "data/obj_train_data/a.jpg")
    save_text(cvat / "obj.names", "cat")
    save_text(cvat / "obj.data", "train = data/train.txt\nnames = data/obj.names")
    for source, lost in ((tmp_path / "flat", "lost.txt"), (cvat, "obj_train_data/lost.txt")):
        assert run_convert(source, "--out", tmp_path / f"{source.name}_voc") == 0
        save_text(source / lost, "0 0.5 0.5 0.2 0.2")
        said = refusal(capsys, source, "--out", tmp_path / "out")
        assert f"{source / lost}: no image belongs to this label" in said


def test_images_beside_the_folder_images_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_picture(tmp_path / "in/images/a.jpg")
    save_text(tmp_path / "in/labels/a.txt", "0 0.5 0.5 0.2 0.2")
    save_text(tmp_path / "in/classes.txt", "cat")
    save_picture(tmp_path / "in/extra/z.jpg")
    assert run_convert(tmp_path / "in", "--out", tmp_path / "out") == 0
    err = capsys.readouterr().err
    assert f"1 image outside of {tmp_path}/in/images, such as {tmp_path}/in/extra/z.jpg, skipped" in err


def test_scores_are_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_picture(tmp_path / "in/a.jpg")
    save_text(tmp_path / "in/a.txt", "0 0.5 0.5 0.2 0.2 0.9\n0 0.5 0.5 0.4 0.4")
    save_text(tmp_path / "in/classes.txt", "cat")
    assert run_convert(tmp_path / "in", "--out", tmp_path / "voc") == 0
    assert run_convert(tmp_path / "voc", "--to", "yolo", "--out", tmp_path / "out") == 0
    assert "written without the score: 1 object" in capsys.readouterr().out
    (label,) = tmp_path.glob("out/labels/**/a.txt")
    assert [len(line.split()) for line in label.read_text().splitlines()] == [5, 5]


@pytest.mark.parametrize("config", ["data.yaml", "data.YAML", "obj.DATA"])
def test_suffixes_in_another_case(tmp_path: Path, capsys: pytest.CaptureFixture[str], config: str) -> None:
    root = tmp_path / "in"
    save_picture(root / "train/images/a.JPG")
    save_text(root / "train/labels/a.TXT", "1 0.5 0.5 0.25 0.4\n")
    save_text(root / "obj.NAMES", "cat\ndog\n")
    save_text(root / "train.TXT", "train/images/a.jpg\n")
    save_text(root / config, "names = obj.names\ntrain = train.txt" if "obj" in config else NAMES)
    assert run_convert(root, "--out", tmp_path / "out") == 0
    assert boxes_of(tmp_path / "out") == {"a": [VocObject("dog", (15, 9, 25, 21))]}
    assert "without a label file" not in capsys.readouterr().err
    save_text(root / "train/labels/nope.TXT", "1 0.5 0.5 0.25 0.4\n")
    assert "nope.TXT: no image belongs to this label" in refusal(capsys, root, "--out", tmp_path / "other")
