from __future__ import annotations

import pytest
from PIL import Image

from tests.utils.data.conftest import MakeVoc
from utils.cli.errors import UserError
from utils.data.dataset import VocDataset
from utils.data.dataset_report import scan_samples
from utils.data.samples import load_samples
from utils.data.targets import build_target
from utils.data.voc_xml import VocObject

CAT = VocObject("cat", (2, 3, 10, 12))
DOG = VocObject("dog", (0, 0, 40, 30), True)


def test_empty() -> None:
    dataset = VocDataset([], ["cat"])
    assert len(dataset) == 0
    assert dataset.image_ids == ()


def test_load(make_voc: MakeVoc) -> None:
    records = scan_samples(load_samples(make_voc({"train": {"b": [DOG, CAT], "a": []}}), "train")).records
    dataset = VocDataset(records, ("cat", "dog"))
    assert dataset.image_ids == ("b", "a")
    assert dataset.read(0).shape == (30, 40, 3)
    target = build_target(dataset, 0)
    assert target.boxes.tolist() == [list(DOG.box), list(CAT.box)]
    assert target.labels.tolist() == [1, 0]
    assert target.difficult.tolist() == [True, False]
    assert target.image_id == "b"
    assert len(build_target(dataset, 1)) == 0
    with pytest.raises(UserError, match="classes dog, which are not among cat"):
        VocDataset(records, ("cat",))


def test_an_image_that_changed_since_the_scan_is_named(make_voc: MakeVoc) -> None:
    voc = make_voc({"train": {"a": [CAT]}})
    dataset = VocDataset(scan_samples(load_samples(voc, "train")).records, ("cat",))
    Image.new("RGB", (50, 20)).save(voc / "JPEGImages" / "a.jpg")
    with pytest.raises(UserError, match=r"a\.jpg: 50x20 pixels, its header said 40x30"):
        dataset.read(0)
    (voc / "JPEGImages" / "a.jpg").unlink()
    with pytest.raises(UserError, match=r"a\.jpg"):
        dataset.read(0)


def test_objects_are_letterboxed_without_reading_an_image(make_voc: MakeVoc) -> None:
    voc = make_voc({"train": {"a": [VocObject("cat", (4, 6, 24, 26))], "b": [], "c": [DOG]}})
    dataset = VocDataset(scan_samples(load_samples(voc, "train")).records, ("cat", "dog"))
    for record in dataset.records:
        record.image_path.unlink()
    labels, boxes = dataset.letterboxed_objects((80, 80))  # 40 x 30 becomes 80 x 60, with 10 above and below
    assert labels.tolist() == [0, 1]
    assert boxes.tolist() == [[8, 22, 48, 62], [0, 10, 80, 70]]
