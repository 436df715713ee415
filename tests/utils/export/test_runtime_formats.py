"""ONNX, OpenVINO and ncnn, read by their runtimes; each test that exports takes seconds."""

import json
import sys
from pathlib import Path

import ncnn
import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from onnx import helper
from torch import nn

from utils.cli.errors import UserError
from utils.export import ncnn as ncnn_format
from utils.export.exporter import FORMATS, export_as, staged
from utils.inference.runtimes import OpenVinoModel

REPOSITORY = Path(__file__).resolve().parents[3]
GROUPED = f"{REPOSITORY}/tests/grouped_block.py:SGE"
FILES = {
    "onnx": ["best.onnx"],
    "openvino": ["best.xml", "best.bin"],
    "ncnn": ["best.ncnn.param", "best.ncnn.bin", "best.ncnn.json"],
}


def parse(texts):
    return {key: value if key in ("phi", "channels") else json.loads(value) for key, value in texts.items()}


def read_onnx(path):
    """Return the batch, the metadata and a function from images to raw heads."""
    model = onnx.load(path)
    assert (model.ir_version, [(one.domain, one.version) for one in model.opset_import]) == (8, [("", 18)])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.shape[1:], given.type) == ("images", [3, 64, 96], "tensor(float)")
    assert {head.type for head in session.get_outputs()} == {"tensor(float)"}
    described = parse(session.get_modelmeta().custom_metadata_map)
    heads = ["p5", "p4", "p3"][: len(described["anchor_masks"])]
    return given.shape[0], described, lambda images: session.run(heads, {"images": images})


def read_openvino(path):
    model = openvino.Core().read_model(path)
    shape = model.input("images").partial_shape
    assert shape[1:] == openvino.PartialShape([3, 64, 96])
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    batch = shape[0].get_length() if shape[0].is_static else "batch"
    described = parse(model.get_rt_info(["yolov4_tiny"]).value)
    heads = ["p5", "p4", "p3"][: len(described["anchor_masks"])]
    return batch, described, lambda images: [compiled({"images": images})[head] for head in heads]


def read_ncnn(path):
    net = ncnn.Net()
    net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = net.opt.use_fp16_packed = False
    assert net.load_param(str(path)) == net.load_model(str(path.with_suffix(".bin"))) == 0

    described = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))

    def run(images):
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(images[0]))
        heads = [f"out{head}" for head in range(len(described["anchor_masks"]))]
        return [np.array(extractor.extract(name)[1])[None] for name in heads]

    return 1, described, run


READERS = {"onnx": read_onnx, "openvino": read_openvino, "ncnn": read_ncnn}


def rarely(*values):
    return pytest.param(*values, marks=pytest.mark.exhaustive)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "phi", "batch", "heads"),
    [
        *(rarely("onnx", "ca", batch, 2) for batch in (None, 2)),
        ("openvino", "ca", None, 2),
        rarely("openvino", "ca", 2, 2),
        ("ncnn", "ca", 1, 2),  # test_runtimes.py has cbam, whose layers include those of se and none
        *(rarely("ncnn", phi, 1, 2) for phi in ("none", "se", "cbam", "eca")),
        ("onnx", GROUPED, None, 2),
        *(rarely(name, GROUPED, 1 if name == "ncnn" else None, 2) for name in ("openvino", "ncnn")),
        *((name, "cbam", 1 if name == "ncnn" else None, 3) for name in FILES),
        *(rarely(name, "none", 1 if name == "ncnn" else None, 3) for name in FILES),
    ],
)
def test_heads_and_metadata(make_job, tmp_path, capfd, name, phi, batch, heads):
    job = make_job(phi, batch=batch, heads=heads)
    files, measured = export_as(name, job, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in files] == FILES[name]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert [one.heads < 1e-4 for one in measured.values()] == [True]
    found, described, run = READERS[name](files[0])
    assert found == (batch or "batch")
    assert described == job.metadata()
    assert (described["letterbox"]["fill"], described["class_names"]) == (128, ["cat", "dög"])
    for count in (1, 3) if batch is None else (batch,):
        images = torch.rand(count, 3, 64, 96)
        with torch.no_grad():
            expected = job.model(images)
        assert len(expected) == heads
        for ours, theirs in zip(expected, run(images.numpy()), strict=True):
            assert ours.abs().max() > 0.1  # the comparison is of numbers that matter
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-3)
    for path in files:  # no stack traces of this machine
        assert not any(part in path.read_bytes() for part in (str(REPOSITORY).encode(), b"site-packages"))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_half_is_small_and_takes_and_returns_32_bits(make_job, tmp_path, name):
    job = make_job(half=True)
    files, measured = export_as(name, job, tmp_path)
    weights = next(path for path in files if path.suffix in (".onnx", ".bin"))
    assert weights.stat().st_size < 0.55 * 4 * sum(value.numel() for value in job.state_dict().values())
    assert [0 < one.heads < 1e-2 for one in measured.values()] == [True]
    assert next(job.model.parameters()).dtype == torch.float32  # the network itself is left alone
    if name == "onnx":
        read_onnx(files[0])
    if name == "openvino":
        assert OpenVinoModel(files[0], "cpu")(torch.zeros(1, 3, 64, 96))[0].dtype == torch.float32


