from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.utils.data.conftest import MakeVoc
from utils.cli.errors import UserError
from utils.data.samples import DataFolder, choose_evaluation_splits, choose_training_splits, load_samples
from utils.data.voc_xml import VocObject

CAT = VocObject("cat", (2, 3, 10, 12))


def ids(data: Path, split: str, **options: str) -> list[str]:
    return [sample.image_id for sample in load_samples(data, split, **options)]


def flatten(voc: Path, flat: Path) -> Path:
    """Copy images and XML of a VOC folder side by side, as labelImg leaves them."""
    flat.mkdir(parents=True)
    for path in [*(voc / "JPEGImages").iterdir(), *(voc / "Annotations").iterdir()]:
        shutil.copy(path, flat)
    return flat


def test_no_data_names_the_layouts_and_the_demo(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone: no such folder, relative to the current folder /"):
        DataFolder("gone").list_splits()
    for folder in (tmp_path, tmp_path / "VOCdevkit"):
        for look in (DataFolder, choose_training_splits, choose_evaluation_splits):
            with pytest.raises(UserError, match=r"Annotations/, JPEGImages/.*--demo"):
                look(folder)
        with pytest.raises(UserError, match="--demo"):
            load_samples(folder, "train")


def test_one_voc_folder(make_voc: MakeVoc) -> None:
    voc = make_voc({"train": {"b": [CAT], "a": []}, "val": {"c": [CAT]}})
    assert DataFolder(voc).list_splits() == ["train", "val"]
    assert ids(voc, "train") == ["b", "a"]
    sample = load_samples(voc, "val")[0]
    assert sample.image_path == voc / "JPEGImages" / "c.jpg"
    assert sample.xml_path == voc / "Annotations" / "c.xml"


def test_devkit(make_voc: MakeVoc, tmp_path: Path) -> None:
    kit = tmp_path / "VOCdevkit"
    make_voc({"trainval": {"a": [CAT]}, "test": {"b": [CAT]}}, kit / "VOC2007")
    make_voc({"trainval": {"a": [CAT]}}, kit / "VOC2012")
    assert DataFolder(kit).list_splits() == ["VOC2007/test", "VOC2007/trainval", "VOC2012/trainval"]
    assert ids(kit, "VOC2007/trainval") + ids(kit, "VOC2012/trainval") == ["VOC2007/a", "VOC2012/a"]
    with pytest.raises(UserError, match=r"no split 'trainval'.*VOC2007/trainval"):
        load_samples(kit, "trainval")
    with pytest.raises(UserError, match="no split"):
        load_samples(kit, "../VOCdevkit/VOC2007/trainval")


def test_flat_folder(make_voc: MakeVoc, tmp_path: Path) -> None:
    flat = flatten(make_voc({"x": {"b": [CAT], "a": [], "c": []}}), tmp_path / "flat")
    (flat / "c.xml").unlink()
    assert DataFolder(flat).list_splits() == ["all"]
    assert ids(flat, "all") == ["a", "b"]
    assert ids(flat, "all", unlabelled="background") == ["a", "b", "c"]
    assert load_samples(flat, "all", unlabelled="background")[2].xml_path is None


def test_flat_folder_with_splits(make_voc: MakeVoc, tmp_path: Path) -> None:
    flatten(make_voc({"x": {"a": [CAT]}}, tmp_path / "one"), tmp_path / "flat" / "train")
    flatten(make_voc({"x": {"a": [CAT]}}, tmp_path / "two"), tmp_path / "flat" / "valid")
    assert DataFolder(tmp_path / "flat").list_splits() == ["train", "valid"]
    assert ids(tmp_path / "flat", "train") + ids(tmp_path / "flat", "valid") == ["train/a", "valid/a"]
    assert ids(tmp_path / "flat", "val") == ["valid/a"]
    assert choose_training_splits(tmp_path / "flat") == (("train",), ("valid",))


@pytest.mark.parametrize(
    ("splits", "named", "expected"),
    [
        ([], None, (("all",), ())),
        (["trainval"], None, (("trainval",), ())),
        (["train"], None, (("train",), ())),
        (["train", "val", "trainval", "test"], None, (("train",), ("val",))),
        (["train", "test"], None, (("train",), ())),
        (["train", "val", "trainval", "test"], ["train"], (("train",), ("val",))),
        (["train", "val", "trainval", "test"], ["trainval"], (("trainval",), ())),
        (["train", "val", "test"], ["train", "val"], (("train", "val"), ())),  # a tenth of both is held out
    ],
)
def test_training_defaults(
    make_voc: MakeVoc,
    splits: list[str],
    named: list[str] | None,
    expected: tuple[tuple[str, ...], tuple[str, ...]],
) -> None:
    assert choose_training_splits(make_voc({name: {"a": [CAT]} for name in splits}), named) == expected


def test_a_test_list_is_never_trained_on(make_voc: MakeVoc) -> None:
    with pytest.raises(UserError, match="add images that no test list names"):
        choose_training_splits(make_voc({"test": {"a": [CAT]}}))


@pytest.mark.parametrize(
    ("splits", "expected"), [(["train", "val"], ("val",)), (["train", "val", "test"], ("test",))]
)
def test_evaluation_defaults(make_voc: MakeVoc, splits: list[str], expected: tuple[str, ...]) -> None:
    assert choose_evaluation_splits(make_voc({name: {"a": [CAT]} for name in splits})) == expected


def test_evaluation_needs_a_list(make_voc: MakeVoc) -> None:
    with pytest.raises(UserError, match="choose with --split: train"):
        choose_evaluation_splits(make_voc({"train": {"a": [CAT]}}))


@pytest.mark.parametrize(
    "content",
    ["a\nb b\n", "a", "\ufeffa\r\n\r\n  b b  \r\n", "a  1\nb b -1\n", "a.jpg\nb b.JPG\n", "a\t1\n", "a\na\n"],
)
def test_lists_are_read_leniently(make_voc: MakeVoc, content: str) -> None:
    voc = make_voc({"train": {"a": [CAT], "b b": [CAT]}})
    (voc / "ImageSets" / "Main" / "train.txt").write_bytes(content.encode())
    assert ids(voc, "train") == (["a", "b b"] if "b b" in content else ["a"])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('"cam0/a"', "cam0/a"),
        ("'b b'", "b b"),
        ('"b b" 1', "b b"),
        ("cam0/a.jpg", "cam0/a"),
        ("./cam0/a", "cam0/a"),
        ("cam0\\a.jpg", "cam0/a"),
        ("a.xml", "a"),
        ("JPEGImages/cam0/a.jpg Annotations/cam0/a.xml", "cam0/a"),
        ("JPEGImages/b b.jpg\tAnnotations/b b.xml", "b b"),
        ('"JPEGImages/a.jpg" "Annotations/a.xml"', "a"),
        ("images/a.jpg", "a"),
        ("VOC2007/JPEGImages/a.jpg", "a"),
        ("/home/x/VOC2007/JPEGImages/cam0/a.jpg", "cam0/a"),
        ("/home/x/only.jpg", "cam0/only"),
        ("D:\\data\\only.JPG", "cam0/only"),
        ("only", "cam0/only"),
        ("CAM0/A", "cam0/a"),
        ("Annotations/b b.xml", "b b"),
        ("Annotations/cam0/a.xml", "cam0/a"),
        ("data/b b.jpg", "b b"),
        ("data/train/cam0/a.jpg", "cam0/a"),
        ("DATA/CAM0/A.jpg", "cam0/a"),
        ("cam9/only.jpg", None),  # not only.jpg of cam0
        ("data/gone.jpg", None),
        ("cam1/a", None),  # not a.jpg of another folder
        ("twin", None),  # in two folders
        ("gone.jpg", None),
    ],
)
def test_lines_of_other_tools(make_voc: MakeVoc, line: str, expected: str | None) -> None:
    voc = make_voc({"train": {"a": [CAT], "b b": [CAT]}})
    for place in ("JPEGImages/{}.jpg", "Annotations/{}.xml"):
        for name in ("cam0/a", "cam0/only", "cam0/twin", "cam1/twin"):
            target = voc / place.format(name)
            target.parent.mkdir(exist_ok=True)
            shutil.copy(voc / place.format("a"), target)
    (voc / "ImageSets" / "Main" / "train.txt").write_text(f"{line}\n")
    (sample,) = load_samples(voc, "train")
    if expected is None:
        assert "no image with this id" in sample.problem
    else:
        assert (sample.image_id, sample.problem) == (expected, "")
        assert sample.image_path == voc / "JPEGImages" / f"{expected}.jpg"
        assert sample.xml_path == voc / "Annotations" / f"{expected}.xml"


