"""The commands of the README run one after another, as a newcomer types them."""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.layout_folders import Layout, side_by_side
from tests.test_docs import ROOT, commands
from utils.cli.inputs import COCO_WEIGHTS


def section(title: str) -> list[str]:
    """Return the commands of the first block below a heading."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition(f"\n## {title}\n")[2]
    return list(commands(text.partition("\n## ")[0].partition("\n- ")[0]))


def run(line: str, *more: str) -> None:
    _, script, *argv = shlex.split(line, comments=True)
    assert importlib.import_module(script.removesuffix(".py")).main([*argv, *more]) == 0, line


@pytest.mark.slow
def test_train_on_your_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    images = [f"{number}.jpg" for number in range(12)]
    Layout(side_by_side(*images, "test/12.jpg", "test/13.jpg"), {}).write(Path("my_images"))
    lines = section("Train on your own data")
    assert len(lines) >= 6
    for line in lines:
        training = " train.py " in line
        assert not training or "--epochs 50" in line
        short = ["--epochs", "1", "--imgsz", "64", "--batch-size", "4", "--workers", "0"]
        run(line, *([*short, "--weights", "none"] if training else []))
    assert len(Path("found.jsonl").read_text().splitlines()) == 2
    assert {path.name for path in Path("runs/train").iterdir()} == {"exp", "exp2"}
    assert list(Path("runs/export").rglob("*.onnx"))


@pytest.mark.slow
def test_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save("street.jpg")
    for line in section("Predict"):
        if "coco" not in line or COCO_WEIGHTS.is_file():
            run(line)
    assert Path("runs/predict/exp/street.jpg").is_file()
