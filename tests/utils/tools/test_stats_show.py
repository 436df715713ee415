from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

import data
from tests.utils.data.conftest import write_voc
from tests.utils.tools.conftest import CAT, DOG
from utils.data.voc_xml import VocObject, write_annotation
from utils.tools import show as show_tool


def test_stats_of_data_without_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main(["stats", "--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: no data in VOC layout")


@pytest.mark.slow
def test_stats_count_in_network_pixels(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images of 40 x 30 grow tenfold: the cat of 8 x 9 is medium at 400 and small at 64 pixels."""
    assert data.main(["stats", "--data", "voc", "--imgsz", "416"]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert ["cat", "6", "6", "0", "0", "6", "0", "83", "x", "94"] in rows
    assert ["dog", "6", "6", "6", "0", "0", "6", "416", "x", "312"] in rows
    assert "6 images of 40x30 to 40x30, median 40x30" in out
    assert "2.0 objects per image, at most 2; 0 images without objects" in out
    assert "--imgsz 416 416: 25% stays gray; --imgsz 352 480 costs about the same: 2%" in out
    assert out.endswith("next: python data.py anchors --data voc\n")
    assert Image.open("runs/stats/exp/labels.png").format == "PNG"
    assert Path("runs/stats/exp/args.yaml").is_file()
    assert data.main(["stats", "--data", "voc", "--imgsz", "64", "--split", "val", "--name", "v"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["cat", "1", "1", "0", "1", "0", "0", "13", "x", "14"] in rows
    assert Path("runs/stats/v/labels.png").is_file()


def test_stats_without_objects(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_voc(Path("empty"), {"train": {"a": []}})
    assert data.main(["stats", "--data", "empty"]) == 0
    assert "0.0 objects per image" in capsys.readouterr().out


def test_show_draws_the_boxes(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main(["show", "--data", "voc"]) == 0
    out = capsys.readouterr().out
    assert "runs/show/exp/sheet0.jpg" in out
    assert out.endswith("next: python train.py --data voc\n")
    page = Image.open("runs/show/exp/sheet0.jpg").convert("RGB")
    assert page.width > 4 * 416
    assert page.height > 2 * 312
    write_annotation(voc / "Annotations" / "00.xml", "00.jpg", 40, 30, [])
    assert data.main(["show", "--data", "voc", "--name", "changed"]) == 0
    assert Image.open("runs/show/changed/sheet0.jpg").convert("RGB").tobytes() != page.tobytes()


def test_show_goes_over_several_sheets_and_the_seed_draws(voc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    real = show_tool.draw_cell
    monkeypatch.setattr(show_tool, "draw_cell", lambda *a: drawn.append(a[3]) or real(*a))
    write_voc(Path("many"), {"train": {f"{n:02}": [CAT if n % 2 else DOG] for n in range(40)}})

    def show(*argv: str) -> list[str]:
        drawn.clear()
        assert data.main(["show", "--data", "many", *argv]) == 0
        return list(drawn)

    first = show("--count", "33")
    assert len(first) == len(set(first)) == 33
    assert first == sorted(first)
    assert sorted(path.name for path in Path("runs/show/exp").glob("*.jpg")) == [
        f"sheet{n}.jpg" for n in range(3)
    ]
    assert show("--count", "8") == show("--count", "8") != show("--count", "8", "--seed", "1")
    assert {int(name) % 2 for name in show("--only", "cat", "--count", "40")} == {1}
    assert show("--ids", "07", "03") == ["07", "03"]


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--only", "zebra"], "--only zebra: no such class; choose from cat, dog"),
        (["--ids", "99"], "--ids 99: no such image"),
        (["--ids", "00", "--only", "cat"], "--ids cannot be combined with --only"),
        (["--count", "0"], "--count 0"),
    ],
)
def test_what_cannot_be_shown(
    voc: Path, argv: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert data.main(["show", "--data", "voc", *argv]) == 2
    assert named in capsys.readouterr().err


def test_a_class_of_the_list_that_no_image_shows(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("classes.txt").write_text("cat\ndog\nzebra\n")
    assert data.main(["show", "--data", "voc", "--classes", "classes.txt", "--only", "zebra"]) == 2
    assert "no image has such an object" in capsys.readouterr().err


@pytest.mark.slow
def test_broken_data_stop_unless_they_are_skipped(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (voc / "Annotations" / "00.xml").write_text("")
    write_annotation(voc / "Annotations" / "01.xml", "01.jpg", 40, 30, [VocObject("cat", (9, 9, 10, 10))])
    assert data.main(["stats", "--data", "voc"]) == 2
    assert "00.xml: the file is empty" in capsys.readouterr().err
    assert data.main(["stats", "--data", "voc", "--skip-bad"]) == 0
    assert ["cat", "4", "4"] in [line.split()[:3] for line in capsys.readouterr().out.splitlines()]


def test_a_class_is_found_in_either_form_of_unicode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_voc(Path("voc"), {"train": {"a": [VocObject("caf\u00e9", (0, 0, 20, 20))]}})
    assert data.main(["show", "--data", "voc", "--only", "cafe\u0301"]) == 0


def test_a_line_break_in_the_name_of_an_image_is_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_voc(Path("voc"), {"train": {"a\nb": [CAT], "c": [CAT]}})
    shutil.rmtree(folder / "ImageSets")  # whose lists have a line for each image
    assert data.main(["show", "--data", "voc"]) == 0
    assert Path("runs/show/exp/sheet0.jpg").is_file()
