from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import data
import train
from tests.utils.data.conftest import save_picture, write_voc
from tests.utils.tools.conftest import CAT, SLIP
from utils.cli.errors import UserError
from utils.data.samples import choose_training_splits
from utils.data.voc_xml import VocObject, write_annotation


def check(*argv: str, voc: str = "voc") -> tuple[int, dict[str, Any]]:
    status = data.main(["check", "--data", voc, "--json", "report.json", *argv])
    return status, json.loads(Path("report.json").read_text(encoding="utf-8"))


def kinds(report: dict[str, Any], level: str) -> list[str]:
    return [finding["kind"] for finding in report["findings"] if finding["level"] == level]


def test_no_data_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main(["check", "--data", str(tmp_path)]) == 2
    assert f"error: {tmp_path}: no data in VOC layout" in capsys.readouterr().err


def test_nothing_wrong(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, report = check()
    assert status == 0
    assert report["findings"] == []
    assert report["splits"]["train"] == {
        "images": 6,
        "usable": 6,
        "background": 0,
        "difficult": 6,
        "objects": {"cat": 6, "dog": 6},
    }
    assert report["splits"]["val"]["background"] == 1
    out = capsys.readouterr().out
    assert out.endswith("errors: 0, warnings: 0, notes: 0\nnext: python train.py --data voc\n")
    assert ["dog", "6", "0"] in [line.split() for line in out.splitlines()]


@pytest.mark.parametrize(
    ("text", "fault"),
    [("", "the split is empty"), ("10\n../x\n", "line 2: the id '../x' is outside the data folder")],
)
def test_a_fault_of_the_only_list_is_the_only_one(voc: Path, text: str, fault: str) -> None:
    (voc / "ImageSets/Main/train.txt").unlink()
    (voc / "ImageSets/Main/val.txt").unlink()
    (voc / "ImageSets/Main/test.txt").write_text(text)
    status, report = check()
    assert status == 2
    (finding,) = report["findings"]
    assert (Path(finding["file"]).name, finding["reason"][: len(fault)]) == ("test.txt", fault)
    with pytest.raises(UserError, match=rf"test\.txt: {fault}"):
        choose_training_splits(voc)


def test_all_faults_of_all_splits_in_one_go(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("00", "01", "10"):
        (voc / "Annotations" / f"{name}.xml").write_text("<annotation>")
    write_annotation(voc / "Annotations" / "02.xml", "02.jpg", 40, 30, [CAT, SLIP])
    write_annotation(voc / "Annotations" / "11.xml", "11.jpg", 40, 30, [SLIP])
    (voc / "JPEGImages" / "03.jpg").write_bytes(b"GIF")
    xml = voc / "Annotations" / "04.xml"
    xml.write_text(xml.read_text().replace("<xmin>3", "<xmin>three").replace("<name>dog</name>", ""))
    status, report = check("--csv", "findings.csv")
    assert status == 2
    assert kinds(report, "error") == [
        *["with a broken annotation"] * 2,
        "unreadable",
        *["with a broken annotation"] * 2,
        "with a broken annotation",
        "object skipped",
    ]
    assert kinds(report, "warning") == ["object skipped", "few objects", "few objects"]
    assert [(f["object"], f["class"], f["reason"]) for f in report["findings"][3:5]] == [
        (1, "cat", "<xmin> is 'three', not a number"),
        (2, None, "no <name>"),
    ]
    assert report["findings"][6]["splits"] == ["val"]
    assert report["next"] == "next: python train.py --data voc --skip-bad"
    assert capsys.readouterr().out.endswith(f"{report['next']}\n")
    with open("findings.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["reason"] for row in rows] == [finding["reason"] for finding in report["findings"]]
    assert check("--skip-bad", "--csv", "findings.csv")[0] == 0


def test_both_files_of_an_image_are_looked_at(voc: Path) -> None:
    (voc / "Annotations" / "00.xml").write_text("")
    (voc / "JPEGImages" / "00.jpg").write_bytes(b"GIF")
    _, report = check()
    assert kinds(report, "error") == ["with a broken annotation", "unreadable"]


def test_the_list_on_the_console_is_cut_off(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = [VocObject("cat", (20, 3, 60, 12))] * 14
    write_annotation(voc / "Annotations" / "00.xml", "00.jpg", 40, 30, objects)
    status, report = check()
    assert status == 0
    assert kinds(report, "warning") == ["object clipped"] * 14
    out = capsys.readouterr().out
    assert "object clipped (warning): 14" in out
    assert out.count("partly outside") == 10
    assert "… and 4 more; --csv FILE lists all" in out


def test_broken_lists_cannot_be_skipped(voc: Path) -> None:
    (voc / "ImageSets" / "Main" / "val.txt").write_text("")
    (voc / "ImageSets" / "Main" / "test.txt").write_bytes(b"\xff\0")
    status, report = check("--skip-bad")
    assert status == 2
    assert kinds(report, "error") == ["split list"] * 2
    assert report["next"].startswith("fix the lists")
    assert check("--split", "train")[0] == 0


def test_class_names_that_are_alike_and_their_repair(voc: Path) -> None:
    for n, name in enumerate(("Cat", "cat ", "c at", "bird")):
        write_annotation(
            voc / "Annotations" / f"0{n}.xml", f"0{n}.jpg", 40, 30, [VocObject(name, (2, 3, 10, 12))]
        )
    status, report = check()
    assert status == 0
    (alike,) = [f["reason"] for f in report["findings"] if f["kind"] == "class names alike"]
    rename = "--rename Cat=cat 'c at=cat'"
    listed = "'cat' (4), 'Cat' (1), 'c at' (1)"
    assert alike == f"{listed} differ only in case, blanks or dashes; merge them: {rename}"
    assert report["next"] == f"next: python train.py --data voc {rename}"
    status, report = check("--rename", "Cat=cat", "c at=cat")
    assert report["splits"]["train"]["objects"] == {"bird": 1, "cat": 5, "dog": 2}
    assert "class names alike" not in kinds(report, "warning")
    assert [f["reason"] for f in report["findings"]] == [
        "class 'bird': 1 object to train on, fewer than 5, such as in 03.jpg",
        "class 'dog': 2 objects to train on, fewer than 5, such as in 04.jpg",
    ]


def test_a_rename_of_no_class(voc: Path) -> None:
    status, report = check("--rename", "mouse=rat", "c at=cat", "dog=cat")
    assert status == 0
    assert [(f["kind"], f["reason"]) for f in report["findings"]] == [
        ("unknown class in --rename", "--rename mouse=rat: no object is called mouse"),
        ("unknown class in --rename", "--rename 'c at=cat': no object is called c at"),
    ]


@pytest.mark.slow
def test_rename_merges_classes_in_training(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--data", "voc", "--rename", "dog=cat", "mouse=rat", "--weights", "none", "--imgsz", "32"]
    assert train.main([*argv, "--epochs", "1", "--batch-size", "3", "--workers", "0", "--mosaic", "0"]) == 0
    err = capsys.readouterr().err
    assert "train (train): 6 images, 12 objects: cat 12" in err
    assert "warning: --rename mouse=rat: no object is called mouse" in err
    assert "warning: --rename mouse=cat" not in err
    assert "--data voc --rename dog=cat mouse=rat" in err  # of the evaluation to type next


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        (["cat"], "write OLD=NEW"),
        (["=cat"], "write OLD=NEW"),
        (["a=b", "a=c"], "a is already renamed to b"),
        (["a=b", "b=c"], "b is itself renamed; write a=c"),
        (["a=b", "b=c", "c= d e"], "b is itself renamed; write 'a=d e'"),
        (["a=b", "b=a"], "--rename a=b: b is itself renamed; a swap needs another name, such as a=b_2"),
        (["x=a", "a=b", "b=a"], "a is itself renamed; a swap needs another name, such as x=a_2"),
    ],
)
def test_renames_that_make_no_sense(
    voc: Path, pairs: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert data.main(["check", "--data", "voc", "--rename", *pairs]) == 2
    assert reason in capsys.readouterr().err


def test_classes_of_val_that_training_lacks(voc: Path) -> None:
    write_annotation(voc / "Annotations" / "10.xml", "10.jpg", 40, 30, [VocObject("zebra", (2, 3, 10, 12))])
    status, report = check()
    assert status == 0
    (finding,) = report["findings"]
    assert (finding["kind"], finding["class"], finding["splits"]) == ("unknown class", "zebra", ["val"])


def test_a_trainval_beside_train_and_val_says_nothing_of_what_is_learnt(voc: Path) -> None:
    write_annotation(voc / "Annotations" / "10.xml", "10.jpg", 40, 30, [VocObject("zebra", (2, 3, 10, 12))])
    lists = voc / "ImageSets/Main"
    both = (lists / "train.txt").read_text() + (lists / "val.txt").read_text()
    (lists / "trainval.txt").write_text(both)
    status, report = check()
    assert status == 0
    (finding,) = report["findings"]
    assert (finding["kind"], finding["class"]) == ("unknown class", "zebra")


def test_only_unknown_classes(voc: Path) -> None:
    Path("classes.txt").write_text("zebra\n")
    status, report = check("--classes", "classes.txt")
    assert status == 2
    assert kinds(report, "error") == ["nothing to learn"]
    assert check("--classes", "missing.txt")[1]["findings"][0]["kind"] == "class names"


def test_anchors_are_checked_too(voc: Path) -> None:
    Path("anchors.txt").write_text("10,14, 23,27, 37,58, 81,82, 135,169, 344,319")
    assert check("--anchors", "anchors.txt")[0] == 0
    Path("anchors.txt").write_text("10,14, 23")
    status, report = check("--anchors", "anchors.txt", "--skip-bad")
    assert status == 2
    assert [(f["kind"], f["file"]) for f in report["findings"]] == [("anchors", "anchors.txt")]


def test_duplicates_across_and_within_splits(voc: Path) -> None:
    images = voc / "JPEGImages"
    shutil.copy(images / "00.jpg", images / "10.jpg")
    Image.open(images / "01.jpg").save(images / "11.jpg", quality=60)
    shutil.copy(images / "02.jpg", images / "03.jpg")
    status, report = check()
    assert status == 0
    exact, near, within = report["findings"]
    assert (exact["kind"], exact["file"]) == ("exact duplicate across splits", "voc/JPEGImages/10.jpg")
    assert exact["reason"] == "in val, is the same file as voc/JPEGImages/00.jpg in train"
    assert (near["kind"], near["file"]) == ("near duplicate across splits", "voc/JPEGImages/11.jpg")
    assert (within["level"], within["reason"]) == ("note", "train has 1 group of near-duplicate images")


def test_duplicates_name_the_split_that_the_table_names(voc: Path) -> None:
    (voc / "ImageSets/Main/train.txt").rename(voc / "ImageSets/Main/trainval.txt")
    (voc / "ImageSets/Main/val.txt").rename(voc / "ImageSets/Main/test.txt")
    shutil.copy(voc / "JPEGImages/00.jpg", voc / "JPEGImages/10.jpg")
    shutil.copy(voc / "JPEGImages/02.jpg", voc / "JPEGImages/03.jpg")
    across, within = check()[1]["findings"]
    assert across["reason"] == "in test, is the same file as voc/JPEGImages/00.jpg in trainval"
    assert within["reason"] == "trainval has 1 group of near-duplicate images"


def test_an_image_in_two_splits(voc: Path) -> None:
    lists = voc / "ImageSets" / "Main"
    (lists / "test.txt").write_text("11\n00\n")
    (lists / "trainval.txt").write_text((lists / "train.txt").read_text() + (lists / "val.txt").read_text())
    _, report = check()
    shared = [finding["reason"] for finding in report["findings"] if finding["kind"] == "in two splits"]
    assert shared == [
        "train and test share 1 image, such as 00",
        "val and test share 1 image, such as 11",
        "trainval and test share 2 images, such as 00",
    ]


def test_what_stands_in_no_list(voc: Path) -> None:
    save_picture(voc / "JPEGImages" / "77.jpg", 40, 30, 77)
    write_annotation(voc / "Annotations" / "88.xml", "88.jpg", 40, 30, [])
    _, report = check()
    assert [finding["reason"] for finding in report["findings"]] == [
        "1 image in no list, such as JPEGImages/77.jpg",
        "1 annotation without image, such as Annotations/88.xml",
    ]


def test_lists_of_one_class_are_left_out(voc: Path) -> None:
    lists = voc / "ImageSets" / "Main"
    (lists / "cat_train.txt").write_text("00  1\n01 -1\n")
    (lists / "rainy_train.txt").write_text("00\n")
    assert list(check()[1]["splits"]) == ["train", "val", "rainy_train"]


def test_pictures_turned_by_exif_are_noted(voc: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((40, 30), 50).save(voc / "JPEGImages" / "00.jpg", exif=exif)
    _, report = check()
    (finding,) = report["findings"]
    assert (finding["level"], finding["kind"]) == ("note", "rotated by EXIF")


def test_decoding_finds_what_headers_hide(voc: Path) -> None:
    image = voc / "JPEGImages" / "00.jpg"
    Image.effect_noise((40, 30), 60).save(image, format="PNG")
    content = bytearray(image.read_bytes())
    content[len(content) // 2] ^= 1
    image.write_bytes(content)
    assert check()[0] == 0
    assert check("--decode")[0] == 2
    assert check()[0] == 2  # not forgotten


@pytest.mark.parametrize("flag", ["--json", "--csv"])
def test_a_report_that_cannot_be_written(voc: Path, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main(["check", "--data", "voc", flag, "nowhere/file"]) == 2
    assert f"{flag} nowhere/file" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--json", "--csv"])
@pytest.mark.parametrize("name", ["Annotations/00.xml", "JPEGImages/00.jpg", "ImageSets/Main/train.txt"])
def test_a_report_never_replaces_data(
    voc: Path, flag: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (voc / name).read_bytes()
    assert data.main(["check", "--data", "voc", flag, f"voc/{name}"]) == 2
    assert f"error: {flag} voc/{name}: exists and is no" in capsys.readouterr().err
    assert (voc / name).read_bytes() == before


def test_two_reports_need_two_files(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main(["check", "--data", "voc", "--json", "x", "--csv", "./x"]) == 2
    assert "--csv ./x: is also the file of --json; name another" in capsys.readouterr().err


def test_flat_folder(voc: Path) -> None:
    write_voc(Path("tmp"), {"train": {"a": [CAT], "b": [CAT]}})
    flat = Path("flat")
    for part, name in (("train", "a"), ("valid", "b")):
        (flat / part).mkdir(parents=True)
        shutil.copy(f"tmp/JPEGImages/{name}.jpg", flat / part)
        shutil.copy(f"tmp/Annotations/{name}.xml", flat / part)
    save_picture(flat / "train" / "without.jpg", 40, 30, 5)
    status, report = check(voc="flat")
    assert status == 0
    assert list(report["splits"]) == ["train", "valid"]
    assert [finding["kind"] for finding in report["findings"]] == ["split list", "few objects"]
    assert check("--unlabelled", "background", voc="flat")[1]["splits"]["train"]["background"] == 1


def test_an_image_of_both_lists_is_learnt_from_and_held_to_the_stricter_rule(voc: Path) -> None:
    lists = voc / "ImageSets" / "Main"
    (lists / "train.txt").rename(lists / "trainval.txt")
    with open(lists / "trainval.txt", "a") as file:
        file.write("10\n11\n")
    write_annotation(
        voc / "Annotations" / "10.xml", "10.jpg", 40, 30, [VocObject("zebra", (2, 3, 10, 12)), SLIP]
    )
    _, report = check()
    assert kinds(report, "error") == ["object skipped"]
    assert [f["reason"] for f in report["findings"] if f["kind"] == "few objects"] == [
        "class 'zebra': 1 object to train on, fewer than 5, such as in 10.jpg"
    ]
    assert "unknown class" not in kinds(report, "warning")


def test_no_object_anywhere_though_train_and_val_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where check leaves its report
    images: dict[str, list[VocObject]] = {"a": [], "b": []}
    same = write_voc(tmp_path / "same", {"train": images, "val": images})
    assert check(voc=str(same))[0] == 2


@pytest.mark.parametrize("split", ["train", "val"])
def test_skip_bad_is_no_help_where_no_image_is_left(voc: Path, split: str) -> None:
    for name in (voc / "ImageSets" / "Main" / f"{split}.txt").read_text().split():
        (voc / "JPEGImages" / f"{name}.jpg").write_bytes(b"")
    status, report = check("--skip-bad")
    assert status == 2
    assert "no image left" in kinds(report, "error")


def test_alike_names_are_seen_across_splits_and_renames_are_joined(voc: Path) -> None:
    write_annotation(voc / "Annotations" / "10.xml", "10.jpg", 40, 30, [VocObject("Cat", (2, 3, 10, 12))])
    assert check()[1]["next"].endswith("--rename Cat=cat")
    write_annotation(voc / "Annotations" / "00.xml", "00.jpg", 40, 30, [VocObject("kitten", (2, 3, 10, 12))])
    assert check("--rename", "kitten=Cat")[1]["next"].endswith("--rename kitten=cat Cat=cat")
