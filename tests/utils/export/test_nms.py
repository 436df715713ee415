"""ONNX models that end in NMS: the same detections as ours, with thresholds that a caller may set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from utils.export.exporter import export_as
from utils.inference.predictor import Predictor
from utils.inference.runtimes import OnnxModel


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.exhaustive)])
def made(tmp_path_factory, request):
    """A job and its model of any batch."""
    from tests.utils.export.conftest import make_job

    pytest.importorskip("onnxruntime")
    job = make_job(batch=None, ends_in_nms=True, heads=request.param)
    (path,), measured = export_as("onnx", job, tmp_path_factory.mktemp("nms"))
    return job, path, measured


def predictors(made, **settings):
    job, path, _ = made
    networks = (job.model, OnnxModel(path, "cpu"))
    return [Predictor(network, job.config, job.class_names, **settings) for network in networks]


@pytest.mark.slow
def test_the_model_says_what_goes_in_and_out(made):
    _, path, measured = made
    import onnx

    model = onnx.load(path)
    assert (model.ir_version, [(one.domain, one.version) for one in model.opset_import]) == (8, [("", 18)])
    graph = model.graph
    assert [one.name for one in graph.input] == ["images", "conf", "nms_iou", "max_det"]
    assert [one.name for one in graph.output] == ["detections"]
    (parity,) = measured.values()
    assert parity.heads is None
    assert parity.boxes > 10
    backend = OnnxModel(path, "cpu")
    assert backend.ends_in_nms
    (found,) = backend.run(np.zeros((1, 3, 64, 96), np.float32))  # thresholds have default values
    assert found.shape == (1, 100, 6)
    assert (np.diff(found[0, :, 4]) <= 0).all()
    assert found[0][found[0, :, 4] > 0][:, 4].min() > 0.25


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"conf": 1.0},  # nothing
        {"conf": 0.25},
        {"conf": 0.001, "max_det": 1000},
        {"conf": 0.05, "nms_iou": 0.2, "max_det": 1000},
        {"conf": 0.05, "nms_iou": 0.9, "max_det": 7},
    ],
)
@pytest.mark.parametrize("limited", [False, True])
def test_detections_are_ours(made, settings, limited):
    generator = np.random.default_rng(0)
    pictures = [
        generator.integers(0, 256, size, np.uint8) for size in ((64, 96, 3), (50, 200, 3), (99, 40, 3))
    ]
    ours, theirs = predictors(made, **settings)
    if limited:
        ours, theirs = ours.limited_to([1]), theirs.limited_to([1])
    expected, found = ours(pictures), theirs(pictures)
    assert [len(one) for one in found] == [len(one) for one in expected]
    assert all((one.labels == 1).all() for one in found) or not limited
    assert sum(map(len, expected)) > 10 or settings["conf"] == 1.0
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.labels, other.labels)
        torch.testing.assert_close(one.boxes, other.boxes, rtol=0, atol=1e-2)
        torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=1e-4)
        assert (one.scores.diff() <= 0).all()
        assert one.labels.dtype == torch.int64


@pytest.mark.slow
def test_a_fixed_batch_in_16_bits(make_job, tmp_path: Path):
    job = make_job(batch=2, half=True, ends_in_nms=True)
    (path,), measured = export_as("onnx", job, tmp_path)
    (parity,) = measured.values()
    assert parity.boxes > 10
    backend = OnnxModel(path, "cpu")
    assert backend.batch == 2
    images = torch.rand(3, 3, 64, 96)
    found = backend.detect(images, conf=0.25, nms_iou=0.5, max_det=100)
    again = [backend.detect(one[None], conf=0.25, nms_iou=0.5, max_det=100)[0] for one in images]
    for one, other in zip(found, again, strict=True):
        torch.testing.assert_close(one.boxes, other.boxes)
