"""Every layout of a data folder, and every command that reads one, sees the same images."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import data
from tests.layout_folders import LAYOUTS, Layout, in_folders, lists, side_by_side, voc
from utils.cli.console import plural
from utils.cli.errors import UserError
from utils.cli.shared_config import DataConfig
from utils.data.folder_walk import is_image, is_system_file
from utils.data.layouts import ListedNames
from utils.data.prepare import prepare_evaluation, prepare_splits, prepare_training
from utils.data.samples import DataFolder, choose_training_splits, load_samples
from utils.inference import sources
from utils.inference.sources import find_sources
from utils.tools import stats


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_all_commands_see_the_same_images(
    layout: Layout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "plot_labels", lambda *_: None)  # drawing takes longer than all else
    folder = layout.write(Path("my"))
    opened = DataFolder(folder)
    samples = {split: load_samples(opened, split) for split in opened.list_splits()}
    assert {split: [s.image_id for s in found] for split, found in samples.items()} == layout.expected
    for sample in (sample for found in samples.values() for sample in found):
        assert sample.problem == ""
        assert sample.image_path.is_file()
        assert sample.xml_path is not None
        assert sample.xml_path.is_file()
    assert choose_training_splits(opened)[0] == layout.train

    config = DataConfig("my")
    trained = {i for split in layout.train for i in layout.expected[split]}
    unused = [plural(layout.untrained, "image")] * (layout.untrained > 0)
    chosen = prepare_training(config, val=("none",))
    assert {record.image_id for record in chosen.train.records} == trained
    assert unused_in(capsys.readouterr().err) == unused
    assert data.main(["stats", "--data", "my"]) == 0
    err = capsys.readouterr().err
    assert f"data ({', '.join(layout.train)}): {plural(len(trained), 'image')}, " in err
    assert unused_in(err) == unused
    for split, ids in layout.expected.items():
        assert [record.image_id for record in prepare_evaluation(config, [split])[0].records] == ids
    assert layout.untrained or "not used" not in capsys.readouterr().err

    assert data.main(["check", "--data", "my", "--json", "report.json"]) == 0
    report = json.loads(Path("report.json").read_text())
    assert {split: row["usable"] for split, row in report["splits"].items()} == {
        split: len(ids) for split, ids in layout.expected.items()
    }
    assert report["files"]["total"] == sum(path.is_file() for path in Path("my").rglob("*"))
    assert report["files"]["used"]["image"] == report["files"]["used"]["annotation"] == len(layout.images)
    assert set(report["files"]["not_used"]) <= {"system file"}
    said = [finding["reason"] for finding in report["findings"]]
    found = re.findall(r"leaves (\d+) listed (images?) unused", " ".join(said))
    assert [" ".join(words) for words in found] == unused

    assert data.main(["convert", "my", "--out", "coco"]) == 0
    converted = [json.loads(path.read_text()) for path in Path("coco").rglob("*.json")]
    names = {image["file_name"] for content in converted for image in content["images"]}
    assert len(names) == len(layout.images) == len(list(Path("coco/images").iterdir()))
    assert len(converted) == len(layout.expected)

    seen = {source.path for source in find_sources(["my/**/*"])}
    assert seen == {sample.image_path for found in samples.values() for sample in found}

    own_names = {split.rpartition("/")[2] for split in layout.expected}
    status = data.main(["split", "--data", "my", "--val", "0.5", "--test", "0"])
    if status == 2:
        assert own_names - {"all", "default"}
        assert re.search(
            "is split already|split one at a time|are too few for 2 parts", capsys.readouterr().err
        )
    else:
        written = {split: load_samples("my", split) for split in DataFolder("my").list_splits()}
        ids = {split: {sample.image_id for sample in found} for split, found in written.items()}
        assert set().union(*ids.values()) == set().union(*layout.expected.values())
        assert ids.get("test", set()) == set(layout.expected.get("test", ()))


def unused_in(err: str) -> list[str]:
    """Return the counts of unused images of other splits; all other unused files fail."""
    kinds = ", ".join(re.findall("not used: (.*); which", err)).split(", ")
    counts = {kind.partition(" of ")[0]: kind for kind in kinds if kind}
    assert all(kind.endswith("of another split") for kind in counts.values())
    return [count for count in counts if "image" in count]


NOTHING = [
    (Layout({}, {}), "give a VOCdevkit"),
    (Layout({}, {}, texts={"README.md": ""}), "give a VOCdevkit"),
    (Layout({}, {}, texts={"a.xml": "<annotation/>"}), "1 XML file (a.xml) and no images"),
    (Layout({"a.jpg": None, "x/b.jpg": None}, {}), "2 images (a.jpg, ...) and no XML; annotate them first"),
    (
        Layout({"x/a.jpg": None}, {}, texts={"y/b.xml": "<annotation/>"}),
        "1 image (x/a.jpg), 1 XML file (y/b.xml), but no XML file has the name of an image; name them alike",
    ),
    (
        Layout({"a.png": None, "a.jpg": None}, {}, texts={"a.jpg.xml": "", "a.png.xml": ""}),
        "a.jpg.xml cannot be matched with a.jpg or a.png; move the images below images/ and the XML below",
    ),
    (
        Layout({"p1/a.jpg": None, "p2/b.jpg": None}, {}, texts={"x1/a.xml": "", "x2/b.xml": ""}),
        "2 XML files (x1/a.xml, ...), but x1/a.xml cannot be matched with p1/a.jpg; move the images below",
    ),
    (Layout({}, {}, texts={"a.zip": "", "b.tar": ""}), "2 archives (a.zip, ...) and no images; unpack the"),
    (Layout({}, {}, texts={"a.mp4": "", "b.MOV": ""}), "2 videos (a.mp4, ...) and no images; extract frames"),
    (Layout({"a.jpg": None}, {}, texts={"x.zip": ""}), "1 archive (x.zip) and no XML; unpack the archives"),
    (
        Layout({"images/a.jpg": None}, {}, texts={"labels/a.txt": ""}),
        "1 image (images/a.jpg), 1 TXT file (labels/a.txt) and no XML; convert COCO, YOLO and labelme: "
        "python data.py convert my --out my_voc",
    ),
    (Layout({"a.jpg": None}, {}, texts={"b.json": "{}"}), "1 JSON file (b.json) and no XML; convert"),
    (Layout({"a.jpg": None}, {}, texts={"b.json": "{}"}), "; export any other format as VOC"),
    (Layout({"a.jpg": None}, {}, texts={"b.csv": "x"}), "1 CSV file (b.csv) and no XML; CSV is not read"),
    (
        Layout({"p/a.jpg": None}, {}, texts={"x/a": "\n<annotation>", "README": ""}),
        "1 image (p/a.jpg), 1 file without suffix that is XML (x/a); add .xml to the name",
    ),
]


@pytest.mark.parametrize(("layout", "reason"), NOTHING)
def test_a_folder_without_a_layout_says_what_is_in_it(layout: Layout, reason: str) -> None:
    Path("my").mkdir()
    layout.write(Path("my"))
    for read in (prepare_training, prepare_evaluation, prepare_splits):
        with pytest.raises(UserError) as caught:
            read(DataConfig("my"))
        assert str(caught.value).startswith("my: no data in VOC layout")
        assert reason in str(caught.value)
        assert len(str(caught.value)) < 400


def test_xml_that_is_missing_in_a_folder_of_its_own_is_an_error() -> None:
    Layout(in_folders("images", "annotations", "a") | {"images/b.jpg": None}, {}).write(Path("my"))
    with pytest.raises(UserError, match=r"my/annotations/b\.xml: no such file"):
        prepare_training(DataConfig("my"), val=("none",))
    data = prepare_training(DataConfig("my", unlabelled="background"), val=("none",))
    assert [record.image_id for record in data.train.records] == ["a", "b"]


def test_folders_beside_a_training_folder_are_not_read_but_told(capsys: pytest.CaptureFixture[str]) -> None:
    Layout(side_by_side("train/a.jpg", "old/b.jpg", "old/c.jpg"), {}).write(Path("my"))
    assert [s.image_id for s in load_samples("my", "train")] == ["train/a"]
    prepare_training(DataConfig("my"), val=("none",))
    err = capsys.readouterr().err
    assert "not used: 2 images beside the folders of the splits, 2 annotations of an image beside" in err
    assert "; which: python data.py check --data my\n" in err


@pytest.mark.parametrize("folder", ["", "JPEGImages/"])
def test_a_second_xml_of_an_image_is_named_as_such(folder: str) -> None:
    images = side_by_side("a.jpg", "b.jpg") if not folder else voc("a", "b")
    xml = folder.replace("JPEGImages", "Annotations")
    names = (f"{xml}a.jpg.xml", f"{xml}xml/a.xml", f"{xml}A.XML", f"{xml}c.xml")
    Layout(images, {}, texts=dict.fromkeys(names, "")).write(Path("my"))
    kinds = DataFolder("my").account("skip")
    assert sorted(kinds["annotation beside another of the same image"]) == sorted(names[:3])
    assert kinds["annotation without image"] == [names[3]]


def test_check_names_the_flag_that_takes_what_training_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    def advice(**ids: str) -> str:
        layout = Layout(voc(*"abcde"), {}, texts=lists("ImageSets/Main", **ids))
        folder = layout.write(Path("my" + "_".join(ids)))
        return DataFolder(folder).describe_untrained()

    assert advice(train="a b", val="c", trainval="a b c", test="d e") == ""
    said = "train.py takes train, val and leaves 2 listed images unused"
    assert (
        advice(train="a", val="c", trainval="a b c d") == f"{said}; to train on all of them: --train trainval"
    )
    extra = advice(train="a", val="c", extra="d e")
    assert extra == f"{said}; to train on all of them: --train train extra"
    assert advice(train="a", val="b", test="c", all="a b c d e") == said  # all has the test images
    folder = Layout(voc(*"ab"), {}, texts=lists("ImageSets/Main", test="b")).write(Path("held"))
    capsys.readouterr()
    assert data.main(["check", "--data", str(folder), "--json", "report.json"]) == 0
    reasons = [finding["reason"] for finding in json.loads(Path("report.json").read_text())["findings"]]
    assert "no training list; train is the 1 image outside test" in reasons
    prepare_evaluation(DataConfig("held"))
    assert "held: no training list; train is the 1 image outside test" in capsys.readouterr().err


def test_evaluation_counts_what_no_usual_list_has(capsys: pytest.CaptureFixture[str]) -> None:
    texts = lists("ImageSets/Main", train="a", val="b", trainval="a b c", more="d")
    Layout(voc(*"abcd"), {}, texts=texts).write(Path("my"))
    prepare_evaluation(DataConfig("my"))
    assert unused_in(capsys.readouterr().err) == ["1 image"]


def test_both_validation_folders_are_used() -> None:
    folder = LAYOUTS["val and valid"].write(Path("my"))
    assert choose_training_splits(folder) == (("train",), ("val", "valid"))


def test_lists_in_the_folder_of_xml_are_noted(capsys: pytest.CaptureFixture[str]) -> None:
    texts = {"annotations/trainval.txt": "a 1 1 1\n"}
    Layout(in_folders("images", "annotations/xmls", "a", "b"), {}, texts=texts).write(Path("my"))
    assert data.main(["check", "--data", "my"]) == 0
    assert "1 list outside the layout, such as annotations/trainval.txt" in capsys.readouterr().out


def test_names_that_fit_several_are_not_guessed() -> None:
    """XML of one name and pictures of the same name in two folders: which one it is of is open."""
    layout = Layout({"images/x/a.jpg": "annotations/a.xml", "images/y/a.jpg": None, "images/b.jpg": None}, {})
    folder = layout.write(Path("my"))
    shutil.copy("my/annotations/a.xml", "my/annotations/B.xml")
    shutil.copy("my/annotations/a.xml", "my/annotations/B.XML")
    found = {s.image_id: s.xml_path and s.xml_path.exists() for s in load_samples(folder, "all")}
    assert found == {"x/a": False, "y/a": False, "b": False}


def test_the_spelling_of_the_image_comes_first() -> None:
    Layout({"a.jpg": "a.xml", "A.jpg": "A.xml", "b.jpg": "b.xml"}, {}).write(Path("my"))
    shutil.copy("my/b.xml", "my/B.xml")
    assert {s.image_id: s.xml_path for s in load_samples("my", "all")} == {
        name: Path(f"my/{name}.xml") for name in ("A", "a", "b")
    }


def everything(folder: Path) -> Path:
    """Write a VOC folder with every kind of file that is not used, and some that are."""
    good = in_folders("JPEGImages", "Annotations", "a", "b", "c")
    more = {"JPEGImages/unlisted.jpg": "Annotations/unlisted.xml", "JPEGImages/twice.jpg": None}
    more |= {"outside.jpg": "outside.xml", "JPEGImages/bare.jpg": None, "SegmentationClass/a.png": None}
    texts = {
        "ImageSets/Main/train.txt": "a\nb\ntwice\n",
        "ImageSets/Main/val.txt": "c\n",
        "ImageSets/Main/cat_train.txt": "a 1\nb -1\n",
        "ImageSets/Segmentation/train.txt": "a\n",
        "Annotations/lonely.xml": "<annotation/>",
        "README.md": "",
        "LICENSE": "",
        "JPEGImages/clip.mp4": "",
        "JPEGImages/._a.jpg": "",
        "__MACOSX/._x": "",
        ".git/HEAD": "",
        "Thumbs.db": "",
    }
    Layout(good | more, {}, texts=texts).write(folder)
    shutil.copy(folder / "Annotations/a.xml", folder / "Annotations/twice.xml")
    shutil.copy(folder / "JPEGImages/a.jpg", folder / "JPEGImages/twice.png")
    (folder / "JPEGImages/b.jpg").write_text("no image")
    return folder


def test_check_accounts_for_every_file(capsys: pytest.CaptureFixture[str]) -> None:
    folder = everything(Path("my"))
    assert data.main(["check", "--data", "my", "--json", "report.json", "--skip-bad"]) == 0
    files = json.loads(Path("report.json").read_text())["files"]
    assert files["used"] == {"image": 2, "annotation": 2, "list": 2}
    assert {kind: sorted(found) for kind, found in files["not_used"].items()} == {
        "image with an error": ["JPEGImages/b.jpg"],
        "annotation of an image with an error": ["Annotations/b.xml"],
        "image with the name of another": ["JPEGImages/twice.jpg", "JPEGImages/twice.png"],
        "annotation of an image with the name of another": ["Annotations/twice.xml"],
        "image in no list": ["JPEGImages/bare.jpg", "JPEGImages/unlisted.jpg"],
        "annotation of an image in no list": ["Annotations/unlisted.xml"],
        "annotation without image": ["Annotations/lonely.xml"],
        "image outside the folders of the layout": ["SegmentationClass/a.png", "outside.jpg"],
        "annotation outside the folders of the layout": ["outside.xml"],
        "list of one class": ["ImageSets/Main/cat_train.txt"],
        "list of another task": ["ImageSets/Segmentation/train.txt"],
        "other file (.md)": ["README.md"],
        "other file (.mp4)": ["JPEGImages/clip.mp4"],
        "other file (no suffix)": ["LICENSE"],
        "system file": [".git/HEAD", "JPEGImages/._a.jpg", "Thumbs.db", "__MACOSX/._x"],
    }
    total = sum(path.is_file() for path in folder.rglob("*"))
    assert files["total"] == total == 6 + sum(map(len, files["not_used"].values()))
    rows = [line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert ["annotation without image", "1"] in rows
    assert ["all", str(total)] in rows


def test_check_of_one_split_accounts_for_the_others() -> None:
    Layout(side_by_side("train/a.jpg", "test/b.jpg"), {}).write(Path("my"))
    assert data.main(["check", "--data", "my", "--split", "train", "--json", "report.json"]) == 0
    report = json.loads(Path("report.json").read_text())
    assert report["files"]["not_used"] == {
        "image of another split": ["test/b.jpg"],
        "annotation of an image of another split": ["test/b.xml"],
    }
    assert [finding["kind"] for finding in report["findings"]] == ["few objects"]


def test_lists_of_one_class_beside_others_stay_apart() -> None:
    texts = {"ImageSets/Main/my cat_train.txt": "a b 1\n"}
    folder = Layout(voc("a b"), {}, texts=texts).write(Path("my"))
    assert DataFolder(folder).list_splits() == ["train"]
    assert DataFolder(folder).find_divided() == {"train": "ImageSets/Main/my cat_train.txt"}
    (folder / "ImageSets/Main/val.txt").write_text("a b\n")
    assert DataFolder(folder).list_splits() == ["my cat_train", "val"]
    assert DataFolder(folder).list_main_splits() == ["val"]


@pytest.mark.parametrize("unlabelled", ["skip", "background"])
def test_what_a_flat_folder_does_not_use_is_counted(
    unlabelled: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Layout(side_by_side("a.jpg") | {"b.jpg": None}, {}, texts={"c.xml": "<annotation/>"}).write(Path("my"))
    prepare_training(DataConfig("my", unlabelled=unlabelled), val=("none",))
    err = capsys.readouterr().err
    assert "not used: 1 annotation without image; which: python data.py check --data my" in err
    assert ("skipped 1 image without XML, such as b" in err) == (unlabelled == "skip")
    assert data.main(["check", "--data", "my", "--unlabelled", unlabelled, "--json", "report.json"]) == 0
    report = json.loads(Path("report.json").read_text())
    not_used = {"image without XML": ["b.jpg"]} if unlabelled == "skip" else {}
    assert report["files"]["not_used"] == not_used | {"annotation without image": ["c.xml"]}
    assert "1 annotation without image, such as c.xml" in [
        finding["reason"] for finding in report["findings"]
    ]


def test_check_says_the_reason_of_a_split_that_cannot_be_read() -> None:
    layout = Layout(
        {**voc("a", "b", "c", "d"), "JPEGImages/bare.jpg": None}, {}, texts=lists("ImageSets", test="a")
    )
    layout.write(Path("my"))
    Path("my/ImageSets/train.txt").write_text("a\nbare\n")
    Path("my/ImageSets/val.txt").write_bytes(b"\0")
    assert data.main(["check", "--data", "my", "--json", "report.json", "--split", "train", "val"]) == 2
    files = json.loads(Path("report.json").read_text())["files"]["not_used"]
    assert files["list with an error"] == ["ImageSets/val.txt"]
    assert files["image without XML"] == ["JPEGImages/bare.jpg"]
    Layout(side_by_side("train/a.jpg") | {"test/b.jpg": None}, {}).write(Path("flat"))
    assert data.main(["check", "--data", "flat", "--json", "report.json"]) == 2
    files = json.loads(Path("report.json").read_text())["files"]["not_used"]
    assert files == {"image without XML": ["test/b.jpg"]}


@pytest.mark.parametrize("verb", ["stats", "show"])
def test_stats_and_show_say_what_is_not_used(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    Layout(side_by_side("train/a.jpg", "old/b.jpg"), {}).write(Path("my"))
    assert data.main([verb, "--data", "my"]) == 0
    assert capsys.readouterr().err.count("not used: 1 image beside the folders of the splits") == 1


def test_convert_takes_the_flag_that_it_advises(capsys: pytest.CaptureFixture[str]) -> None:
    Layout(side_by_side("a.jpg") | {"b.jpg": None}, {}).write(Path("my"))
    assert data.main(["convert", "my", "--out", "coco"]) == 0
    assert "skipped 1 image without XML, such as b; --unlabelled background keeps" in capsys.readouterr().err
    assert data.main(["convert", "my", "--out", "all", "--unlabelled", "background"]) == 0
    content = json.loads(next(Path("all").rglob("*.json")).read_text())
    assert sorted(image["file_name"] for image in content["images"]) == ["a.jpg", "b.jpg"]
    assert len(content["annotations"]) == 1
    assert data.main(["convert", "coco", "--out", "voc", "--unlabelled", "background"]) == 2
    assert "--unlabelled: is for VOC folders, not for coco; leave it out" in capsys.readouterr().err


def test_predict_reads_below_a_folder_of_any_name() -> None:
    for folder in ("__MACOSX/my", "._x"):
        Layout({"a.jpg": None, "__MACOSX/b.jpg": None, "._c.jpg": None}, {}).write(Path(folder))
        for source in (folder, f"{folder}/*.jpg", f"{folder}/**/*.jpg"):
            assert [found.path for found in find_sources([source])] == [Path(folder, "a.jpg")]


def test_predict_sees_no_leftovers_of_macos() -> None:
    LAYOUTS["macOS leftovers"].write(Path("my"))
    Path("my/JPEGImages/__MACOSX").mkdir()
    shutil.copy("my/JPEGImages/a.jpg", "my/JPEGImages/__MACOSX/x.jpg")
    for source in ("my/JPEGImages", "my/JPEGImages/**/*"):
        assert [found.path.name for found in find_sources([source])] == ["a.jpg", "b.jpg", "c.jpg"]
    assert is_image("a.JFIF")
    assert is_system_file("._a.jpg")
    assert not is_system_file("_a.jpg")


@pytest.mark.parametrize(
    ("layout", "unused"),
    [
        (
            Layout(side_by_side("a.jpg"), {}, texts={"train.txt": "a\nx\ny\n", "sets/val.txt": "a\n"}),
            "1 list of other images, 1 list outside the layout",
        ),
        (
            Layout(
                voc("a", "b", "c", "d"),
                {},
                texts=lists("ImageSets/Main", train="a b", default="c"),
            ),
            "1 image of another split",
        ),
        (Layout(voc("a", "b"), {}, texts=lists("ImageSets/Main", train="a")), "1 image in no list"),
    ],
)
def test_what_is_not_used_is_counted_in_training_and_convert(
    layout: Layout, unused: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_training(DataConfig(str(layout.write(Path("my")))), val=("none",))
    assert unused in capsys.readouterr().err
    if "another" not in unused:  # convert reads all lists
        assert data.main(["convert", "my", "--out", "coco"]) == 0
        assert unused in capsys.readouterr().err


def test_images_below_a_folder_to_predict_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Layout(side_by_side("a.jpg", "test/b.jpg", "test/._c.jpg"), {}).write(Path("my"))
    assert [source.path.name for source in find_sources([str(folder)])] == ["a.jpg"]
    assert "my: 1 image in subfolders not read; 'my/**/*' reads them too" in capsys.readouterr().err


def test_an_unreadable_subfolder_does_not_stop_predict(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise UserError("my/private: cannot list the files: Permission denied")

    folder = Layout(side_by_side("a.jpg", "private/b.jpg"), {}).write(Path("my"))
    monkeypatch.setattr(sources, "walk_folder", refuse)
    assert [source.path.name for source in find_sources([str(folder)])] == ["a.jpg"]


def test_system_files_do_not_stop_convert() -> None:
    coco = {"images": [], "categories": [], "annotations": []}
    junk = ("._data.yaml", "labels/._a.txt", "._x.names")
    texts = {"classes.txt": "cat\n", "labels/a.txt": "0 0.5 0.5 0.2 0.2\n", **dict.fromkeys(junk, "\0")}
    Layout({"images/a.jpg": None}, {}, texts=texts).write(Path("yolo"))
    assert data.main(["convert", "yolo", "--out", "voc"]) == 0
    assert data.main(["convert", "voc", "--out", "coco"]) == 0
    for name in ("annotations/._instances_x.json", "._result.json"):
        Path("coco", name).write_text(json.dumps(coco))
    assert data.main(["convert", "coco", "--out", "again"]) == 0


def test_a_line_of_many_folders_takes_no_long_time() -> None:
    assert ListedNames(["a"], []).resolve(100_000 * "b/" + "a.jpg") == "a"
