from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.utils.tools.conversion import (
    boxes_of,
    lists_of,
    refusal,
    run_convert,
    save_picture,
    save_text,
    snapshot,
)
from utils.data.samples import DataFolder, load_samples
from utils.data.voc_xml import VocObject, write_annotation

CAT = VocObject("cat", (2.0, 3.0, 10.0, 12.0))


def make(folder: Path, images: dict[str, list[VocObject]], splits: dict[str, list[str]]) -> Path:
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for image_id, objects in images.items():
        save_picture(folder / "JPEGImages" / f"{image_id}.jpg")
        write_annotation(folder / "Annotations" / f"{image_id}.xml", f"{image_id}.jpg", 40, 30, objects)
    for name, ids in splits.items():
        save_text(folder / f"ImageSets/Main/{name}.txt", "".join(f"{image_id}\n" for image_id in ids))
    return folder


def random_objects(random: np.random.Generator) -> list[VocObject]:
    """Draw up to six objects, with coordinates of no or up to nine decimals."""
    objects = []
    for _ in range(random.integers(0, 7)):
        sides = []
        for side in (40, 30):
            low, high = np.round(np.sort(random.uniform(1, side, 2)), random.integers(0, 10))
            if high - low < 1.001:
                low, high = 1.0, float(side)
            sides.append((float(low) - 1, float(high)))  # xmin >= 1 is what the XML holds
        (x1, x2), (y1, y2) = sides
        name = str(random.choice(["cat", "犬", "piñata & <co>", "tv monitor"]))
        objects.append(VocObject(name, (x1, y1, x2, y2), bool(random.random() < 0.3)))
    return objects


@pytest.mark.parametrize("seed", range(8))
def test_to_coco_and_back_changes_nothing(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    names = ["000005", "a.b", "画像 1", "x 1", "Zürich", "2007_000027", "-1", "img (2)"]
    images = {name: random_objects(random) for name in names}
    splits = {
        name: [str(i) for i in random.permutation(names)[: random.integers(1, 8)]]
        for name in ("train", "val", "trainval2007", "mein Teil")
    }
    splits["val"] = list(dict.fromkeys(splits["val"] + names))  # every image is in a list
    source = make(tmp_path / "voc", images, splits)
    before = snapshot(source)
    assert run_convert(source, "--out", tmp_path / "coco") == 0
    assert run_convert(tmp_path / "coco", "--float-boxes", "--out", tmp_path / "back") == 0
    assert boxes_of(tmp_path / "back") == boxes_of(source)
    assert lists_of(tmp_path / "back") == splits
    for path in (source / "JPEGImages").iterdir():
        assert (tmp_path / "back/JPEGImages" / path.name).read_bytes() == path.read_bytes()
    assert snapshot(source) == before


def test_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make(tmp_path / "voc", {}, {})
    assert "none of the 0 images" in refusal(capsys, source, "--out", tmp_path / "out")


def test_folder_without_lists_comes_back_without(tmp_path: Path) -> None:
    source = make(tmp_path / "voc", {"a": [CAT], "b": []}, {})
    assert run_convert(source, "--out", tmp_path / "coco") == 0
    assert [path.name for path in (tmp_path / "coco/annotations").iterdir()] == ["instances_all.json"]
    assert run_convert(tmp_path / "coco", "--float-boxes", "--out", tmp_path / "back") == 0
    assert lists_of(tmp_path / "back") == {}
    assert DataFolder(tmp_path / "back").list_splits() == ["all"]
    assert len(load_samples(tmp_path / "back", "all")) == 2


def test_lists_of_single_classes_are_no_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make(tmp_path / "voc", {"a": [CAT], "b": []}, {"train": ["a", "b"], "fold1_train": ["a"]})
    save_text(source / "ImageSets/Main/cat_train.txt", "a  1\nb -1\n")
    assert run_convert(source, "--out", tmp_path / "coco") == 0
    found = {path.name for path in (tmp_path / "coco/annotations").iterdir()}
    assert found == {"instances_train.json", "instances_fold1_train.json"}
    assert "1 lists of single classes, such as cat_train, skipped" in capsys.readouterr().err


def test_a_devkit_becomes_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for year in ("VOC2007", "VOC2012"):
        make(tmp_path / "kit" / year, {"a": [CAT], year: [CAT]}, {"trainval": ["a", year]})
    assert run_convert(tmp_path / "kit", "--out", tmp_path / "coco") == 0
    data = json.loads((tmp_path / "coco/annotations/instances_VOC2012_trainval.json").read_text())
    assert [image["file_name"] for image in data["images"]] == ["VOC2012_JPEGImages_a.jpg", "VOC2012.jpg"]
    assert "gets the id 'VOC2007_JPEGImages_a'" in capsys.readouterr().err
    assert len(list((tmp_path / "coco/images").iterdir())) == 4


def test_images_with_xml_beside_them(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        save_picture(tmp_path / f"in/{split}/{split}1.jpg")
        write_annotation(tmp_path / f"in/{split}/{split}1.xml", f"{split}1.jpg", 40, 30, [CAT])
    assert run_convert(tmp_path / "in", "--out", tmp_path / "coco") == 0
    assert run_convert(tmp_path / "coco", "--float-boxes", "--out", tmp_path / "back") == 0
    assert lists_of(tmp_path / "back") == {"train": ["train1"], "valid": ["valid1"]}
    assert boxes_of(tmp_path / "back") == {"train1": [CAT], "valid1": [CAT]}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("Annotations/a.xml", b"<annotation><object>", "a.xml: not well-formed XML"),
        ("JPEGImages/a.jpg", b"", "a.jpg: not an image that can be read"),
        ("JPEGImages/a.png", b"", "a.jpg: a.png lies beside it"),
        ("ImageSets/Main/val.txt", b"b\nc\n", "c.jpg: no image with this id"),
    ],
)
def test_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, reason: str
) -> None:
    source = make(tmp_path / "voc", {"a": [CAT], "b": [CAT]}, {"train": ["a"], "val": ["b"]})
    (source / name).write_bytes(content)
    assert reason in refusal(capsys, source, "--out", tmp_path / "out")
    assert run_convert(source, "--out", tmp_path / "out", "--skip-bad") == 0
    assert "skipped: 1 image" in capsys.readouterr().out


def test_full_doubles_come_back_to_the_last_bit_but_one(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    low = random.uniform(1, 15, (50, 2))
    high = random.uniform(17, 30, (50, 2))
    boxes = np.hstack([low - 1, high])
    source = make(tmp_path / "voc", {"a": [VocObject("cat", tuple(box)) for box in boxes.tolist()]}, {})
    assert run_convert(source, "--out", tmp_path / "coco") == 0
    assert run_convert(tmp_path / "coco", "--float-boxes", "--out", tmp_path / "back") == 0
    found = np.array([item.box for item in boxes_of(tmp_path / "back")["a"]])
    np.testing.assert_allclose(found, boxes, rtol=3e-16)