def test_a_line_that_is_no_id_is_named(make_voc: MakeVoc) -> None:
    voc = make_voc({"train": {"a": [CAT]}})
    (voc / "ImageSets/Main/train.txt").write_text("\n# my list\na\na # the first\n")
    problems = {sample.image_id: sample.problem for sample in load_samples(voc, "train")}
    place = f"{voc}/ImageSets/Main/train.txt: line"
    assert problems == {
        "# my list": f"{voc}/JPEGImages/# my list.jpg: no image with this id (named by {place} 2)",
        "a": "",
        "a # the first": f"{voc}/JPEGImages/a # the first.jpg: no image with this id (named by {place} 4)",
    }


def test_doubled_ids_are_told(make_voc: MakeVoc, capsys: pytest.CaptureFixture[str]) -> None:
    voc = make_voc({"train": {"a": [CAT]}})
    (voc / "ImageSets" / "Main" / "train.txt").write_text("a\na\na\n")
    assert ids(voc, "train") == ["a"]
    assert "2 ids listed twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (bytes(range(256)), "not UTF-8 text"),
        (b"a\0b\n", "not UTF-8 text"),
        (b"../../a\n", r"'\.\./\.\./a' is outside"),
        (b"/etc/passwd\n", "is outside"),
        (b"..\\a\n", "is outside"),
        (b"/home/x/gone.jpg\n", "is outside"),
        (b"C:\\gone.jpg\n", "is outside"),
        (b"JPEGImages/../../a.jpg\n", "is outside"),
    ],
)
def test_broken_lists_are_named(make_voc: MakeVoc, content: bytes, reason: str) -> None:
    voc = make_voc({"train": {"a": [CAT]}})
    (voc / "ImageSets" / "Main" / "train.txt").write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        load_samples(voc, "train")
    assert "train.txt: " in str(caught.value)


