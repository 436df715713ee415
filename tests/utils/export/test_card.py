from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest

from tests.voc_folder import make_voc_folder
from utils.export.card import build_card
from utils.weights.checkpoint import Checkpoint, save_checkpoint

COMMAND = ["python", "export.py", "--weights", "best.pth", "--name", "a b"]


@pytest.fixture
def build(make_job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that writes best.pth with a record and returns the card's sections by title."""
    monkeypatch.chdir(tmp_path)

    def build(
        metrics: dict,
        run: dict,
        phi: str = "none",
        names: tuple[str, str] = ("cat", "dog"),
        shown: tuple[str, str] | None = None,
    ) -> dict[str, str]:
        job = dataclasses.replace(make_job(phi), class_names=names, source=tmp_path / "best.pth")
        save_checkpoint(job.source, Checkpoint(job.config, names, job.weights(), metrics, run))
        job = dataclasses.replace(job, class_names=shown or names)
        (tmp_path / "best.onnx").write_bytes(b"model")
        card = build_card(job, [tmp_path / "best.onnx"], ["onnx: differs by 0.1"], COMMAND)
        assert card.startswith("# best\n\n")
        assert card.endswith("\n")
        parts = card.split("\n## ")
        return {"": parts[0]} | {
            part.partition("\n")[0]: part.partition("\n")[2].strip() for part in parts[1:]
        }

    return build


def test_what_is_not_known_is_said(build) -> None:
    card = build({}, {})
    assert card["Data"].startswith("not known: ")
    assert card["Metrics"] == "none recorded"
    assert "# training: not known" in card["Commands"]
    assert card["License"] == "To fill in."


def test_what_the_export_is(build, make_job) -> None:
    card = build({}, {}, phi="se", names=("Katze", "dög"))
    parameters = sum(tensor.numel() for tensor in make_job("se").model.parameters())
    assert f"attention se at c4, c5, up, input 64x96 (height, width), {parameters:,} parameters" in card[""]
    assert hashlib.sha256(Path("best.pth").read_bytes()).hexdigest() in card[""]
    assert f"| best.onnx | 5 | `{hashlib.sha256(b'model').hexdigest()}` |" in card["Files"]
    assert card["Classes"] == "2: Katze, dög"
    assert "python export.py --weights best.pth --name 'a b'" in card["Commands"]
    assert card["Compared with PyTorch"] == "- onnx: differs by 0.1"
    assert len(card["Intended use and limits"].splitlines()) == 2


def test_the_training_data_are_counted(build) -> None:
    make_voc_folder(Path("voc"), 5, 2)
    run = {
        "data": "voc",
        "train": None,
        "val": None,
        "phi": "none",
        "epochs": 3,
        "imgsz": [64, 96],
        "seed": 0,
    }
    card = build({"map50": 0.5, "voc_ap50_area": 0.25}, run)
    assert card["Data"].startswith("5 images and 5 objects in train of voc, counted")
    assert "held out" not in card["Data"]
    assert card["Data"].endswith("| cat | 3 |\n| dog | 2 |")
    assert "python train.py --data voc --phi none --epochs 3 --imgsz 64 96 --seed 0\n" in card["Commands"]
    assert "| map50 | 0.5000 |" in card["Metrics"]
    assert "Scores from 0.001, NMS at IoU 0.5, at most 100 detections" in card["Metrics"]


def test_renames_and_a_held_out_part(build) -> None:
    make_voc_folder(Path("voc"), 4, 1)
    Path("voc/ImageSets/Main/val.txt").unlink()
    card = build({"map50": 0.5}, {"data": "voc", "rename": ["dog=hund"], "val": None}, names=("cat", "hund"))
    assert "4 images and 4 objects" in card["Data"]
    assert "a part was held out" in card["Data"]
    assert "| hund | 2 |" in card["Data"]
    card = build({"map50": 0.5}, {"data": "voc", "val": ["train"], "train": ["train"], "overfit": 2})
    assert "only the first 2 with objects" in card["Data"]
    assert "the 2 training images themselves" in card["Metrics"]


def test_other_names_for_the_export_change_no_count(build) -> None:
    make_voc_folder(Path("voc"), 5, 1)
    card = build({}, {"data": "voc", "skip_bad": True, "val": ["val"]}, shown=("Katze", "Hund"))
    assert card["Data"].endswith("| Katze | 3 |\n| Hund | 2 |")
    assert card["Classes"] == "2: Katze, Hund"
    assert "python train.py --data voc --val val --skip-bad\n" in card["Commands"]


def test_data_that_are_gone_are_not_known(build) -> None:
    assert build({}, {"data": "gone"})["Data"].startswith("not known: gone: no such folder")
