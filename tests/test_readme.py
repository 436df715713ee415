"""The commands of the README and the guide run one after another, as a newcomer types them."""

from __future__ import annotations

import importlib
import importlib.util
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.layout_folders import Layout, side_by_side
from tests.test_docs import ROOT, commands
from utils.cli.inputs import COCO_WEIGHTS

SHORT = ["--epochs", "1", "--imgsz", "64", "--batch-size", "4", "--workers", "0", "--weights", "none"]


def section(title: str, page: str = "README.md") -> list[str]:
    """Return the commands of the first block below a heading."""
    text = (ROOT / page).read_text(encoding="utf-8").partition(f"\n## {title}\n")[2]
    return list(commands(text.partition("\n## ")[0].partition("\n- ")[0]))


def run(line: str, *more: str) -> None:
    _, script, *argv = shlex.split(line, comments=True)
    assert importlib.import_module(script.removesuffix(".py")).main([*argv, *more]) == 0, line


def write_my_images() -> None:
    images = [f"{number}.jpg" for number in range(12)]
    Layout(side_by_side(*images, "test/12.jpg", "test/13.jpg"), {}).write(Path("my_images"))


@pytest.mark.slow
def test_train_on_your_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    write_my_images()
    lines = section("Train on your own data")
    assert len(lines) >= 6
    for line in lines:
        training = " train.py " in line
        assert not training or "--epochs 50" in line
        run(line, *(SHORT if training else []))
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "title",
    [
        "A few hundred images and a laptop",
        pytest.param("A student who compares attention blocks", marks=pytest.mark.exhaustive),
        pytest.param("An engineer with a device", marks=pytest.mark.exhaustive),
    ],
)
def test_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, title: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_my_images()
    lines = section(title, "docs/guide.md")
    assert len(lines) >= 3
    for line in lines:
        if " compare.py --data " in line:
            run(line, *SHORT, "--seeds", "0", "--phi", "none", "se")
        elif " train.py " in line:
            run(line, *SHORT)
        elif " export.py " not in line or importlib.util.find_spec(line.split("--format ")[1].split()[0]):
            run(line)
