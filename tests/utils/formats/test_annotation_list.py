from __future__ import annotations

from pathlib import Path

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
from utils.data.voc_xml import VocObject
from utils.formats import intermediate


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    return save_text(tmp_path / "classes.txt", "cat\ndog\n")


def test_empty_list(tmp_path: Path, capsys: pytest.CaptureFixture[str], classes: Path) -> None:
    source = save_text(tmp_path / "in/2007_train.txt", "\n\n")
    assert "the list is empty" in refusal(capsys, source, "--classes", classes, "--out", tmp_path / "out")


def test_too_many_objects_of_one_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_picture(tmp_path / "in/a.jpg")
    source = save_text(tmp_path / "in/list.txt", "a.jpg 3,4,10,12,1 3,4,10,12,1\n")
    monkeypatch.setattr(intermediate, "MAX_OBJECTS", 1)
    error = refusal(capsys, source, "--classes", classes, "--out", tmp_path / "out")
    assert "a.jpg: 2 objects; an image may have 1" in error


def test_lines_by_hand(tmp_path: Path, classes: Path) -> None:
    first = save_picture(tmp_path / "my data, all/a b.jpg")
    save_picture(tmp_path / "in/c.jpg")
    save_picture(tmp_path / "in/d.jpg")
    train = save_text(
        tmp_path / "in/2007_train.txt", f"\ufeff'{first}' 3,4,10,12,1 1,1,40,30,0\r\n\r\n\"c.jpg\"\n"
    )
    val = save_text(tmp_path / "in/2007_val.txt", "d.jpg 2.5,3.25,12,6.25,0  3,4,10,12,1 \n")
    before = snapshot(tmp_path / "in")
    assert run_convert(train, val, "--classes", classes, "--float-boxes", "--out", tmp_path / "out") == 0
    # The numbers are VOC's, as voc_annotation.py copies them: xmin 3 is the edge 2.
    assert boxes_of(tmp_path / "out") == {
        "a b": [VocObject("dog", (2, 3, 10, 12)), VocObject("cat", (0, 0, 40, 30))],
        "c": [],
        "d": [VocObject("cat", (1.5, 2.25, 12, 6.25)), VocObject("dog", (2, 3, 10, 12))],
    }
    xml = (tmp_path / "out/Annotations/a b.xml").read_text()
    assert "<xmin>3</xmin>" in xml
    assert "<ymax>12</ymax>" in xml
    assert lists_of(tmp_path / "out") == {"train": ["a b", "c"], "val": ["d"]}
    assert snapshot(tmp_path / "in") == before


def test_images_flag_and_working_folder(
    tmp_path: Path, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_text(tmp_path / "in/list.txt", "VOCdevkit/a.jpg 3,4,10,12,1\n")
    save_picture(tmp_path / "room/VOCdevkit/a.jpg")
    argv = [source, "--classes", classes]
    assert run_convert(*argv, "--images", tmp_path / "room", "--out", tmp_path / "out") == 0
    monkeypatch.chdir(tmp_path / "room")  # where the reference implementation was started
    assert run_convert(*argv, "--out", tmp_path / "out2") == 0
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "out2")


@pytest.mark.parametrize("name", ["D:\\VOC\\a.jpg", "/home/x y/a.jpg", "..\\a.jpg", "a.jpg"])
def test_images_of_another_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], classes: Path, name: str
) -> None:
    source = save_text(tmp_path / "in/2007_train.txt", f"{name} 3,4,10,12,1\n")
    for image in ("a.jpg", "images/sub/a.jpg"):  # the first is outside
        save_picture(tmp_path / image)
    argv = [source, "--classes", classes, "--images", tmp_path / "images", "--out"]
    assert run_convert(*argv, tmp_path / "out") == 0
    assert f"1 image found by file name below {tmp_path}/images" in capsys.readouterr().err
    copied, below = tmp_path / "out/JPEGImages/a.jpg", tmp_path / "images/sub/a.jpg"
    assert copied.read_bytes() == below.read_bytes()
    save_picture(tmp_path / "images/other/a.jpg")
    said = refusal(capsys, *argv, tmp_path / "out2")
    assert f"{source}: line 1: " in said
    assert f"may be {tmp_path}/images/other/a.jpg or {tmp_path}/images/sub/a.jpg" in said