class Fourier(nn.Module):
    """Complex numbers, which torch exports in 32 bits only."""

    def forward(self, x):
        return x + torch.fft.irfft2(torch.fft.rfft2(x), s=x.shape[2:])


@pytest.mark.slow
def test_half_is_left_out_where_it_cannot_be_exported(make_job, tmp_path):
    job = make_job(half=True)
    job.model.attention["c5"] = Fourier()
    with pytest.raises(UserError, match=r"cannot export this network: .*; leave out --half, change the att"):
        export_as("onnx", job, tmp_path)


class Unsupported(nn.Module):
    def forward(self, x):
        return torch.linalg.svd(x)[0][..., :1] * x


class Broken(nn.Module):
    def forward(self, x):
        raise ValueError("no block\nat all")


class Forgetful(nn.Module):
    """What the exporter takes for a constant."""

    def forward(self, x):
        return x * float(torch.rand(()) if torch.compiler.is_exporting() else 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "block", "words"),
    [
        ("onnx", Unsupported, "torch cannot export this network: .*linalg_svd"),
        ("onnx", Forgetful, "in ONNX Runtime .* the raw heads differ"),
        ("openvino", Forgetful, "--format openvino: in OpenVINO .* the raw heads differ"),
        ("ncnn", Unsupported, "--format ncnn: cannot convert .*svd"),
        ("ncnn", Broken, "--format ncnn: cannot convert .*ValueError: no block; "),
    ],
)
def test_what_cannot_be_exported_is_one_line(job, tmp_path, capfd, name, block, words):
    job.model.attention["c5"] = block()
    with pytest.raises(UserError, match=words) as caught, staged(tmp_path, job.source) as folder:
        export_as(name, job, folder)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_graph_that_never_ends_is_given_up(job, tmp_path, monkeypatch):
    monkeypatch.setattr(ncnn_format, "_TIMEOUT", 0.01)
    with pytest.raises(UserError, match=r"the conversion takes longer than 0.01 s"):
        export_as("ncnn", job, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_only_onnx_supports_is_said_of_the_others(make_job):
    assert make_job(ends_in_nms=True).unsupported_options("onnx") == []
    assert make_job().unsupported_options("openvino") == []
    notes = make_job(ends_in_nms=True, opset=17).unsupported_options("openvino")
    assert notes == [
        f"openvino: exported without {flag}, which only ONNX supports" for flag in ("--nms", "--opset")
    ]


def test_each_ncnn_operation_that_is_missing_is_named(tmp_path):
    lines = ["7767517", "5 5", "Input in0 0 1 in0", "pnnx.Expression e 0 1 1", "aten::sort s 2 1 in0 1 2"]
    (tmp_path / "a.param").write_text("\n".join([*lines, "aten::sort t 1 1 2 3", "F.fold f 1 1 3 4"]) + "\n")
    assert ncnn_format._foreign_operations(tmp_path / "a.param") == ["F.fold", "aten::sort"]
    (tmp_path / "a.param").write_text("\n".join(lines[:4]) + "\n")
    assert ncnn_format._foreign_operations(tmp_path / "a.param") == ["pnnx.Expression"]
    (tmp_path / "a.param").write_text("\n".join(lines[:3]) + "\n")
    assert ncnn_format._foreign_operations(tmp_path / "a.param") == []


def test_the_operation_that_openvino_lacks_is_named(job, tmp_path, monkeypatch):
    x, y = (helper.make_tensor_value_info(name, 1, [2, 2] if name == "x" else []) for name in "xy")
    graph = helper.make_graph([helper.make_node("Det", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    monkeypatch.setattr("utils.export.onnx.trace", lambda *_, **__: model)
    with pytest.raises(
        UserError, match=r"OpenVINO cannot load this network: it has no operation Det"
    ) as caught:
        FORMATS["openvino"].write(job, tmp_path)
    assert "\n" not in str(caught.value)


def test_only_one_image_at_a_time_is_said(make_job):
    assert FORMATS["ncnn"].notes(make_job()) == []
    assert "one image at a time" in FORMATS["ncnn"].notes(make_job(batch=None))[0]


@pytest.mark.parametrize(
    ("name", "package"), [(name, package) for name in FILES for package in FORMATS[name].packages]
)
def test_a_missing_package_is_named_with_its_remedy(job, monkeypatch, name, package):
    for other in FORMATS[name].packages:
        monkeypatch.setitem(sys.modules, other, None if other == package else sys)
    with pytest.raises(
        UserError, match=f"needs {package}, which cannot be .*pip install -r requirements-export.txt"
    ):
        FORMATS[name].check(job)


def test_a_file_that_is_no_model_is_refused(job, tmp_path):
    (tmp_path / "best.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"ONNX Runtime [\d.]+ cannot load the model"):
        FORMATS["onnx"].runners(job, tmp_path / "best.onnx")
