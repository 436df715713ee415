from __future__ import annotations

from pathlib import Path

import pytest

from tests.utils.data.conftest import MakeVoc
from utils.cli.errors import UserError
from utils.cli.shared_config import DataConfig
from utils.data.prepare import prepare_evaluation, prepare_training
from utils.data.voc_xml import VocObject

CAT = VocObject("cat", (2, 3, 10, 12))
DOG = VocObject("dog", (0, 0, 40, 30))
SLIP = VocObject("cat", (9, 9, 10, 10))


def test_no_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--demo"):
        prepare_training(DataConfig(str(tmp_path)))
    with pytest.raises(UserError, match="--demo"):
        prepare_evaluation(DataConfig(str(tmp_path)))


def test_train_and_val_where_both_exist(make_voc: MakeVoc) -> None:
    voc = make_voc({"train": {"a": [CAT, DOG]}, "val": {"b": [CAT]}, "test": {"c": [DOG]}})
    data = prepare_training(DataConfig(str(voc)))
    assert data.val is not None
    assert (data.train.image_ids, data.val.image_ids) == (("a",), ("b",))
    assert (data.train_splits, data.val_splits) == (("train",), ("val",))
    assert data.train.class_names == data.val.class_names == ("cat", "dog")


def test_a_tenth_is_held_out_aloud(make_voc: MakeVoc, capsys: pytest.CaptureFixture[str]) -> None:
    voc = make_voc({"trainval": {f"{n:02}": [CAT] for n in range(20)}})
    data = prepare_training(DataConfig(str(voc)))
    assert data.val is not None
    assert (len(data.train), len(data.val), data.val_splits) == (18, 2, ())
    assert "val: 2 of 20 training images held out (seed 0)" in capsys.readouterr().err
    assert prepare_training(DataConfig(str(voc)), seed=1).train.image_ids != data.train.image_ids


def test_val_none(make_voc: MakeVoc) -> None:
    voc = make_voc({"train": {"a": [CAT]}, "val": {"b": [SLIP]}})
    data = prepare_training(DataConfig(str(voc)), val=["none"])
    assert data.val is None
    assert data.val_splits == ()


def test_selecting_on_a_test_list_or_on_training_images_is_told(
    make_voc: MakeVoc, capsys: pytest.CaptureFixture[str]
) -> None:
    voc = make_voc({"train": {"a": [CAT], "b": [CAT]}, "test": {"b": [CAT], "c": [CAT]}})
    prepare_training(DataConfig(str(voc)), train=["train"], val=["test"])
    said = capsys.readouterr().err
    assert "1 image in both training and validation splits" in said
    assert "test selects the best epoch" in said


def test_classes_file_decides(make_voc: MakeVoc, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voc = make_voc({"train": {"a": [CAT, DOG]}, "val": {"b": [DOG]}})
    (tmp_path / "classes.txt").write_text("dog\nzebra\n")
    data = prepare_training(DataConfig(str(voc), classes=str(tmp_path / "classes.txt")))
    assert data.train.class_names == ("dog", "zebra")
    assert data.train.objects(0).labels.tolist() == [0]
    assert "'cat' (1)" in capsys.readouterr().err


def test_a_slip_in_val_is_an_error(make_voc: MakeVoc) -> None:
    voc = make_voc({"train": {"a": [CAT, SLIP]}, "val": {"b": [CAT, SLIP]}})
    with pytest.raises(UserError, match=r"b\.xml: object 2 \(cat\)"):
        prepare_training(DataConfig(str(voc)))
    data = prepare_training(DataConfig(str(voc), skip_bad=True))
    assert data.val is not None
    assert len(data.val.objects(0).labels) == 1


def test_predictions_in_train_and_val_are_warned_of_once(
    make_voc: MakeVoc, capsys: pytest.CaptureFixture[str]
) -> None:
    voc = make_voc({"train": {"a": [CAT, DOG]}, "val": {"b": [CAT, DOG]}})
    for image_id in ("a", "b"):
        xml = voc / "Annotations" / f"{image_id}.xml"
        xml.write_text(xml.read_text().replace("<name>dog", "<score>0.9</score><name>dog"))
    data = prepare_training(DataConfig(str(voc)))
    assert [len(part.objects(0).labels) for part in (data.train, data.val) if part] == [2, 2]
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert "2 objects with a score" in warning
    config = DataConfig(str(voc), skip_unreviewed=True)
    data = prepare_training(config)
    assert [len(part.objects(0).labels) for part in (data.train, data.val) if part] == [1, 1]
    assert prepare_evaluation(config)[1].class_counts == {"cat": 1}
    assert "2 objects with a score" in capsys.readouterr().err
    assert config.data_arguments() == ["--data", str(voc), "--skip-unreviewed"]


def test_class_names_are_compared_in_nfc(make_voc: MakeVoc, tmp_path: Path) -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    voc = make_voc({"train": {"a": [VocObject(composed, CAT.box), VocObject(apart, CAT.box)], "b": [CAT]}})
    (tmp_path / "classes.txt").write_text(f"{apart}\ncat\n", encoding="utf-8")
    config = DataConfig(str(voc), classes=str(tmp_path / "classes.txt"))
    assert prepare_training(config, val=["none"]).train.class_names == (composed, "cat")
    config = DataConfig(str(voc), rename=(f"{apart}=tea",))
    data = prepare_training(config, val=["none"])
    assert (data.train.class_names, data.train.objects(0).labels.tolist()) == (("cat", "tea"), [1, 1])


def test_evaluation(make_voc: MakeVoc) -> None:
    voc = make_voc({"train": {"a": [CAT]}, "val": {"b": [DOG]}, "test": {"c": [CAT, DOG], "d": []}})
    dataset, report, splits = prepare_evaluation(DataConfig(str(voc)))
    assert (dataset.image_ids, dataset.class_names, splits) == (("c", "d"), ("cat", "dog"), ("test",))
    assert report.total == 2
    assert prepare_evaluation(DataConfig(str(voc)), splits=["val", "train"])[0].image_ids == ("b", "a")