def test_paths_that_lead_nowhere_get_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], classes: Path
) -> None:
    source = save_text(tmp_path / "in/2007_train.txt", "/nowhere/a.jpg 3,4,10,12,1\n")
    said = refusal(capsys, source, "--classes", classes, "--out", tmp_path / "out")
    assert (
        "1 image not where the list says, such as /nowhere/a.jpg; --images DIR looks for them by name" in said
    )


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ("3,4,10,12,2", "has the class 2, but there are 2 class names"),
        ("3,4,10,12,-1", "has the class -1, but there are 2 class names"),
        ("3,4,10,12,0.5", "has the class 0.5, but there are 2 class names"),
        ("3,4,10,12,cat", "is not five numbers"),
        ("3,4,nan,12,1", "is not five numbers"),
        ("3,4,inf,12,1", "is not five numbers"),
        ("3,4,,12,1", "is not five numbers"),
        ("10,4,3,12,1", "box 2 (dog): inverted"),
        ("-30,-40,-3,-12,1", "box 2 (dog): wholly outside"),
    ],
)
def test_fault_of_a_box(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], classes: Path, box: str, reason: str
) -> None:
    save_picture(tmp_path / "in/a.jpg")
    source = save_text(tmp_path / "in/train.txt", f"a.jpg 3,4,10,12,1 {box}\n")
    said = refusal(capsys, source, "--classes", classes, "--out", tmp_path / "out")
    assert f"{source}: line 1, box 2" in said
    assert reason in said
    assert run_convert(source, "--classes", classes, "--out", tmp_path / "out", "--skip-bad") == 0
    assert boxes_of(tmp_path / "out") == {"a": [VocObject("dog", (2, 3, 10, 12))]}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a.jpg 3,4,10,12", "'a.jpg 3,4,10,12' is neither an image nor x1,y1,x2,y2,class"),
        ("notes 3,4,10,12,1", "'notes' is neither an image"),
        ("b.jpg 3,4,10,12,1", "b.jpg: cannot read the image: No such file"),
        ("train.txt.jpg", "train.txt.jpg: cannot read the image"),
        ("c.jpg", "c.jpg: not a regular file"),
    ],
)
def test_fault_of_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], classes: Path, line: str, reason: str
) -> None:
    save_picture(tmp_path / "in/a.jpg")
    (tmp_path / "in/c.jpg").mkdir()
    source = save_text(tmp_path / "in/train.txt", f"a.jpg\n{line}\n")
    assert reason in refusal(capsys, source, "--classes", classes, "--out", tmp_path / "out")
    assert run_convert(source, "--classes", classes, "--out", tmp_path / "out", "--skip-bad") == 0
    assert set(boxes_of(tmp_path / "out")) == {"a"}


def test_classes_are_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save_text(tmp_path / "in/train.txt", "a.jpg\n")
    assert "give --classes FILE" in refusal(capsys, source, "--out", tmp_path / "out")
    empty = save_text(tmp_path / "classes.txt", "")
    assert "no class names" in refusal(capsys, source, "--classes", empty, "--out", tmp_path / "out")
    assert "is a folder" in refusal(
        capsys, tmp_path / "in", "--from", "list", "--classes", empty, "--out", tmp_path / "out"
    )


@pytest.mark.parametrize("flag", [True, False])
def test_images_in_no_list_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], classes: Path, flag: bool
) -> None:
    for name in ("a", "b", "c"):
        save_picture(tmp_path / f"in/{name}.jpg")
    source = save_text(tmp_path / "in/2007_train.txt", "a.jpg 3,4,10,12,0\n")
    images = ["--images", tmp_path / "in"] if flag else []
    assert run_convert(source, "--classes", classes, *images, "--out", tmp_path / "out") == 0
    assert "2 images in no list, such as " in capsys.readouterr().err