def test_a_missing_list_is_named(make_voc: MakeVoc) -> None:
    with pytest.raises(UserError, match=r"trian\.txt: no split 'trian' \(did you mean train\?\)"):
        load_samples(make_voc({"train": {"a": [CAT]}}), "trian")


def test_endings_are_found_by_name(make_voc: MakeVoc) -> None:
    voc = make_voc({"train": {name: [CAT] for name in "abcd"}})
    for name, ending in (("a", ".JPG"), ("b", ".jpeg"), ("c", ".webp")):
        (voc / "JPEGImages" / f"{name}.jpg").rename(voc / "JPEGImages" / f"{name}{ending}")
    shutil.copy(voc / "JPEGImages" / "d.jpg", voc / "JPEGImages" / "d.png")
    (voc / "JPEGImages" / "again").symlink_to(voc)  # a loop of folders is not walked
    samples = load_samples(voc, "train")
    assert [sample.image_path.suffix for sample in samples[:3]] == [".JPG", ".jpeg", ".webp"]
    assert "d.png lies beside it" in samples[3].problem


def test_what_is_missing_is_left_to_the_scan(make_voc: MakeVoc) -> None:
    voc = make_voc({"train": {"a": [CAT], "b": [CAT]}})
    (voc / "JPEGImages" / "a.jpg").unlink()
    (voc / "Annotations" / "b.xml").unlink()
    a, b = load_samples(voc, "train")
    assert "a.jpg: no image" in a.problem
    assert (b.problem, b.xml_path) == ("", voc / "Annotations" / "b.xml")
    assert load_samples(voc, "train", unlabelled="background")[1].xml_path is None


def test_a_folder_that_may_not_be_searched_is_no_missing_annotation(
    make_voc: MakeVoc, monkeypatch: pytest.MonkeyPatch
) -> None:
    voc, real = make_voc({"train": {"a": []}}), Path.exists

    def exists(path: Path, **_: object) -> bool:
        if path.suffix == ".xml":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "exists", exists)
    (sample,) = load_samples(voc, "train", unlabelled="background")
    assert sample.xml_path == voc / "Annotations" / "a.xml"
