from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import export
import predict
from nets.yolo import HEADS
from tests.utils.export.device_models import BLOCK, SCRIPT, frame
from utils.export.bundle import device_command, write_bundle
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
    monkeypatch.setattr("utils.export.card.read_content", lambda path: None)
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


def test_requirements_have_bounds_and_those_of_a_newer_opset_the_version_that_checked_it(
    make_job, job, tmp_path: Path
) -> None:
    lines = bundle(job, tmp_path, *LINES)["requirements.txt"].splitlines()
    assert all(">=" in line for line in lines)
    assert "onnxruntime>=1.15,<2" in lines  # opset 18, IR 8
    for opset, floor in ((17, "1.15"), (18, "1.15"), (21, onnxruntime.__version__)):
        lines = bundle(make_job(opset=opset), tmp_path, "best.onnx")["requirements.txt"].splitlines()
        assert f"onnxruntime>={floor},<2" in lines


def test_the_script_is_python_3_9() -> None:
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 9))
    names = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    assert "strict" not in names  # of zip, since 3.10
    assert ast.unparse(tree.body[1]) == "from __future__ import annotations"  # X | Y is never evaluated


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
