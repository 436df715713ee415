from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch

import data
import train
from tests.utils.data.conftest import write_voc
from utils.cli.shared_config import DataConfig
from utils.data.prepare import prepare_training
from utils.data.train_dataset import AugmentSettings, TrainDataset
from utils.data.voc_xml import VocObject, read_annotation
from utils.tools import augment
from utils.tools.augment import name_images

CAT, DOG = VocObject("cat", (2.0, 3.0, 20.0, 22.0)), VocObject("dog", (5.0, 5.0, 35.0, 25.0), difficult=True)
OUT = Path("out")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def usual() -> Path:
    splits = {
        "train": {"a": [CAT], "b": [CAT, DOG], "c": []},
        "val": {"v": [CAT]},
        "test": {"t": [DOG]},
        "trainval": {"a": [CAT], "b": [CAT, DOG], "c": [], "v": [CAT]},
    }
    return write_voc(Path("voc"), splits)


def run(*argv: str, source: str = "voc") -> int:
    return data.main(["augment", "--data", source, "--out", "out", "--imgsz", "64", *argv])


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def ids_of(name: str) -> list[str]:
    return (OUT / f"ImageSets/Main/{name}.txt").read_text().splitlines()


# Refused, and failures.


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["--copies", "0"], "--copies 0"),
        (["--mosaic", "2"], "--mosaic 2"),
        (["--augment", "none"], "--augment none"),
        (["--imgsz", "65"], "--imgsz 65"),
        (["--out", "voc/more"], "lies in voc, which is only read"),
        (["--out", "voc"], "lies in voc, which is only read"),
        (["--out", "full"], "is not an empty folder"),
        (["--out", "file"], "is not an empty folder"),
        (["--train", "night"], "no split 'night'"),
    ],
)
def test_refused(capsys: pytest.CaptureFixture[str], argv: list[str], reason: str) -> None:
    before = tree(usual())
    Path("full").mkdir()
    Path("full/photo.jpg").touch()
    Path("file").touch()
    assert run(*argv) == 2
    assert reason in capsys.readouterr().err
    assert tree(Path("voc")) == before
    assert not OUT.exists()


def test_out_has_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main(["augment", "--data", "voc"]) == 2
    assert "error: --out: is required" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("failure", "status"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left", "x.jpg"), 1)]
)
def test_a_failure_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, failure: BaseException, status: int
) -> None:
    before = tree(usual())
    pictures: list[Path] = []

    def write(path: Path, image: object) -> None:
        pictures.append(path)
        if len(pictures) == 3:
            raise failure

    monkeypatch.setattr(augment, "_write_jpeg", write)
    assert run() == status
    assert len(pictures) == 3
    assert sorted(path.name for path in Path().iterdir()) == ["voc"]
    assert tree(Path("voc")) == before


# What is written.


