from __future__ import annotations

import errno
import os
import shutil
import unicodedata
from pathlib import Path

import pytest

import data
from tests.utils.data.conftest import write_voc
from tests.utils.formats.tool_exports import CAT, NAMES, coco, labelme, yolo_line
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
from utils.data.dataset_report import scan_samples
from utils.data.samples import DataFolder, load_samples
from utils.data.voc_xml import VocObject, write_annotation
from utils.formats.intermediate import make_ids


def make_yolo(root: Path, *names: str, line: str = "0 0.5 0.5 0.25 0.4") -> Path:
    for name in names:
        save_picture(root / f"images/{name}.jpg")
        save_text(root / f"labels/{name}.txt", f"{line}\n" if line else "")
    save_text(root / "data.yaml", "names: [cat]\n")
    return root


def test_the_program_reads_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_yolo(tmp_path / "in", "train/a", "train/b", "val/c")
    assert run_convert(source, "--out", tmp_path / "new/voc") == 0
    assert DataFolder(tmp_path / "new/voc").list_splits() == ["train", "val"]
    report = scan_samples(load_samples(tmp_path / "new/voc", "train"))
    assert report.class_counts == {"cat": 2}
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"yolo -> voc  {tmp_path}/new/voc",
        "3 images, 3 objects: cat 3",
        "splits: train 2, val 1",
        f"next: python data.py check --data {tmp_path}/new/voc",
    ]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["voc"]


def test_images_of_no_split_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_convert(make_yolo(tmp_path / "in", "train/a", "other/b"), "--out", tmp_path / "out") == 0
    assert "in no split: 1 image;" in capsys.readouterr().out
    assert lists_of(tmp_path / "out") == {"train": ["a"]}


def test_boxes_are_rounded_unless_asked_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_yolo(tmp_path / "in", "a", line="0 0.5 0.5 0.25 0.42\n0 0.5 0.5 0.25 0.4")
    assert run_convert(source, "--out", tmp_path / "out") == 0
    said = "boxes rounded to whole pixels: 1 object; --float-boxes keeps fractions"
    assert said in capsys.readouterr().out.splitlines()
    assert boxes_of(tmp_path / "out")["a"] == [VocObject("cat", (15, 9, 25, 21))] * 2
    assert run_convert(source, "--float-boxes", "--out", tmp_path / "exact") == 0
    assert "boxes rounded" not in capsys.readouterr().out
    assert boxes_of(tmp_path / "exact")["a"][0] == VocObject("cat", (15, 8.7, 25, 21.3))


def test_any_format_becomes_coco(tmp_path: Path) -> None:
    source = make_yolo(tmp_path / "in", "train/a")
    assert run_convert(source, "--to", "coco", "--out", tmp_path / "coco") == 0
    assert run_convert(tmp_path / "coco", "--out", tmp_path / "voc") == 0
    assert run_convert(source, "--out", tmp_path / "straight") == 0
    assert snapshot(tmp_path / "voc") == snapshot(tmp_path / "straight")


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ([], {}),
        (["d/a.jpg"], {"d/a.jpg": "a"}),
        (["d/x/a.jpg", "d/y/a.jpg", "d/b.jpg"], {"d/x/a.jpg": "x_a", "d/y/a.jpg": "y_a", "d/b.jpg": "b"}),
        (["d/a.png", "d/a.jpg"], {"d/a.jpg": "a", "d/a.png": "a_2"}),
        (["d/x/a.jpg", "d/y/A.jpg"], {"d/x/a.jpg": "x_a", "d/y/A.jpg": "y_A"}),
        (["d/x/a.jpg", "d/y/a.jpg", "d/x_a.jpg"],
         {"d/x/a.jpg": "x_a_2", "d/y/a.jpg": "y_a", "d/x_a.jpg": "x_a"}),
        (["d/ a\n.jpg", "d/b\\c.jpg", "d/e\udcff.jpg"],
         {"d/ a\n.jpg": "a_", "d/b\\c.jpg": "b_c", "d/e\udcff.jpg": "e_"}),
        (["d/...jpg", "d/x/...jpg"], {"d/...jpg": "_", "d/x/...jpg": "x_.."}),
    ],
)  # fmt: skip
def test_ids(paths: list[str], expected: dict[str, str]) -> None:
    for order in (paths, paths[::-1]):  # they do not hang on the order
        ids, said = make_ids([Path(path) for path in order])
        assert {str(path): name for path, name in ids.items()} == expected
        assert len(said) == sum(Path(path).stem != name for path, name in expected.items())


