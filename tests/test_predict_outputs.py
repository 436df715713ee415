"""What predict.py leaves behind: annotations, cut-out objects and counts, never over a file of the user."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import predict
import train
from tests.file_size_limit import file_size_limit
from tests.predict_room import EVERYTHING, run
from tests.training_room import errors_in
from tests.video_files import make_video
from utils.cli.files import check_output_files
from utils.data.voc_xml import read_annotation
from utils.formats.yolo import read_yolo


def found_by(*argv: str) -> list[dict]:
    """Return what --json says of these sources."""
    assert run(*argv, "--no-save", "--json", "found.jsonl") == 0
    return [json.loads(line) for line in Path("found.jsonl").read_text().splitlines()]


def test_xml_of_nothing_is_an_image_without_objects(work: Path) -> None:
    assert run("photos/a.jpg", "--conf", "1", "--no-save", "--xml", "new/labels") == 0
    annotation = read_annotation("new/labels/a.xml")
    assert (annotation.size, annotation.objects) == ((80, 60), ())


def test_xml_holds_the_detections_in_whole_pixels(work: Path) -> None:
    assert run("photos", *EVERYTHING, "--no-save", "--xml", "labels") == 0
    assert sorted(path.name for path in Path("labels").iterdir()) == ["a.xml", "b c.xml"]
    for line in found_by("photos", *EVERYTHING):
        path = Path(line["path"])
        annotation = read_annotation(f"labels/{path.stem}.xml")
        assert annotation.size == (line["width"], line["height"])
        assert not annotation.errors
        assert f"<filename>{path.name}</filename>" in Path(f"labels/{path.stem}.xml").read_text()
        expected = [
            (one["label"], tuple(round(edge) for edge in one["box"]))
            for one in line["detections"]
            if all(one["box"][axis + 2] - one["box"][axis] >= 2 for axis in (0, 1))
        ]
        assert [(item.name, item.box) for item in annotation.objects] == expected
        assert expected


def test_xml_with_scores_and_exact_boxes(work: Path) -> None:
    flags = ["--no-save", "--xml", "labels", "--scores", "--float-boxes"]
    assert run("photos/a.jpg", *EVERYTHING, *flags) == 0
    (line,) = found_by("photos/a.jpg", *EVERYTHING)
    kept = [one for one in line["detections"] if np.subtract(one["box"][2:], one["box"][:2]).min() >= 2]
    found = read_annotation("labels/a.xml").objects
    assert np.array([item.box for item in found]) == pytest.approx(
        np.array([o["box"] for o in kept]), abs=1e-3
    )
    root = ElementTree.parse("labels/a.xml").getroot()
    assert root.findtext("folder") == "photos"
    scores = [node.findtext("score") or "" for node in root.findall("object")]
    assert all(re.fullmatch(r"[01]\.\d{6}", score) for score in scores)
    assert [float(score) for score in scores] == [one["score"] for one in kept]
    assert len(scores) > 1


@pytest.mark.slow
def test_predict_correct_train(work: Path) -> None:
    for number in range(4):
        with Image.open("photos/a.jpg") as picture:
            picture.rotate(90 * number).save(f"photos/{number}.jpg")
    assert run("photos", *EVERYTHING, "--no-save", "--xml", "photos") == 0
    text = Path("photos/a.xml").read_text().replace("<name>cat<", "<name>dog<")
    Path("photos/a.xml").write_text(text)
    argv = ["--data", "photos", "--epochs", "1", "--imgsz", "64", "--weights", "best.pth", "--workers", "0"]
    assert train.main([*argv, "--batch-size", "2", "--device", "cpu", "--name", "again"]) == 0
    assert (work / "runs/train/again/weights/best.pth").is_file()


def test_corrections_are_not_overwritten(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flag, suffix in (("--xml", ".xml"), ("--txt", ".txt")):
        mine = Path("photos/a").with_suffix(suffix)
        mine.write_text("my work")
        assert run("photos", flag, "photos") == 2
        (error,) = errors_in(capsys.readouterr().err)
        assert f"{flag} photos: {mine.name} exists" in error
        assert mine.read_text() == "my work"
        mine.unlink()
    assert not (work / "runs").exists()


@pytest.mark.parametrize("flag", ["--xml", "--txt"])
def test_two_images_of_one_name_are_refused(
    work: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    Path("more").mkdir()
    Path("more/a.jpg").write_bytes(Path("photos/a.jpg").read_bytes())
    assert run("photos", "more", flag, "labels") == 2
    (error,) = errors_in(capsys.readouterr().err)
    assert "photos/a.jpg and more/a.jpg would both become a." in error
    with Image.open("photos/a.jpg") as picture:
        picture.save("more/a.png")
    assert run("more", flag, "labels") == 2
    assert not Path("labels").exists()


def test_txt_is_read_back_by_convert(work: Path) -> None:
    assert run("photos", *EVERYTHING, "--no-save", "--txt", "photos") == 0
    assert Path("photos/classes.txt").read_text() == "cat\ndog\n"
    lines = {Path(line["path"]).name: line for line in found_by("photos", *EVERYTHING)}
    source = read_yolo(Path("photos"))
    assert len(source.images) == 2
    for image in source.images:
        line = lines[image.path.name]
        found = [(one["label"], one["box"]) for one in line["detections"]]
        assert [item.name for item in image.objects] == [name for name, _ in found]
        sides = (line["width"], line["height"]) * 2
        for item, (_, box) in zip(image.objects, found, strict=True):
            assert [edge * side for edge, side in zip(item.box, sides, strict=True)] == pytest.approx(
                box, abs=0.01
            )


def test_txt_scores_are_a_sixth_number(work: Path) -> None:
    assert run("photos/a.jpg", *EVERYTHING, "--no-save", "--txt", "labels", "--txt-scores") == 0
    (line,) = found_by("photos/a.jpg", *EVERYTHING)
    rows = [row.split() for row in Path("labels/a.txt").read_text().splitlines()]
    assert {len(row) for row in rows} == {6}
    scores = [one["score"] for one in line["detections"]]
    assert [float(row[5]) for row in rows] == pytest.approx(scores, abs=1e-6)


def test_txt_goes_on_in_a_folder_of_the_same_classes_only(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("photos/a.jpg", "--no-save", "--txt", "labels") == 0
    assert run("photos/b c.png", "--no-save", "--txt", "labels") == 0
    assert {path.name for path in Path("labels").iterdir()} == {"classes.txt", "a.txt", "b c.txt"}
    Path("other").mkdir()
    Path("other/classes.txt").write_text("dog\ncat\n")
    assert run("photos", "--no-save", "--txt", "other") == 2
    assert "classes.txt there names other classes" in capsys.readouterr().err
    Path("photos/classes.jpg").write_bytes(Path("photos/a.jpg").read_bytes())
    assert run("photos", "--no-save", "--txt", "third") == 2
    assert "rename that image" in capsys.readouterr().err


def test_crops_are_the_pixels_of_the_boxes(work: Path) -> None:
    with Image.open("photos/b c.png") as picture:
        pixels = np.asarray(picture)
    Path("photos/b c.jpg").write_bytes(Path("photos/a.jpg").read_bytes())  # the same stem
    assert run("photos", *EVERYTHING, "--crop") == 0
    folder = Path("runs/predict/exp/crops")
    count = 0
    for line in found_by("photos", *EVERYTHING):
        stem = {"b c.png": "b c_2"}.get(Path(line["path"]).name, Path(line["path"]).stem)
        for number, one in enumerate(line["detections"], start=1):
            left, top, right, bottom = one["box"]
            with Image.open(folder / one["label"] / f"{stem}_{number}.jpg") as crop:
                size = np.ceil([right, bottom]) - np.floor([left, top])
                assert crop.size == pytest.approx(tuple(size))
                if stem == "b c_2":
                    part = pixels[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))]
                    assert np.asarray(crop).mean() == pytest.approx(part.mean(), abs=8)
            count += 1
    assert len(list(folder.rglob("*.jpg"))) == count > 0


def test_crops_stay_in_their_folder_whatever_the_class_is_called(work: Path) -> None:
    Path("names.txt").write_text("../../out\n..\n")
    argv = ("photos/a.jpg", *EVERYTHING, "--crop", "--classes", "names.txt")
    assert run(*argv) == 0
    written = {path.parent.name for path in Path("runs/predict/exp/crops").rglob("*.jpg")}
    assert written <= {"_.._out", "_"}
    assert len(list(work.rglob("*_1.jpg"))) == len(list(Path("runs/predict/exp/crops").rglob("*_1.jpg")))


def test_counts(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("photos", "--conf", "1", "--no-save", "--count") == 0
    assert "in 2 images: 0 objects\n" in capsys.readouterr().out
    names = [one["label"] for line in found_by("photos", *EVERYTHING) for one in line["detections"]]
    capsys.readouterr()
    assert run("photos", *EVERYTHING, "--no-save", "--count") == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("in 2 images: ")]
    for name in set(names):
        assert f"{names.count(name)} {name}" in line


def test_one_image_named_twice_is_one(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = ["photos/a.jpg", "./photos/a.jpg", str(work / "photos/a.jpg"), "photos/../photos/a.jpg"]
    assert run(*again, "./photos/*.jpg", "--no-save") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_name_that_is_no_text(work: Path) -> None:
    name = os.fsdecode(b"photos/\xff\xfe.jpg")
    try:
        os.replace("photos/a.jpg", name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (line,) = found_by(name)
    assert line["path"] == r"photos/\xff\xfe.jpg"
    assert run(name, "--xml", "labels", "--txt", "labels", "--crop", *EVERYTHING) == 0
    assert len(list(Path("labels").glob("*.xml"))) == 1


@pytest.mark.parametrize(
    ("argv", "status", "named"),
    [
        (["photos", "--no-save", "--crop"], 2, "--no-save"),
        (["photos", "--txt-scores"], 2, "--scores: needs --xml DIR or --txt DIR"),
        (["photos", "--float-boxes"], 2, "--float-boxes: needs --xml DIR"),
        (["photos", "--xml", "photos/a.jpg"], 2, "--xml photos/a.jpg"),
        (["photos", "--txt", ""], 2, "--txt ''"),
        (["photos", "--save-txt"], 2, "here it is --txt"),
        (["photos", "--json", "weights.pth"], 2, "weights.pth: is also the file of --weights"),
    ],
)
def test_mistakes_end_in_one_line(
    work: Path, capsys: pytest.CaptureFixture[str], argv: list[str], status: int, named: str
) -> None:
    (work / "weights.pth").write_bytes((work / "best.pth").read_bytes())
    assert predict.main([*argv, "--weights", "weights.pth"]) == status
    (error,) = errors_in(capsys.readouterr().err)
    assert named in error
    assert not (work / "runs").exists()


def test_a_disk_that_is_full_leaves_no_half_file(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with file_size_limit(100):
        assert run("photos", "--xml", "labels", "--json", "found.jsonl", "--no-save") == 1
    (error,) = errors_in(capsys.readouterr().err)
    assert "labels/a.xml: cannot write" in error
    assert not [*Path("labels").iterdir(), *Path().glob("found.*")]


def test_csv_has_a_row_per_detection(work: Path) -> None:
    make_video(Path("v.avi"), count=2)
    Path("photos/b c.png").rename('photos/b, "c".png')
    assert (
        run("photos", "v.avi", *EVERYTHING, "--no-save", "--csv", "found.csv", "--json", "found.jsonl") == 0
    )
    with open("found.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in Path("found.jsonl").read_text().splitlines()]
    expected = [
        {
            **{key: str(line.get(key, "")) for key in ("path", "width", "height", "frame", "time_s")},
            **{key: str(one[key]) for key in ("label", "class_id", "score")},
            **dict(zip(("x1", "y1", "x2", "y2"), map(str, one["box"]), strict=True)),
        }
        for line in lines
        for one in line["detections"]
    ]
    assert rows == expected
    assert {row["frame"] for row in rows} == {"", "0", "1"}


@pytest.mark.parametrize(
    ("names", "ids"),  # the images by name
    [
        (["000000000007.jpg", "000000000139.jpg"], [7, 139]),
        (["000139.jpg", "street.jpg"], [139, 2]),
        (["0002.jpg", "x.jpg", "y.jpg"], [1, 2, 3]),  # x.jpg would have 2 as well
    ],
)
def test_coco_results(
    work: Path, capsys: pytest.CaptureFixture[str], names: list[str], ids: list[int]
) -> None:
    Path("set").mkdir()
    for name in names:
        Path("set", name).write_bytes(Path("photos/a.jpg").read_bytes())
    assert run("set", *EVERYTHING, "--no-save", "--coco", "coco.json", "--json", "found.jsonl") == 0
    check_output_files({"--coco": "coco.json", "--json": "found.jsonl"}, {})
    rows = json.loads(Path("coco.json").read_text())
    expected = []
    for image_id, line in zip(ids, Path("found.jsonl").read_text().splitlines(), strict=True):
        found = json.loads(line)
        for one in found["detections"]:
            x1, y1, x2, y2 = one["box"]
            row = {
                "image_id": image_id,
                "category_id": one["class_id"] + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
            }
            expected.append(row | {"score": one["score"], "file_name": found["path"]})
    assert [row | {"bbox": pytest.approx(row["bbox"], abs=1e-9)} for row in expected] == rows
    assert len(rows) >= len(names)
    warned = "all have their 1-based places" in capsys.readouterr().err
    assert warned == (ids == [1, 2, 3])


def test_coco_results_of_nothing_are_an_empty_list(work: Path) -> None:
    assert run("photos", "--conf", "1", "--no-save", "--coco", "coco.json", "--csv", "found.csv") == 0
    assert json.loads(Path("coco.json").read_text()) == []
    assert len(Path("found.csv").read_text().splitlines()) == 1
    check_output_files({"--coco": "coco.json", "--csv": "found.csv"}, {})  # the next ones may replace them


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["photos", "--csv", "a", "--coco", "./a"], "--coco ./a: is also the file of --csv"),
        (["photos/b c.png", "--csv", "photos/a.jpg"], "--csv photos/a.jpg: exists and is no report of --csv"),
        (["list.txt", "--coco", "list.txt"], "--coco list.txt: is also the file of SOURCE"),
        (["photos", "--csv", "gone/a.csv"], "--csv gone/a.csv: its folder does not exist"),
        (["v.avi", "--coco", "coco.json"], "--coco: takes image files only, not v.avi"),
    ],
)
def test_files_that_cannot_be_written_are_refused(
    work: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    make_video(Path("v.avi"), count=1)
    Path("list.txt").write_text("photos/a.jpg\n")
    assert run(*argv) == 2
    (error,) = errors_in(capsys.readouterr().err)
    assert message in error
    assert Path("list.txt").read_text() == "photos/a.jpg\n"
