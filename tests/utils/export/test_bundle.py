from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import export
import predict
from nets.yolo import HEADS
from tests.utils.export.device_models import BLOCK, SCRIPT, frame
from tests.voc_folder import make_voc_folder
from utils.export.bundle import build_card, device_command, write_bundle
from utils.weights.checkpoint import Checkpoint, save_checkpoint

LINES = {"best.onnx": "onnxruntime", "best.xml": "openvino", "best.ncnn.param": "ncnn"}


def bundle(job, folder: Path, *models: str) -> dict[str, str]:
    """Write models of nothing and what belongs beside them; returns the texts of the latter."""
    for name in ("best.pth", *models):
        (folder / name).write_bytes(b"x")
    written = write_bundle(job, folder, [folder / name for name in models], [], ["python", "export.py"])
    return {path.name: path.read_text(encoding="utf-8") for path in written}


@pytest.fixture
def job(make_job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("utils.export.bundle.read_content", lambda path: None)
    return make_job()


@pytest.mark.parametrize("models", [[], ["best.pth"], ["best.weights", "best.cfg"]])
def test_formats_without_a_runtime_get_no_script(job, tmp_path: Path, models: list[str]) -> None:
    assert set(bundle(job, tmp_path, *models)) == {"labels.txt", "MODEL_CARD.md"}
    assert device_command(tmp_path, models) is None


@pytest.mark.parametrize("models", [["best.onnx"], ["best.ncnn.param"], ["best.xml"], list(LINES)])
def test_only_the_runtimes_of_the_models_are_required(job, tmp_path: Path, models: list[str]) -> None:
    texts = bundle(job, tmp_path, *models, "best.pth")
    assert texts["labels.txt"] == "cat\ndög\n"
    assert texts["detect.py"] == SCRIPT.read_text(encoding="utf-8")
    names = [line.split(">")[0] for line in texts["requirements.txt"].splitlines()]
    assert sorted(names) == sorted(["numpy", "opencv-python-headless", *(LINES[model] for model in models)])
    assert "torch" not in texts["requirements.txt"]
    assert device_command(tmp_path / "a b", models) is None
    named = f" --model {models[0]}" if len(models) > 1 else ""
    assert device_command(tmp_path, models) == f"cd {tmp_path} && python detect.py photo.jpg{named}"


def test_models_of_an_earlier_export_keep_their_runtime(job, tmp_path: Path) -> None:
    earlier, later = tmp_path / "earlier", tmp_path / "later"
    (tmp_path / "best.pth").write_bytes(b"x")
    for folder, model in ((earlier, "best.onnx"), (later, "best.xml")):
        folder.mkdir()
        (folder / model).write_bytes(b"x")
    models = [later / "best.xml"]
    write_bundle(job, later, models, [], ["python", "export.py"], beside=earlier)
    needed = (later / "requirements.txt").read_text()
    assert "onnxruntime" in needed
    assert "openvino" in needed


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("flags", "heads"),
    [
        (["--format", "onnx", "openvino", "ncnn"], 2),
        (["--format", "onnx", "openvino", "ncnn"], 3),
        (["--format", "onnx", "--nms"], 2),
        (["--format", "onnx", "--batch", "3"], 2),
    ],
)
def test_the_folder_works_without_torch_and_without_us(
    make_job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], heads: int
) -> None:
    monkeypatch.chdir(tmp_path)
    job = make_job("cbam", heads=heads)
    for head in map(job.model.get_submodule, HEADS[:heads]):
        head.predict.weight.data *= 5
    save_checkpoint("best.pth", Checkpoint(job.config, job.class_names, job.model.state_dict()))
    Path("in").mkdir()
    for index, (height, width) in enumerate(((60, 90), (200, 40), (30, 300))):
        Image.fromarray(frame(height, width, index)).save(f"in/{index}.png")
    limits = ["--conf", "0.01", "--nms-iou", "0.4", "--max-det", "60"]
    assert predict.main(["in", "--weights", "best.pth", "--no-save", "--json", "wanted.jsonl", *limits]) == 0
    assert export.main(["--weights", "best.pth", "--project", ".", "--name", "out", *flags]) == 0
    for model in (path.name for path in Path("out").iterdir() if path.suffix in (".onnx", ".xml", ".param")):
        command = [sys.executable, "-I", "-c", BLOCK, "../in", "--model", model, "--json", "found.jsonl"]
        command += limits
        done = subprocess.run(command, cwd="out", env=os.environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        ours, theirs = (
            [json.loads(line)["detections"] for line in Path(name).read_text(encoding="utf-8").splitlines()]
            for name in ("wanted.jsonl", "out/found.jsonl")
        )
        assert sum(map(len, ours)) > 60
        for one, other in zip(ours, theirs, strict=True):
            assert [found["label"] for found in one] == [found["label"] for found in other]
            boxes, wanted = (np.array([found["box"] for found in part]) for part in (one, other))
            np.testing.assert_allclose(boxes, wanted, atol=0.1)


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
    assert "# training: not known" in card["Commands"]
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
    assert card["Classes"] == "2: Katze, dög"
    assert "python export.py --weights best.pth --name 'a b'" in card["Commands"]
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
    assert "python train.py --data voc --phi none --epochs 3 --imgsz 64 96 --seed 0\n" in card["Commands"]
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
    assert card["Classes"] == "2: Katze, Hund"
    assert "python train.py --data voc --val val --skip-bad\n" in card["Commands"]


def test_data_that_are_gone_are_not_known(build) -> None:
    assert build({}, {"data": "gone"})["Data"].startswith("not known: gone: no such folder")