@pytest.mark.skipif(os.name == "nt", reason="Windows takes no such names")
def test_odd_file_names(tmp_path: Path) -> None:
    source = make_yolo(tmp_path / "in", " blanks ", "new\nline", "-1", "a 1", "b.jpg", "图")
    assert run_convert(source, "--out", tmp_path / "out") == 0
    assert set(boxes_of(tmp_path / "out")) == {"blanks", "new_line", "-1", "a 1", "b.jpg", "图"}
    assert len(scan_samples(load_samples(tmp_path / "out", "all")).records) == 6


def test_all_faults_are_listed_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_yolo(tmp_path / "in", *(f"{n:02}" for n in range(13)), line="7 0.5 0.5 0.25 0.4")
    (source / "images/00.jpg").write_bytes(b"")
    (source / "images/01.jpg").unlink()
    said = refusal(capsys, source, "--out", tmp_path / "out")
    warnings = [line for line in said.splitlines() if line.startswith("warning: ")]
    assert sum("class 7" in line for line in warnings) == 10
    assert "warning: … and 2 more" in warnings
    assert sum("00.jpg" in line or "labels/01.txt: no image" in line for line in warnings) == 2
    assert said.splitlines()[-1].endswith("(and 13 more, see above); fix the data or add --skip-bad")
    assert run_convert(source, "--out", tmp_path / "out", "--skip-bad") == 0
    assert "skipped: 2 images, 12 objects; clipped: 0 objects" in capsys.readouterr().out


def test_nothing_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_yolo(tmp_path / "in", "a")
    (source / "images/a.jpg").write_bytes(b"")
    said = refusal(capsys, source, "--out", tmp_path / "out", "--skip-bad")
    assert "none of the 1 images can be used" in said


def test_wanted_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_picture(tmp_path / "in/a.jpg")
    objects = [VocObject("cat", (2, 3, 10, 12)), VocObject("dog", (2, 3, 10, 12))]
    write_annotation(tmp_path / "in/a.xml", "a.jpg", 40, 30, objects)
    argv = [tmp_path / "in", "--classes", save_text(tmp_path / "classes.txt", "dog\nape\n")]
    assert "a.xml: object 1: class 'cat' is not in --classes" in refusal(
        capsys, *argv, "--out", tmp_path / "o"
    )
    assert run_convert(*argv, "--out", tmp_path / "out", "--skip-bad") == 0
    text = (tmp_path / "out/annotations/instances_all.json").read_text()
    assert '"categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "ape"}]' in text


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        ([], "SOURCE: is required"),
        (["yolo"], "--out: is required"),
        (["yolo", "--out", "yolo/voc"], "which is only read; choose a folder outside it"),
        (["yolo", "--out", "yolo"], "--out yolo: lies in yolo, which is only read"),
        (["yolo", "--out", "full"], "full: is not an empty folder"),
        (["yolo", "--out", "link"], "link: is not an empty folder"),
        (["yolo", "--out", "full/file"], "file: is not an empty folder"),
        (["yolo", "--out", "full/file/below"], "cannot make the folder: Not a directory"),
        (["yolo", "--out", "stale"], "stale.tmp: is left by a run"),
        (["yolo", "--out", "new", "--images", "gone"], "--images gone: no such folder"),
        (["yolo", "--out", "new", "--classes", "gone.txt"], "gone.txt: no such file"),
        (["gone", "--out", "new"], "gone: no such file or folder"),
        (["gone", "--from", "yolo", "--out", "new"], "gone: no such file or folder"),
        (["nothing", "--out", "new"], "nothing: not recognized"),
        (["full/file", "--out", "new"], "file: not recognized"),
        (["both", "--out", "new"], "both: looks like coco and yolo; choose one with --from"),
        (["yolo", "both/annotations/x.json", "--out", "new"], "has several formats (coco, yolo)"),
        (["yolo", "yolo", "--out", "new"], "yolo takes one SOURCE only"),
        (["yolo", "--from", "voc", "--out", "new"], "yolo: no data in VOC layout: 1 image"),
        (["yolo", "--from", "coco", "--out", "new"], "no COCO annotation file in it"),
        (["yolo", "--from", "darknet", "--out", "new"], "--from darknet: choose from coco, yolo"),
        (["yolo", "--to", "labelme", "--out", "new"], "--to labelme: choose from voc, coco, yolo"),
        (["yolo", "--to", "yolo", "--out", "new"], "--to yolo: yolo is yolo already"),
        (["yolo", "--to", "coco", "--float-boxes", "--out", "new"], "--float-boxes: is for --to voc;"),
        (["both", "--from", "coco", "--to", "coco", "--out", "new"], "--to coco: both is coco already"),
        (["yolo", "--output", "new"], "unknown flag --output"),
    ],
)
def test_usage(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    argv: list[str],
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    make_yolo(tmp_path / "yolo", "a")
    make_yolo(tmp_path / "both", "a")
    save_json(tmp_path / "both/annotations/x.json", {"images": []})
    save_text(tmp_path / "full/file", "mine")
    (tmp_path / "stale.tmp").mkdir()
    (tmp_path / "nothing").mkdir()
    (tmp_path / "link").symlink_to("nothing")
    before = snapshot(tmp_path)
    is_io = "Not a directory" in reason
    assert reason in refusal(capsys, *argv, status=1 if is_io else 2)
    assert snapshot(tmp_path) == before


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert run_convert(make_yolo(tmp_path / "in", "a"), "--out", tmp_path / "out") == 0
    assert set(boxes_of(tmp_path / "out")) == {"a"}


@pytest.mark.parametrize(
    "name", ["utils.tools.convert.shutil.copyfile", "utils.formats.voc.write_annotation"]
)
@pytest.mark.parametrize(
    ("trouble", "status"),
    [(OSError(errno.ENOSPC, "No space left on device"), 1), (KeyboardInterrupt(), 130), (MemoryError(), 1)],
)
def test_interrupted_writing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, trouble: BaseException, status: int
) -> None:
    real, calls = (shutil.copyfile if "copyfile" in name else write_annotation), []

    def fail_at_the_second(*args: object) -> object:
        calls.append(args)
        if len(calls) == 2:
            assert (tmp_path / "room/out.tmp/JPEGImages").is_dir()  # it has begun
            raise trouble
        return real(*args)  # type: ignore[arg-type]

    source = make_yolo(tmp_path / "in", "a", "b", "c")
    before = snapshot(source)
    monkeypatch.setattr(name, fail_at_the_second)
    assert run_convert(source, "--out", tmp_path / "room/out") == status
    assert list((tmp_path / "room").iterdir()) == []
    assert len(calls) == 2
    assert snapshot(source) == before
    monkeypatch.undo()
    assert run_convert(source, "--out", tmp_path / "room/out") == 0


