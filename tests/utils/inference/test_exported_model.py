from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nets.config import ModelConfig
from utils.cli.errors import UserError
from utils.inference.runtimes import (
    DESCRIPTION_VERSION,
    ExportedModel,
    as_texts,
    choose_runtime_device,
    from_texts,
    import_runtime,
)

PATH = Path("best.onnx")


class Sums(ExportedModel):
    """Gives each image's sum and its negative, and remembers what it was fed."""

    def __init__(self, batch: int | None) -> None:
        super().__init__()
        self.batch = batch
        self.fed: list[int] = []

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        assert images.dtype == np.float32
        assert images.flags.c_contiguous
        self.fed.append(len(images))
        sums = images.sum(axis=(1, 2, 3)).reshape(-1, 1, 1, 1)
        return [sums, -sums]


def described_by(described: object) -> ExportedModel:
    model = Sums(None)
    model.path = PATH
    model.read_description(described)
    return model


@pytest.mark.parametrize(
    ("batch", "count", "fed"),
    [(None, 1, [1]), (None, 5, [5]), (1, 3, [1, 1, 1]), (4, 1, [4]), (4, 4, [4]), (4, 9, [4, 4, 4])],
)
def test_images_are_fed_as_the_model_takes_them(batch: int | None, count: int, fed: list[int]) -> None:
    model = Sums(batch)
    images = torch.rand(count, 3, 32, 64).contiguous(memory_format=torch.channels_last)
    first, second = model(images)
    assert model.fed == fed
    torch.testing.assert_close(first.flatten(), images.sum(dim=(1, 2, 3)))
    torch.testing.assert_close(second, -first)


def describe(**changes: object) -> dict[str, object]:
    return {
        "format_version": DESCRIPTION_VERSION,
        "class_names": ["cat", "dög"],
        "input_size": [64, 96],
        "anchors": [[1.5, 2], [3, 4], [5, 6], [7, 8]],
        "anchor_masks": [[2, 3], [0, 1]],
        "scale_x_y": 1.2,
        "phi": "own.py:Own",
        "channels": "RGB",
    } | changes


def test_a_description_survives_as_texts() -> None:
    texts = as_texts(describe())
    assert all(isinstance(value, str) for value in texts.values())
    assert texts["phi"] == "own.py:Own"
    model = described_by(from_texts(PATH, texts))
    assert model.class_names == ("cat", "dög")
    assert model.config == ModelConfig(
        2,
        phi="own.py:Own",
        input_size=(64, 96),
        anchors=((1.5, 2), (3, 4), (5, 6), (7, 8)),
        anchor_masks=((2, 3), (0, 1)),
        scale_x_y=1.2,
    )


@pytest.mark.parametrize("texts", [{}, {"producer": "someone {"}])
def test_other_peoples_metadata_are_no_description(texts: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"best.onnx: does not say .*export the weights with export.py"):
        described_by(from_texts(PATH, texts))


@pytest.mark.parametrize(
    ("described", "reason"),
    [
        ([], "no format_version"),
        (describe(format_version=DESCRIPTION_VERSION + 1), "update it"),
        (describe(format_version="one"), "update it"),
        (describe(anchors=None), "incomplete"),
        (describe(anchors=[["a", "b"]]), "incomplete"),
        (describe(input_size=[64, 65]), "multiples of 32"),
        (describe(class_names=[]), "num_classes"),
        (describe(scale_x_y="1"), "incomplete"),
        ({"format_version": 1}, "class_names"),
    ],
)
def test_a_broken_description_is_one_line(described: object, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        described_by(described)
    assert str(caught.value).startswith("best.onnx: ")
    assert "\n" not in str(caught.value)


def test_damaged_metadata_are_named() -> None:
    with pytest.raises(UserError, match=r"best.onnx: its metadata are damaged"):
        from_texts(PATH, as_texts(describe()) | {"anchors": "[[1, "})
    assert json.loads(as_texts(describe())["class_names"]) == ["cat", "dög"]


def test_a_missing_runtime_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"best.onnx: .* onnxruntime, .*pip install -r requirements-export"):
        import_runtime("onnxruntime", PATH)


@pytest.mark.parametrize(
    ("device", "torch_has", "runtime_has", "expected"),
    [
        ("cpu", ["cpu", "cuda:0"], ("cpu", "cuda"), "cpu"),
        ("auto", ["cpu"], ("cpu", "cuda"), "cpu"),
        ("auto", ["cpu", "cuda:0"], ("cpu",), "cpu"),
        ("auto", ["cpu", "cuda:0"], ("cpu", "cuda"), "cuda:0"),
        ("cuda:1", ["cpu", "cuda:0", "cuda:1"], ("cpu", "cuda"), "cuda:1"),
        ("cuda", ["cpu", "cuda:0"], ("cpu",), "supports only cpu; use --device cpu"),
        ("mps", ["cpu", "mps"], ("cpu", "cuda"), "supports only cpu, cuda;"),
        ("cuda", ["cpu"], ("cpu", "cuda"), "not on this machine, which has cpu"),
    ],
)
def test_the_device_is_one_that_both_have(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    torch_has: list[str],
    runtime_has: tuple[str, ...],
    expected: str,
) -> None:
    monkeypatch.setattr("utils.inference.device.available_devices", lambda: torch_has)
    if " " in expected:
        with pytest.raises(UserError, match=f"--device {device}: .*{expected}"):
            choose_runtime_device(device, "A runtime", runtime_has)
    else:
        assert choose_runtime_device(device, "A runtime", runtime_has) == torch.device(expected)
