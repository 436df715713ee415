"""ncnn in the slow way: each test that exports takes seconds."""

import json
import sys
from pathlib import Path

import ncnn
import numpy as np
import pytest
import torch
from torch import nn

from utils.cli.errors import UserError
from utils.export import ncnn as ncnn_format
from utils.export.exporter import FORMATS, export_as

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.mark.slow
@pytest.mark.parametrize(  # backends/test_load.py has cbam, whose layers include those of the first two
    "phi", ["eca", "ca", *(pytest.param(phi, marks=pytest.mark.exhaustive) for phi in ("none", "se", "cbam"))]
)
def test_heads_and_description(make_job, tmp_path, phi, capfd):
    job = make_job(phi)
    (path, weights, description), differences = export_as("ncnn", job, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert [path.name, weights.name] == ["best.ncnn.param", "best.ncnn.bin"]
    assert sorted(tmp_path.iterdir()) == [weights, description, path]
    (difference,) = (one.heads for one in differences.values())
    assert difference < 1e-4
    assert json.loads(description.read_text(encoding="utf-8")) == job.metadata()
    net = ncnn.Net()
    net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = net.opt.use_fp16_packed = False
    assert net.load_param(str(path)) == net.load_model(str(weights)) == 0
    extractor = net.create_extractor()
    image = torch.rand(3, 64, 96)
    extractor.input("in0", ncnn.Mat(image.numpy()))
    with torch.no_grad():
        expected = job.model(image[None])
    for ours, name in zip(expected, ("out0", "out1"), strict=True):
        assert ours.abs().max() > 0.1  # the comparison is of numbers that matter
        np.testing.assert_allclose(ours[0].numpy(), np.array(extractor.extract(name)[1]), rtol=0, atol=1e-3)
    assert str(REPOSITORY).encode() not in path.read_bytes()


@pytest.mark.slow
def test_half_is_small(make_job, tmp_path):
    job = make_job(half=True)
    (_, weights, _), differences = export_as("ncnn", job, tmp_path)
    assert weights.stat().st_size < 0.55 * 4 * sum(value.numel() for value in job.state_dict().values())
    (difference,) = (one.heads for one in differences.values())
    assert 0 < difference < 1e-2


class Unsupported(nn.Module):
    def forward(self, x):
        return torch.linalg.svd(x)[0][..., :1] * x


class Broken(nn.Module):
    def forward(self, x):
        raise ValueError("no block\nat all")


@pytest.mark.slow
@pytest.mark.parametrize(("block", "reason"), [(Unsupported, "svd"), (Broken, "ValueError: no block; ")])
def test_what_cannot_be_converted_is_one_line(job, tmp_path, block, reason, capfd):
    job.model.attention["c5"] = block()
    with pytest.raises(UserError, match=f"--format ncnn: cannot convert .*{reason}") as caught:
        export_as("ncnn", job, tmp_path)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_graph_that_never_ends_is_given_up(make_job, tmp_path, monkeypatch):
    monkeypatch.setattr(ncnn_format, "_TIMEOUT", 0.01)
    with pytest.raises(UserError, match=r"the conversion takes longer than 0.01 s"):
        export_as("ncnn", make_job(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_one_image_at_a_time_is_said(make_job):
    assert FORMATS["ncnn"].notes(make_job()) == []
    assert "one image at a time" in FORMATS["ncnn"].notes(make_job(batch=None))[0]


@pytest.mark.parametrize("package", ["ncnn", "pnnx"])
def test_a_missing_package_is_named_with_its_remedy(job, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    expected = f"--format ncnn: cannot import {package} .*pip install -r requirements-export.txt"
    with pytest.raises(UserError, match=expected):
        FORMATS["ncnn"].check(job)