def test_objects_of_voc_that_cannot_be_read_are_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    voc = write_voc(Path("voc"), {"train": {"a": [VocObject("cat", (2, 3, 10, 12))] * 2, "b": []}})
    xml = voc / "Annotations" / "a.xml"
    xml.write_text(xml.read_text().replace("<xmin>3", "<xmin>three", 1))
    assert data.main(["convert", "voc", "--out", "coco"]) == 2
    assert "a.xml: object 1 (cat): <xmin> is 'three', not a number" in capsys.readouterr().err
    Path("link").symlink_to("voc")
    assert data.main(["convert", "voc", "--out", "link/new", "--skip-bad"]) == 2
    assert "which is only read" in capsys.readouterr().err


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("format", ["coco", "yolo", "labelme", "list"])
def test_names_in_composed_and_decomposed_letters(tmp_path: Path, on_disk: str, format: str) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[on_disk]
    name, named = (unicodedata.normalize(form, "p\u00e4r/\u00e9") for form in (on_disk, other))
    source = tmp_path / "in"
    save_picture(source / f"{name}.jpg")
    more: list[object] = []
    if format == "coco":
        coco(source / "x.json", {"a": f"{named}.jpg"})
    elif format == "yolo":
        save_text((source / name).parent / f"{Path(named).name}.txt", yolo_line(CAT))
        save_text(source / "data.yaml", f"train: train.txt\nnames: {list(NAMES)}\n")
        save_text(source / "train.txt", f"{named}.jpg\n")
    elif format == "labelme":
        labelme(source / "x.json", CAT, f"{named}.jpg")
    else:
        source = save_text(source / "2007_train.txt", f"{named}.jpg 3,4,12,20,0\n")
        more = ["--classes", save_text(tmp_path / "classes.txt", "cat\n")]
    assert run_convert(source, *more, "--out", tmp_path / "out") == 0
    assert list(boxes_of(tmp_path / "out").values()) == [[CAT]]
