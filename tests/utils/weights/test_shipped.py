"""The weights that come with the project: model_data/yolov4-tiny-voc.pth."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from nets.config import ModelConfig
from utils.cli import inputs
from utils.cli.class_names import MODEL_DATA, read_class_names
from utils.cli.errors import UserError
from utils.cli.inputs import VOC_WEIGHTS
from utils.weights import load
from utils.weights.load import load_model, read_weights


def test_missing_ones_say_how_to_get_them_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "VOC_WEIGHTS", tmp_path / "gone.pth")
    with pytest.raises(UserError, match=r"gone\.pth: missing, .*git checkout -- .*--weights coco"):
        read_weights("voc")


def test_they_are_a_plain_network_for_vocs_classes() -> None:
    file = read_weights("voc")
    assert file.class_names == read_class_names(MODEL_DATA / "voc_classes.txt")
    assert file.config == ModelConfig(20, input_size=(352, 352))
    floating = [value for value in file.state_dict.values() if value.is_floating_point()]
    assert {value.dtype for value in floating} == {torch.float16}
    assert VOC_WEIGHTS.stat().st_size < 13e6


def test_they_compute_in_single_precision() -> None:
    model = load_model("voc").model
    with torch.inference_mode():
        maps = model(torch.full((1, 3, 64, 64), 0.5))
    assert all(part.dtype == torch.float32 and part.isfinite().all() for part in maps)


def test_the_card_is_that_of_the_file() -> None:
    card = VOC_WEIGHTS.with_suffix(".md").read_text(encoding="utf-8")
    assert hashlib.sha256(VOC_WEIGHTS.read_bytes()).hexdigest() in card


def test_the_first_picture_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch() -> Path:
        raise AssertionError("went to the network")

    monkeypatch.setattr(load, "ensure_coco_weights", fetch)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((40, 60, 3), dtype=np.uint8)).save("photo.png")
    assert predict.main(["photo.png", "--device", "cpu"]) == 0
    assert "yolov4-tiny-voc.pth" in capsys.readouterr().err
