"""8-bit models: what is quantized, what stays, and that a loss of accuracy is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

import export
from tests.test_export import make_weights
from tests.voc_folder import make_voc_folder
from utils.cli.errors import UserError
from utils.export.exporter import export_as
from utils.export.int8 import check_accuracy, quantize
from utils.export.job import Quantization
from utils.export.onnx import trace


def with_judge(job, *numbers: float, pictures: int = 4):
    """Return an 8-bit job with a judge that returns one number after the other."""
    generator, left = torch.Generator().manual_seed(0), iter(numbers)
    images = [torch.rand((1, 3, 64, 96), generator=generator) for _ in range(pictures)]
    return dataclasses.replace(job, quantization=Quantization(images, lambda model: next(left)))


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.0), (0.5, 0.495), (0.5, 0.6), (0.5, 0.49)])
def test_at_most_a_point_may_be_lost(job, before: float, after: float) -> None:
    measured = check_accuracy(with_judge(job, before, after), job.model)
    assert measured == f"mAP50 {before:.4f} in PyTorch, {after:.4f} with 8 bits"


def test_more_than_a_point_is_refused(job) -> None:
    words = r"mAP50 0\.5000 in PyTorch, 0\.4800 with 8 bits; at most 0\.01"
    with pytest.raises(UserError, match=words) as caught:
        check_accuracy(with_judge(job, 0.5, 0.48), job.model)
    assert caught.value.exit_code == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch", "ends_in_nms", "heads"),
    [(1, False, 2), pytest.param(None, True, 3, marks=pytest.mark.exhaustive)],
)
def test_weights_have_8_bits_but_for_the_first_and_the_last_convolutions(
    make_job, tmp_path: Path, capfd, batch, ends_in_nms, heads
) -> None:
    job = with_judge(make_job("se", batch=batch, ends_in_nms=ends_in_nms, heads=heads), 0.5, 0.5)
    (path,), measured = export_as("onnx", job, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == [path]
    assert list(measured.values()) == ["mAP50 0.5000 in PyTorch, 0.5000 with 8 bits"]
    parameters = sum(value.numel() for value in job.model.parameters())
    assert parameters < path.stat().st_size < 1.3 * parameters
    model = onnx.load(path)
    assert (model.ir_version, [(one.domain, one.version) for one in model.opset_import]) == (8, [("", 18)])
    graph = model.graph
    kinds = {one.name: (one.data_type, list(one.dims)) for one in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    plain = [node for node in convolutions if node.input[1] in kinds]  # weights that nothing dequantizes
    assert [kinds[node.input[1]][1][0] for node in plain] == [32] + [21] * heads
    for node in convolutions:
        if node in plain:
            continue
        dequantize = producers[node.input[1]]
        weight, scale = dequantize.input[:2]
        assert kinds[weight][0] == onnx.TensorProto.INT8
        assert kinds[scale][1] == [kinds[weight][1][0]]  # one scale a channel


@pytest.mark.slow
def test_values_stay_near(make_job, tmp_path: Path) -> None:
    job = with_judge(make_job(), pictures=8)
    small = quantize(trace("onnx", job, half=False), job.quantization.pictures, tmp_path)
    session = onnxruntime.InferenceSession(small.SerializeToString(), providers=["CPUExecutionProvider"])
    image = next(iter(job.quantization.pictures))
    with torch.no_grad():
        expected = job.model(image)
    for ours, theirs in zip(expected, session.run(["p5", "p4"], {"images": image.numpy()}), strict=True):
        difference = (ours - torch.from_numpy(theirs)).abs()
        assert 0 < difference.mean() < 0.1 * ours.abs().mean()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_calibrates_and_judges(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    make_voc_folder(tmp_path / "data", 6, 4)
    make_weights(tmp_path / "best.pth")
    argv = ["--weights", "best.pth", "--int8", "--data", "data", "--split", "val"]
    assert export.main(argv) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "onnx: mAP50 " in out
    assert out.splitlines()[-1] == "next: cd runs/export/exp && python detect.py photo.jpg"
    assert " with 8 bits (ONNX Runtime" in out
    assert (tmp_path / "runs/export/exp/best.onnx").stat().st_size < 8e6
    assert {path.name for path in tmp_path.iterdir()} == {"best.pth", "data", "runs"}  # nothing in passing
