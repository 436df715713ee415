"""Prediction on a GPU: the detections of the CPU, also with mixed precision."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nets.config import ModelConfig
from nets.postprocess import postprocess
from nets.structures import Detections
from nets.yolo import YoloBody
from utils.inference.device import autocast_dtype
from utils.inference.image_input import to_batch, to_tensor
from utils.inference.predictor import Predictor

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

NAMES = ("cat", "dog", "bird")
CONFIG = ModelConfig(3, phi="cbam", input_size=(96, 128))
CUDA = torch.device("cuda:0")


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> YoloBody:
    """A network whose heads give scores of all sizes; its convolutions compute in float32, not in TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    model = YoloBody(CONFIG).eval()
    for head in (model.head_p5, model.head_p4):
        nn.init.normal_(head.predict.weight, std=0.3)
        nn.init.zeros_(head.predict.bias)
    return model


def make_images() -> list[np.ndarray]:
    """Return five images of several sizes, coarse squares of random colors."""
    sizes = ((96, 128), (60, 80), (200, 90), (33, 47), (300, 500))
    generator = np.random.default_rng(0)
    return [
        generator.integers(0, 255, (5, 7, 3), dtype=np.uint8)[
            np.linspace(0, 4, height).round().astype(int)[:, None],
            np.linspace(0, 6, width).round().astype(int),
        ]
        for height, width in sizes
    ]


def assert_among(ours: Detections, theirs: Detections, pixels: float, scores: float) -> None:
    """Hold that each of our detections, but those at the limit of 0.3, is among theirs."""
    for box, score, label in zip(ours.boxes, ours.scores, ours.labels, strict=True):
        is_near = (theirs.boxes - box).abs().amax(dim=1) <= pixels
        is_near &= ((theirs.scores - score).abs() <= scores) & (theirs.labels == label)
        assert is_near.any() or score < 0.3 + scores


def test_no_images(network: YoloBody) -> None:
    predictor = Predictor(network, CONFIG, NAMES, device=CUDA)
    assert predictor([]) == []
    assert [len(one) for one in Predictor(network, CONFIG, NAMES, conf=1.0, device=CUDA)(make_images())] == [
        0
    ] * 5


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pixels_are_those_of_the_cpu_to_the_last_bit(layout: torch.memory_format) -> None:
    ramp = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)  # every value
    pixels = [to_tensor(ramp), to_tensor(ramp[::-1].copy())]
    batch = to_batch(pixels, CUDA, layout)
    assert batch.device == CUDA
    assert batch.is_contiguous(memory_format=layout)
    assert torch.equal(batch.cpu(), to_batch(pixels))


def test_detections_are_those_of_the_cpu(network: YoloBody) -> None:
    images = make_images()
    expected = Predictor(network, CONFIG, NAMES, conf=0.3)(images)
    found = Predictor(network, CONFIG, NAMES, conf=0.3, device=CUDA)(images, batch_size=3)
    assert sum(len(one) for one in expected) > 50
    for one, other in zip(found, expected, strict=True):
        assert one.boxes.device.type == one.scores.device.type == one.labels.device.type == "cpu"
        assert_among(one, other, pixels=1e-2, scores=1e-3)
        assert_among(other, one, pixels=1e-2, scores=1e-3)


def test_amp_detections_are_close(network: YoloBody) -> None:
    images = make_images()
    exact, fast = (Predictor(network, CONFIG, NAMES, device=CUDA, amp=amp) for amp in (False, True))
    assert fast.amp_dtype == autocast_dtype(True, CUDA)
    assert str(fast.amp_dtype).removeprefix("torch.") in fast.describe()
    prepared = [exact.prepare(image) for image in images]
    raw_maps: list[list[Tensor]] = []
    network.register_forward_hook(lambda module, inputs, output: raw_maps.append(output))
    assert exact.detect(prepared)
    assert fast.detect(prepared)
    assert [maps[0].dtype for maps in raw_maps] == [torch.float32, fast.amp_dtype]
    (boxes, scores), (their_boxes, their_scores) = (exact.decode(maps) for maps in raw_maps)
    assert 0 < (scores - their_scores).abs().max() < 0.1
    assert (boxes - their_boxes).abs().median() < 0.5  # pixels


def make_predictions(images: int, number: int, classes: int) -> tuple[Tensor, Tensor]:
    """Return boxes (B, N, 4) and scores (B, N, K) of one decimal, so with many ties."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(images, number, 2, generator=generator) * 200 - 100
    boxes = torch.cat((corner, corner + 5 + torch.rand(images, number, 2, generator=generator) * 90), dim=-1)
    return boxes, torch.rand(images, number, classes, generator=generator).mul(10).round() / 10


@pytest.mark.parametrize(
    ("images", "number", "classes", "conf"),
    [(0, 9, 2, 0.2), (3, 0, 2, 0.2), (3, 9, 2, 1.1), (1, 300, 1, 0.2), (8, 300, 3, 0.2), (8, 150, 80, 0.5)],
)
def test_suppression_is_that_of_the_cpu(images: int, number: int, classes: int, conf: float) -> None:
    boxes, scores = make_predictions(images, number, classes)
    limits = {"conf_threshold": conf, "iou_threshold": 0.5, "max_detections": 100}
    expected = postprocess(boxes, scores, **limits)
    found = postprocess(boxes.to(CUDA), scores.to(CUDA), **limits)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.scores, other.scores)
        assert torch.equal(one.labels, other.labels)


def test_suppression_waits_for_the_device_as_often_for_many_images_as_for_two() -> None:
    limits = {"conf_threshold": 0.5, "iou_threshold": 0.5, "max_detections": 100}
    waits = []
    for images in (2, 2, 16):  # the first only warms up
        boxes, scores = (part.to(CUDA) for part in make_predictions(images, 100, 3))
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                postprocess(boxes, scores, **limits)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits.append(len(caught))
    assert waits[1] == waits[2]
