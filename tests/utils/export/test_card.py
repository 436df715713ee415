from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest

from tests.voc_folder import make_voc_folder
from utils.cli.inputs import VOC_WEIGHTS
from utils.cli.parser import config_as_dict
from utils.cli.presets import build_train_config
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
        save_checkpoint(job.source, Checkpoint(job.config, names, job.state_dict(), metrics, run))
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
    assert card["Training"] == "```bash\n# not known\n```"
    assert card["License"] == "To fill in."


def test_what_the_export_is(build, make_job) -> None:
    card = build({}, {}, phi="se", names=("Katze", "dög"))
    parameters = sum(tensor.numel() for tensor in make_job("se").model.parameters())
    assert (
        f"2 heads, attention se at c4, c5, up, input 64x96 (height, width), {parameters:,} parameters"
        in card[""]
    )
    assert hashlib.sha256(Path("best.pth").read_bytes()).hexdigest() in card[""]
    assert f"| best.onnx | 5 | `{hashlib.sha256(b'model').hexdigest()}` |" in card["Files"]
    assert card["Classes"].splitlines()[2:] == ["| 0 | Katze |", "| 1 | dög |"]
    assert "python export.py --weights best.pth --name 'a b'" in card["Export"]
    assert card["Compared with PyTorch"] == "- onnx: differs by 0.1"
    assert len(card["Intended use and limits"].splitlines()) == 2


def test_the_training_data_are_counted(build) -> None:
    make_voc_folder(Path("voc"), 5, 2)
    run = {"data": "voc", "train": None, "val": None, "phi": "none", "epochs": 3, "imgsz": [64, 96]}
    run["seed"] = 0
    card = build({"map50": 0.5, "voc_ap50_area": 0.25}, run)
    assert card["Data"].startswith("5 images and 5 objects in train of voc, counted")
    assert "held out" not in card["Data"]
    assert card["Data"].endswith("| cat | 3 |\n| dog | 2 |")
    assert "python train.py --data voc --epochs 3 --imgsz 64 96\n" in card["Training"]
    assert "| map50 | 0.5000 |" in card["Metrics"]
    assert "Scores from 0.001, NMS at IoU 0.5, at most 100 detections" in card["Metrics"]


def test_renames_and_a_held_out_part(build) -> None:
    make_voc_folder(Path("voc"), 4, 1)
    Path("voc/ImageSets/Main/val.txt").unlink()
    card = build({"map50": 0.5}, {"data": "voc", "rename": ["dog=hund"], "val": None}, names=("cat", "hund"))
    assert "4 images and 4 objects" in card["Data"]
    assert "A part of these was held out" in card["Data"]
    assert "| hund | 2 |" in card["Data"]
    card = build({"map50": 0.5}, {"data": "voc", "val": ["train"], "train": ["train"], "overfit": 2})
    assert "Only the first 2 of these with objects" in card["Data"]
    assert "the 2 training images themselves" in card["Metrics"]


def test_other_names_for_the_export_change_no_count(build) -> None:
    make_voc_folder(Path("voc"), 5, 1)
    card = build({}, {"data": "voc", "skip_bad": True, "val": ["val"]}, shown=("Katze", "Hund"))
    assert card["Data"].endswith("| Katze | 3 |\n| Hund | 2 |")
    assert card["Classes"].splitlines()[2:] == ["| 0 | Katze |", "| 1 | Hund |"]
    assert "python train.py --data voc --skip-bad --val val\n" in card["Training"]


def test_data_that_are_gone_are_not_known(build) -> None:
    assert build({}, {"data": "gone"})["Data"].startswith("not known: gone: no such folder")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ""),
        ({"demo": True}, " --demo"),
        ({"demo": True, "epochs": 9}, " --epochs 9 --demo"),
        ({"preset": "reference"}, " --preset reference"),
        ({"preset": "reference", "ema": True, "lr": 0.1}, " --preset reference --lr 0.1 --ema"),
        (
            {
                "new_heads": True,
                "label_smoothing": 0.1,
                "ema": False,
                "amp": False,
                "balance": True,
                "grow": True,
            },
            " --grow --balance --new-heads --label-smoothing 0.1 --no-ema --no-amp",
        ),
        ({"workers": 250, "name": "mine", "data": "a b"}, " --data 'a b'"),
    ],
)
def test_the_training_command_has_every_setting_that_differs(build, given: dict, words: str) -> None:
    run = config_as_dict(build_train_config(given)) | {"a_setting_of_another_version": 1}
    assert build({}, run)["Training"] == f"```bash\npython train.py{words}\n```"


def test_a_recipe_that_no_longer_exists_is_repeated(build) -> None:
    for preset, words in (("gone", "gone"), (["odd"], "odd")):
        assert f"train.py --preset {words}\n" in build({}, {"preset": preset})["Training"]


def test_class_names_may_be_markdown(build) -> None:
    make_voc_folder(Path("voc"), 5, 1)
    run = {"data": "voc", "rename": ["cat=a|b, c", "dog=R&amp;D_*x*"]}
    card = build({}, run, names=("a|b, c", "R&amp;D_*x*"))
    names = [r"a\|b, c", r"R\&amp;D\_\*x\*"]
    assert card["Classes"].splitlines()[2:] == [f"| {label} | {name} |" for label, name in enumerate(names)]
    assert card["Data"].splitlines()[-2:] == [f"| {names[0]} | 3 |", f"| {names[1]} | 2 |"]


def test_weights_keep_their_own_card(make_job, tmp_path: Path, capsys) -> None:
    job = dataclasses.replace(make_job(), source=VOC_WEIGHTS)
    card = build_card(job, [], [], COMMAND)
    for said in (
        "4,510 images",
        "--preset voc --epochs 14",
        "Of yolov4-tiny-voc.pth",
        "| 0.6100 |",
        "MIT license",
    ):
        assert said in card
    for missing in ("not known", "none recorded", "To fill in", "](../"):
        assert missing not in card
    assert card.count("\n## ") == 9
    weights = tmp_path / VOC_WEIGHTS.name
    weights.write_bytes(VOC_WEIGHTS.read_bytes())
    job, own = dataclasses.replace(job, source=weights), weights.with_suffix(".md")
    for other in (b"## Data\n\nOf another file.\n\xff", b"## Data\n\nOf another file.\n"):
        own.write_bytes(other)
        assert "Of another file" not in build_card(job, [], [], COMMAND)
        assert "its sections are not in MODEL_CARD.md" in capsys.readouterr().err
    own.write_text(
        card.replace("4,510 images", "All images, [mine](mailto:me@x.org), [list](list.txt)")
        + "\n## Citation\n\n```\n## Files\ny = blocks[0](x)\n```\n"
    )
    again = build_card(job, [], [], COMMAND)
    assert "All images, [mine](mailto:me@x.org), list" in again
    assert "--preset voc --epochs 14" in again
    assert again.endswith("## Citation\n\n```\n## Files\ny = blocks[0](x)\n```\n")
    assert again.count("\n## ") == 11
