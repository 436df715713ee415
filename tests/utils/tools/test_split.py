from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

import data
from tests.file_size_limit import file_size_limit
from tests.layout_folders import Layout, in_folders, side_by_side
from tests.utils.data.conftest import write_voc
from utils.cli.errors import UserError
from utils.data.samples import DataFolder, choose_training_splits, load_samples
from utils.data.voc_xml import VocObject
from utils.tools import split

BOX = (2.0, 3.0, 10.0, 12.0)
LISTS = Path("voc/ImageSets/Main")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make(images: dict[str, str], folder: str = "voc") -> Path:
    """Write a folder without lists: {id: names of its objects, one letter each}."""
    objects = {image_id: [VocObject(name, BOX) for name in names] for image_id, names in images.items()}
    write_voc(Path(folder), {"train": objects})
    shutil.rmtree(Path(folder, "ImageSets"))
    return Path(folder)


def usual() -> Path:
    return make({f"{n:02}": "ab" if n % 4 == 0 else "a" for n in range(40)})


def run(*argv: str) -> int:
    return data.main(["split", "--data", "voc", *argv])


def ids_of(name: str) -> list[str]:
    return (LISTS / f"{name}.txt").read_text().splitlines()


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# Refused.


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["--val", "0", "--test", "0"], "nothing to split"),
        (["--val", "0.5", "--test", "0.5"], "no images are left for training"),
        (["--val", "-0.1"], "--val -0.1"),
        (["--group-by", "("], "--group-by (: not a regular expression"),
        (["--data", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_bad_flags(capsys: pytest.CaptureFixture[str], argv: list[str], reason: str) -> None:
    before = tree(usual())
    assert run(*argv) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert reason in line
    assert tree(Path("voc")) == before


@pytest.mark.parametrize("folder", ["ImageSets/Main", "ImageSets/main", "ImageSets", ""])
@pytest.mark.parametrize("name", ["train", "val", "trainval", "Validation"])
def test_existing_lists_are_named(capsys: pytest.CaptureFixture[str], name: str, folder: str) -> None:
    path = usual() / folder / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("00\n")
    before = tree(Path("voc"))
    assert run("--test", "0") == 2
    named = path.relative_to("voc")
    assert f"voc: is split already ({named}); to split anew, move or delete" in capsys.readouterr().err
    assert tree(Path("voc")) == before


@pytest.mark.parametrize(
    ("images", "named"),
    [
        (
            in_folders("images/train", "annotations/train", "a") | {"images/val/b.jpg": None},
            "images/train/, images/val/",
        ),
        (
            in_folders("train/images", "train/xml", "a") | in_folders("val/images", "val/xml", "b"),
            "train/, val/",
        ),
        (side_by_side("a.jpg", "valid/b.jpg"), "valid/"),
        (
            in_folders("train/images", "train/xml", "a") | in_folders("test/images", "test/xml", "b"),
            "test/, train/",
        ),
    ],
)
def test_existing_folders_are_named(
    capsys: pytest.CaptureFixture[str], images: dict[str, str | None], named: str
) -> None:
    before = tree(Layout(images, {}).write(Path("voc")))
    assert run() == 2
    assert f"voc: is split already ({named}); to split anew, move" in capsys.readouterr().err
    assert tree(Path("voc")) == before


@pytest.mark.parametrize(
    "test", ["ImageSets/Main/test.txt", "ImageSets/main/test.txt", "ImageSets/test.txt", "test.txt"]
)
def test_a_test_list_is_kept_and_the_others_are_divided(
    capsys: pytest.CaptureFixture[str], test: str
) -> None:
    path = usual() / test
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("00\n01.jpg\n")
    before = tree(Path("voc"))
    assert run("--val", "0.5") == 0
    assert f"test: keeps the 2 images of voc/{test}; the others are divided" in capsys.readouterr().out
    after = tree(Path("voc"))
    assert {file: after[file] for file in before} == before
    assert set(after) - set(before) == {str(path.parent / f"{n}.txt") for n in ("train", "val", "trainval")}
    found = {
        split: {s.image_id for s in load_samples("voc", split)} for split in DataFolder("voc").list_splits()
    }
    assert {split: len(ids) for split, ids in found.items()} == {
        "train": 19,
        "val": 19,
        "trainval": 38,
        "test": 2,
    }
    assert found["test"] == {"00", "01"}
    assert not found["trainval"] & found["test"]


@pytest.mark.parametrize(
    "images",
    [side_by_side("a.jpg", "b.jpg", "test/c.jpg"), in_folders("images", "annotations", "a", "b", "test/c")],
)
def test_a_test_folder_is_kept(images: dict[str, str | None], capsys: pytest.CaptureFixture[str]) -> None:
    Layout(images, {}).write(Path("voc"))
    assert run("--val", "0.5") == 0
    assert "test: keeps the 1 image of " in capsys.readouterr().out
    assert (ids_of("test"), ids_of("trainval")) == (["test/c"], ["a", "b"])
    assert data.main(["check", "--data", "voc"]) == 0


def test_nothing_beside_a_test_list(capsys: pytest.CaptureFixture[str]) -> None:
    make({"a": "a", "b": "a"})
    Path("voc/test.txt").write_text("a\nb\n")
    assert run() == 2
    assert "voc/test.txt: is the test part already; nothing is left to split" in capsys.readouterr().err


def test_several_years_are_split_one_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    for year in ("VOC2007", "VOC2012"):
        make({"a": "a"}, f"devkit/{year}")
    assert data.main(["split", "--data", "devkit"]) == 2
    assert "--data devkit/VOC2007 or --data devkit/VOC2012" in capsys.readouterr().err
    Path("devkit/VOC2007/train.txt").write_text("a\n")
    assert data.main(["split", "--data", "devkit"]) == 2
    assert "split one at a time: --data devkit/VOC2012\n" in capsys.readouterr().err


def test_a_flat_folder_gets_lists() -> None:
    Layout(side_by_side("a.jpg", "b.jpg"), {}).write(Path("voc"))
    assert run("--val", "0.5", "--test", "0") == 0
    assert sorted(ids_of("train") + ids_of("val")) == ["a", "b"]
    assert choose_training_splits("voc") == (("train",), ("val",))


def test_no_images_and_too_few(capsys: pytest.CaptureFixture[str]) -> None:
    make({})
    assert run() == 2
    shutil.rmtree("voc")
    make({"a": "a", "b": "a"})
    assert run() == 2
    assert "too few for 3 parts" in capsys.readouterr().err
    assert not LISTS.exists()
    assert run("--test", "0", "--val", "0.5") == 0
    assert sorted(ids_of("train") + ids_of("val")) == ["a", "b"]


def test_faulty_images_stop_or_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    usual()
    Path("voc/JPEGImages/07.jpg").write_bytes(b"no picture")
    assert run() == 2
    assert "07.jpg" in capsys.readouterr().err
    assert not LISTS.exists()
    assert run("--skip-bad") == 0
    assert len(ids_of("trainval") + ids_of("test")) == 39
    assert "07" not in ids_of("trainval") + ids_of("test")


def test_a_failure_leaves_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(usual())
    with file_size_limit(100):  # train.txt has 96 bytes, trainval.txt 108
        assert run() == 1
    assert tree(Path("voc")) == before
    with file_size_limit(9), pytest.raises(UserError):
        split.write_lists(LISTS, {"train": ["a"], "test": ["b" * 9]})
    assert not list(LISTS.iterdir())


# Lists.


def test_lists_table_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(usual())
    assert run("--val", "0.1", "--test", "0.2") == 0
    lists = {name: ids_of(name) for name in ("train", "val", "test", "trainval")}
    assert {name: len(ids) for name, ids in lists.items()} == {
        "train": 28,
        "val": 4,
        "test": 8,
        "trainval": 32,
    }
    assert all(ids == sorted(ids) for ids in lists.values())
    assert sorted(lists["train"] + lists["val"]) == lists["trainval"]
    assert sorted(lists["trainval"] + lists["test"]) == [f"{n:02}" for n in range(40)]
    after = tree(Path("voc"))
    assert {path: after[path] for path in before} == before
    assert set(after) - set(before) == {str(LISTS / f"{name}.txt") for name in lists}
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["a", "28", "28", "4", "4", "8", "8"] in rows
    assert ["b", "7", "7", "1", "1", "2", "2"] in rows
    assert ["all", "28", "35", "4", "5", "8", "10"] in rows
    assert rows[-1] == ["next:", "python", "train.py", "--data", "voc"]
    assert choose_training_splits("voc") == (("train",), ("val",))


def test_the_seed_decides() -> None:
    usual()
    draws = []
    for seed in ("0", "0", "1"):
        assert run("--seed", seed) == 0
        draws.append(tuple(ids_of("test")))
        shutil.rmtree(LISTS)
    assert draws[0] == draws[1] != draws[2]


def test_near_duplicates_stay_together(capsys: pytest.CaptureFixture[str]) -> None:
    folder = usual()
    for copy in ("04", "05", "21"):
        shutil.copy(folder / "JPEGImages/00.jpg", folder / f"JPEGImages/{copy}.jpg")
    for seed in range(5):
        assert run("--seed", str(seed), "--test", "0.3") == 0
        parts = [set(ids_of(name)) & {"00", "04", "05", "21"} for name in ("train", "val", "test")]
        assert sorted(map(len, parts)) == [0, 0, 4]
        shutil.rmtree(LISTS)
    assert "40 images, 4 of them in 1 group that stay together" in capsys.readouterr().out


@pytest.mark.parametrize("pattern", ["^(cam\\d)_", "^cam\\d"])
def test_names_group_too_and_both_ways_are_joined(capsys: pytest.CaptureFixture[str], pattern: str) -> None:
    cameras = {f"cam{n}_{k}": "a" for n in range(8) for k in range(4)}
    folder = make(cameras | {f"single{n}": "a" for n in range(6)})
    shutil.copy(folder / "JPEGImages/cam0_0.jpg", folder / "JPEGImages/single3.jpg")
    assert run("--group-by", pattern, "--val", "0.2", "--test", "0.2") == 0
    part_of = {image_id: name for name in ("train", "val", "test") for image_id in ids_of(name)}
    for n in range(8):
        assert len({part_of[f"cam{n}_{k}"] for k in range(4)}) == 1
    assert part_of["single3"] == part_of["cam0_0"]
    assert len(set(part_of.values())) == 3
    assert "33 of them in 8 groups" in capsys.readouterr().out


def test_a_pattern_that_matches_nothing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    usual()
    assert run("--group-by", "frame") == 0
    assert "--group-by frame: matches no file name, such as 00.jpg" in capsys.readouterr().err


def test_what_cannot_be_balanced_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    make({f"{n:02}": "a" for n in range(20)} | {"once": "b", "one": "c", "two": "c"})
    assert run() == 0
    out = capsys.readouterr().out
    assert "not balanced: b: its only image is in train" in out
    assert "not balanced: c: val has 0 of 2 images" in out
    assert "the images are in" not in out  # each image is a group of its own
    assert "once" in ids_of("train")


def test_classes_whose_images_stay_together_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    make({f"{n:02}": "a" for n in range(20)} | {"cam_1": "b", "cam_2": "b", "cam_3": "c"})
    assert run("--group-by", "^(cam)_", "--test", "0") == 0
    out = capsys.readouterr().out
    assert "23 images, 3 of them in 1 group that stay together" in out
    assert "not balanced: b: all its 2 images stay together, in train" in out
    assert "not balanced: c: its only image is in train" in out


def test_pictures_that_all_look_alike_are_divided_and_nothing_else_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual()
    monkeypatch.setattr(split, "group_near_duplicates", lambda hashes: [list(range(len(hashes)))])
    assert run("--val", "0.2", "--test", "0.2") == 0
    out, err = capsys.readouterr()
    assert "near-duplicates are not kept together" in err
    assert "40 images, each a group of its own" in out
    assert "stay together" not in out
    assert len(ids_of("val")) == 8
