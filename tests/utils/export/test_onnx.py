"""ONNX in the slow way: each test that exports takes seconds."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from utils.cli.errors import UserError
from utils.export.exporter import FORMATS, export_as

REPOSITORY = Path(__file__).resolve().parents[3]


def session_of(path):
    return pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch", "shown"), [(None, "batch"), pytest.param(2, 2, marks=pytest.mark.exhaustive)]
)
def test_heads_shapes_and_metadata(make_job, tmp_path, batch, shown, capfd):
    job = make_job("ca", batch=batch)
    (path,), differences = export_as("onnx", job, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == [path]
    assert path.name == "best.onnx"
    (difference,) = (one.heads for one in differences.values())
    assert difference < 1e-4
    session = session_of(path)
    (given,) = session.get_inputs()
    assert (given.name, given.shape, given.type) == ("images", [shown, 3, 64, 96], "tensor(float)")
    assert [head.name for head in session.get_outputs()] == ["p5", "p4"]
    found = session.get_modelmeta().custom_metadata_map
    described = job.metadata()
    assert described["letterbox"]["fill"] == 128
    assert described["class_names"] == ["cat", "dög"]
    texts = {key: value for key, value in found.items() if key in ("phi", "channels")}
    assert texts == {"phi": "ca", "channels": "RGB"}
    assert {key: json.loads(value) for key, value in found.items() if key not in texts} | texts == described
    for count in (1, 3) if batch is None else (batch,):
        images = torch.rand(count, 3, 64, 96)
        with torch.no_grad():
            expected = job.model(images)
        for ours, theirs in zip(expected, session.run(["p5", "p4"], {"images": images.numpy()}), strict=True):
            assert ours.abs().max() > 0.1  # the comparison is of numbers that matter
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-3)
    assert str(REPOSITORY).encode() not in path.read_bytes()  # no stack traces of this machine
    assert b"site-packages" not in path.read_bytes()


@pytest.mark.slow
def test_half_is_small_and_speaks_32_bits(make_job, tmp_path):
    job = make_job(half=True)
    (path,), differences = export_as("onnx", job, tmp_path)
    assert path.stat().st_size < 0.55 * 4 * sum(value.numel() for value in job.state_dict().values())
    session = session_of(path)
    assert {end.type for end in (*session.get_inputs(), *session.get_outputs())} == {"tensor(float)"}
    (difference,) = (one.heads for one in differences.values())
    assert 0 < difference < 1e-2
    assert next(job.model.parameters()).dtype == torch.float32  # the network itself is left alone


class Unsupported(nn.Module):
    def forward(self, x):
        return torch.linalg.svd(x)[0][..., :1] * x


class Forgetful(nn.Module):
    """What the exporter takes for a constant."""

    def forward(self, x):
        return x * float(torch.rand(()) if torch.compiler.is_exporting() else 1)


@pytest.mark.slow
def test_what_torch_cannot_export_is_one_line(job, tmp_path, capfd):
    job.model.attention["c5"] = Unsupported()
    with pytest.raises(UserError, match=r"torch cannot export this network: .*linalg_svd") as caught:
        export_as("onnx", job, tmp_path)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_model_that_computes_something_else_is_refused(job, tmp_path):
    job.model.attention["c5"] = Forgetful()
    with pytest.raises(UserError, match=r"in ONNX Runtime .* the raw heads differ") as caught:
        export_as("onnx", job, tmp_path)
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_its_remedy(job, monkeypatch, package):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None if name == package else sys)
    with pytest.raises(UserError, match=f"import {package} .*pip install -r requirements-export.txt"):
        FORMATS["onnx"].check(job)


def test_a_file_that_is_no_model_is_refused(job, tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "best.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="ONNX Runtime cannot load the model"):
        FORMATS["onnx"].runners(job, tmp_path / "best.onnx")
