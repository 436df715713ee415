"""Weights with anchors of their own: every exported file detects what the .pth does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import export
from nets.config import USUAL_ANCHORS, ModelConfig
from nets.structures import Detections
from nets.yolo import HEADS, YoloBody
from utils.inference.predictor import Predictor
from utils.weights.checkpoint import Checkpoint, save_checkpoint
from utils.weights.darknet_cfg import read_cfg

NAMES = ("cat", "dog")
CUSTOM = ((3, 4, 5), (0, 1, 2))  # yolov4-tiny-custom.cfg
OWN = ((5, 7.5), (9, 6), (12, 14), (21, 17), (30, 44), (60, 51))
IMAGE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


def save(path: Path, **changes) -> ModelConfig:
    """Write weights at 64 x 96 pixels that see something everywhere."""
    torch.manual_seed(0)
    model = YoloBody(ModelConfig(2, input_size=(64, 96), **changes)).eval()
    for head in map(model.get_submodule, HEADS[: model.config.num_heads]):
        torch.nn.init.normal_(head.predict.weight, std=0.1)
        torch.nn.init.zeros_(head.predict.bias)
    save_checkpoint(path, Checkpoint(model.config, NAMES, model.state_dict()))
    return model.config


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def detect(path: Path | str, **options) -> Detections:
    return Predictor.from_checkpoint(path, device="cpu", conf=0.01, classes=NAMES, **options)(IMAGE)


def check_same(ours: Detections, theirs: Detections, tolerance: float = 1e-4) -> None:
    assert 0 < len(ours) == len(theirs)
    torch.testing.assert_close(ours.boxes, theirs.boxes, rtol=0, atol=tolerance)
    torch.testing.assert_close(ours.scores, theirs.scores, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "changes",
    [
        {"anchor_masks": CUSTOM},
        {"anchors": OWN, "anchor_masks": CUSTOM, "scale_x_y": 1.2},
        dict(zip(("anchors", "anchor_masks"), USUAL_ANCHORS[3], strict=True)),
    ],
)
def test_darknet_files_detect_what_the_weights_do(room: Path, changes: dict) -> None:
    config = save(room / "best.pth", **changes)
    assert export.main(["--weights", "best.pth", "--format", "darknet"]) == 0
    written = room / "runs/export/exp/best.weights"
    assert read_cfg(written.with_suffix(".cfg")) == config
    check_same(detect(written), detect("best.pth"))
    assert export.main(["--weights", str(written), "--classes", "runs/export/exp/labels.txt",
                        "--format", "darknet"]) == 0  # fmt: skip
    for suffix in (".weights", ".cfg"):
        again = room / "runs/export/exp2/best"
        assert again.with_suffix(suffix).read_bytes() == written.with_suffix(suffix).read_bytes()