def test_originals_are_untouched_and_copies_are_the_pipelines(capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(usual())
    OUT.mkdir()
    assert run("--copies", "2", "--mosaic", "0.5", "--augment", "light", "--seed", "7") == 0
    assert tree(Path("voc")) == before
    after = tree(OUT)
    for image_id in "abcvt":
        for name in (f"JPEGImages/{image_id}.jpg", f"Annotations/{image_id}.xml"):
            assert after[name] == before[name]
    copies = [f"{image_id}_aug{copy}" for image_id in "abc" for copy in (1, 2)]
    assert ids_of("train") == ["a", "b", "c", *copies]
    assert (ids_of("val"), ids_of("test")) == (["v"], ["t"])
    assert len(after) == 2 * (5 + 6) + 3
    dataset = prepare_training(DataConfig("voc")).train
    pipeline = TrainDataset(dataset, (64, 64), AugmentSettings(0.5, 0.0, "light"), seed=7)
    for index, image_id in enumerate("abc"):
        for copy in (1, 2):
            image, target = pipeline.render((copy, index))
            written = cv2.imread(str(OUT / f"JPEGImages/{image_id}_aug{copy}.jpg"))[..., ::-1]
            assert written.shape == (64, 64, 3)
            luma = [cv2.cvtColor(np.ascontiguousarray(one), cv2.COLOR_RGB2GRAY) for one in (written, image)]
            assert cv2.absdiff(*luma).mean() < 3  # JPEG halves the resolution of color
            annotation = read_annotation(OUT / f"Annotations/{image_id}_aug{copy}.xml")
            assert annotation.size == (64, 64)
            found = [(item.name, item.difficult) for item in annotation.objects]
            names = [dataset.class_names[label] for label in target.labels]
            assert found == list(zip(names, target.difficult.tolist(), strict=True))
            boxes = torch.tensor([item.box for item in annotation.objects]).reshape(-1, 4)
            assert torch.equal(boxes, target.boxes.round())
    out = capsys.readouterr().out.splitlines()
    assert "train: 9 images, 6 of them copies" in out
    assert out[-1] == "next: python train.py --data out --mosaic 0"


def test_seed_level_and_mosaic_change_the_copies() -> None:
    usual()
    trees = []
    for argv in ([], [], ["--seed", "1"], ["--augment", "light"], ["--mosaic", "1"]):
        assert run(*argv) == 0
        trees.append(tree(OUT))
        shutil.rmtree(OUT)
    assert trees[0] == trees[1]
    assert all(trees[0] != other for other in trees[2:])


def test_without_a_val_list_what_is_held_out_has_no_copies(capsys: pytest.CaptureFixture[str]) -> None:
    write_voc(Path("voc"), {"trainval": {f"{n:02}": [CAT] for n in range(20)}})
    assert run() == 0
    held = ids_of("val")
    assert len(held) == 2
    assert not any(name.startswith(tuple(held)) for name in ids_of("train"))
    assert len(ids_of("train")) == 2 * 18
    loaded = prepare_training(DataConfig("out"))
    assert loaded.val is not None
    assert list(loaded.val.image_ids) == held


def test_several_years_become_one_folder(capsys: pytest.CaptureFixture[str]) -> None:
    for year in ("VOC2007", "VOC2012"):
        write_voc(Path("kit", year), {"train": {"1": [CAT]}, "val": {"2": [DOG]}})
    write_voc(Path("kit", "VOC2007"), {"test": {"3": [DOG]}})
    assert run(source="kit") == 0
    assert ids_of("train") == ["VOC2007_1", "VOC2012_1", "VOC2007_1_aug1", "VOC2012_1_aug1"]
    assert (ids_of("val"), ids_of("test")) == (["VOC2007_2", "VOC2012_2"], ["VOC2007_3"])
    assert "VOC2007/1 is now called VOC2007_1" in capsys.readouterr().err


def test_a_flat_folder_becomes_a_voc_one() -> None:
    folder = usual()
    for split, names in {"train": "ab", "valid": "v"}.items():
        Path("flat", split).mkdir(parents=True)
        for name in names:
            shutil.copy(folder / f"JPEGImages/{name}.jpg", f"flat/{split}")
            shutil.copy(folder / f"Annotations/{name}.xml", f"flat/{split}")
    shutil.copy(folder / "JPEGImages/c.jpg", "flat/train")
    assert run("--unlabelled", "background", source="flat") == 0
    assert ids_of("train")[:3] == ["train_a", "train_b", "train_c"]
    assert ids_of("val") == ["valid_v"]
    assert read_annotation(OUT / "Annotations/train_c.xml").objects == ()
    assert prepare_training(DataConfig("out")).train.class_names == ("cat", "dog")


def test_renamed_classes_are_the_same_in_originals_and_copies() -> None:
    usual()
    assert run("--rename", "dog=cat") == 0
    for path in OUT.glob("Annotations/*.xml"):
        assert {item.name for item in read_annotation(path).objects} <= {"cat"}
    assert read_annotation(OUT / "Annotations/b.xml").objects == (CAT, VocObject("cat", DOG.box, True))


@pytest.mark.parametrize(
    ("image_ids", "names"),
    [
        ([], {}),
        (["a"], {"a": ["a", "a_aug1"]}),
        (["a", "a_aug1"], {"a": ["a", "a_aug1_2"], "a_aug1": ["a_aug1", "a_aug1_aug1"]}),
        (["x/y_z", "x_y/z"], {"x/y_z": ["x_y_z", "x_y_z_aug1"], "x_y/z": ["x_y_z_2", "x_y_z_2_aug1"]}),
        (["a", "A"], {"a": ["a", "a_aug1"], "A": ["A_2", "A_2_aug1"]}),
    ],
)
def test_names_do_not_collide(image_ids: list[str], names: dict[str, list[str]]) -> None:
    assert name_images(image_ids, 1) == names


BOX = "<bndbox><xmin>6</xmin><ymin>6</ymin><xmax>35</xmax><ymax>25</ymax></bndbox>"
OTHER = f"<object><name>dog</name>{BOX}</object>"
CVAT = f"""<annotation verified="yes">
  <folder>shots</folder>
  <filename>cam0/frame_000001.jpg</filename>
  <source><database>Unknown</database></source>
  <size><width>40</width><height>30</height><depth></depth></size>
  <owner><name>me</name></owner>
  <object id="7">
    <name>cat</name><occluded>1</occluded><pose>Left</pose>
    <bndbox><xmin>3.25</xmin><ymin>4</ymin><xmax>20</xmax><ymax>22.5</ymax></bndbox>
    <attributes><attribute><name>color</name><value>red</value></attribute></attributes>
  </object>
  {OTHER}
</annotation>
"""


@pytest.mark.parametrize(
    ("argv", "old", "new"),
    [(["--rename", "cat=animal"], ">cat<", ">animal<"), (["--classes", "names.txt"], OTHER, "")],
)
def test_rewritten_xml_keeps_what_is_not_known_here(argv: list[str], old: str, new: str) -> None:
    (usual() / "Annotations/a.xml").write_text(CVAT)
    Path("names.txt").write_text("cat\n")
    assert run(*argv) == 0
    expected = CVAT.replace(old, new).replace("cam0/frame_000001.jpg", "a.jpg")
    written = ElementTree.parse(OUT / "Annotations/a.xml").getroot()
    assert listed(written) == listed(ElementTree.fromstring(expected))


def listed(node: ElementTree.Element) -> list:
    inner = [listed(child) for child in node]
    return [node.tag, node.attrib, (node.text or "").strip(), inner]


def test_float_boxes_of_the_copies_are_the_pipelines() -> None:
    usual()
    assert run("--float-boxes") == 0
    pipeline = TrainDataset(
        prepare_training(DataConfig("voc")).train, (64, 64), AugmentSettings(0.5, 0.0, "default"), seed=0
    )
    boxes = pipeline.render((1, 1))[1].boxes
    found = [item.box for item in read_annotation(OUT / "Annotations/b_aug1.xml").objects]
    assert torch.tensor(found).numpy() == pytest.approx(boxes.numpy(), abs=1e-4)
    assert not torch.equal(boxes, boxes.round())


@pytest.mark.slow
def test_training_on_it_just_works() -> None:
    usual()
    assert run("--copies", "2") == 0
    argv = ["--data", "out", "--mosaic", "0", "--imgsz", "64", "--weights", "none", "--device", "cpu"]
    assert train.main([*argv, "--epochs", "1", "--batch-size", "4", "--workers", "0"]) == 0
    assert Path("runs/train/exp/weights/best.pth").is_file()
