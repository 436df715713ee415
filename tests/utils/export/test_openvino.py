"""OpenVINO in the slow way: each test that exports takes seconds."""

import json
import sys
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from torch import nn

from utils.cli.errors import UserError
from utils.export.exporter import FORMATS, export_as
from utils.inference.runtimes import OpenVinoModel

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.mark.slow
@pytest.mark.parametrize("batch", [None, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_heads_shapes_and_description(make_job, tmp_path, batch, capfd):
    job = make_job("ca", batch=batch)
    (path, weights), differences = export_as("openvino", job, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert (path.name, weights.name) == ("best.xml", "best.bin")
    assert sorted(tmp_path.iterdir()) == [weights, path]
    (difference,) = (one.heads for one in differences.values())
    assert difference < 1e-4
    model = openvino.Core().read_model(path)
    assert model.input("images").partial_shape == openvino.PartialShape([batch or -1, 3, 64, 96])
    found = model.get_rt_info(["yolov4_tiny"]).value
    described = job.metadata()
    texts = {"phi": "ca", "channels": "RGB"}
    assert {key: value if key in texts else json.loads(value) for key, value in found.items()} == described
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for count in (1, 3) if batch is None else (batch,):
        images = torch.rand(count, 3, 64, 96)
        with torch.no_grad():
            expected = job.model(images)
        got = compiled({"images": images.numpy()})
        for ours, head in zip(expected, ("p5", "p4"), strict=True):
            assert ours.abs().max() > 0.1  # the comparison is of numbers that matter
            np.testing.assert_allclose(ours.numpy(), got[head], rtol=0, atol=1e-3)
    assert str(REPOSITORY).encode() not in path.read_bytes()
    assert b"site-packages" not in path.read_bytes()


@pytest.mark.slow
def test_half_is_small_and_computes_in_32_bits(make_job, tmp_path):
    job = make_job(half=True)
    (path, weights), differences = export_as("openvino", job, tmp_path)
    assert weights.stat().st_size < 0.55 * 4 * sum(value.numel() for value in job.state_dict().values())
    (difference,) = (one.heads for one in differences.values())
    assert 0 < difference < 1e-2
    assert OpenVinoModel(path, "cpu")(torch.zeros(1, 3, 64, 96))[0].dtype == torch.float32


class Forgetful(nn.Module):
    """What the exporter takes for a constant."""

    def forward(self, x):
        return x * float(torch.rand(()) if torch.compiler.is_exporting() else 1)


@pytest.mark.slow
def test_a_model_that_computes_something_else_is_refused(job, tmp_path):
    job.model.attention["c5"] = Forgetful()
    with pytest.raises(UserError, match=r"--format openvino: in OpenVINO .* the raw heads differ") as caught:
        export_as("openvino", job, tmp_path)
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "openvino"])
def test_a_missing_package_is_named_with_its_remedy(job, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    expected = f"--format openvino: cannot import {package} .*pip install -r requirements-export.txt"
    with pytest.raises(UserError, match=expected):
        FORMATS["openvino"].check(job)
