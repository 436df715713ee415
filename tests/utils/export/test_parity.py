import copy

import numpy as np
import pytest
import torch

from nets.decode import decode
from nets.postprocess import postprocess
from nets.structures import Detections
from utils.cli.errors import UserError
from utils.export.exporter import export_as
from utils.export.parity import (
    FLOAT32_LIMITS,
    Runner,
    check_parity,
    compare_heads,
    count_wrong,
    make_noise_images,
)
from utils.inference.runtimes import ExportedModel


def shifted(job, by):
    return Runner("a test", lambda images: [raw + by for raw in job.model(images)])


def test_images_are_the_same_each_time_and_differ_from_each_other():
    images = make_noise_images((64, 96))
    assert torch.equal(images, make_noise_images((64, 96)))
    assert images.shape == (4, 3, 64, 96)
    assert 0 <= images.min() <= images.max() <= 1
    assert len(images.flatten(1).unique(dim=0)) == 4
    assert (images[0] == 128 / 255).all()


def test_the_network_equals_itself(job):
    assert compare_heads(job, Runner("itself", job.model)) == 0
    parity = check_parity("onnx", job, Runner("itself", job.model))
    assert (parity.heads, parity.pixels, parity.score) == (0, 0, 0)
    assert parity.boxes > 10


@pytest.mark.parametrize(("batch", "sizes"), [(1, [1] * 4), (3, [3, 3]), (5, [5]), (None, [1, 3])])
def test_batches_are_those_the_model_takes(make_job, batch, sizes):
    job, seen = make_job(batch=batch), []

    def run(images):
        seen.append(len(images))
        return job.model(images)

    compare_heads(job, Runner("a test", run))
    assert seen == sizes


def test_a_shift_is_measured_and_refused_above_the_limit(job):
    assert compare_heads(job, shifted(job, 5e-4)) == pytest.approx(5e-4, rel=0.02)
    assert check_parity("onnx", job, shifted(job, 9e-4)).heads == pytest.approx(9e-4, rel=0.02)
    with pytest.raises(UserError, match=r"--format onnx: in a test .* by 0\.002, at most 0\.001") as caught:
        check_parity("onnx", job, shifted(job, 2e-3))
    assert caught.value.exit_code == 1


def test_half_is_measured_against_the_largest_value(make_job):
    job = make_job(half=True)
    off = Runner("a test", lambda images: [raw * 1.005 for raw in job.model(images)])
    assert check_parity("onnx", job, off).heads == pytest.approx(0.005, rel=0.01)
    far = Runner("a test", lambda images: [raw * 1.1 for raw in job.model(images)])
    with pytest.raises(UserError, match=r"raw heads \(relative .* by 0\.1, at most 0\.05 is"):
        check_parity("onnx", job, far)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("half", [False, True])
def test_values_that_are_not_finite_are_refused(make_job, value, half):
    job = make_job(half=half)
    with pytest.raises(UserError, match="differ from PyTorch by inf"):
        check_parity("onnx", job, shifted(job, value))


def test_a_network_that_is_broken_itself_is_named(job):
    job.model.head_p5.predict.bias.data[0] = float("nan")
    with pytest.raises(UserError, match=r"best\.pth: the network itself"):
        compare_heads(job, Runner("itself", job.model))


def test_heads_of_another_shape_are_refused(job):
    one = Runner("a test", lambda images: [raw[:, :1] for raw in job.model(images)])
    with pytest.raises(UserError, match="has heads"):
        compare_heads(job, one)


def test_a_runner_may_bring_its_own_reference(job):
    other = copy.deepcopy(job.model)
    other.head_p4.predict.bias.data += 1
    assert compare_heads(job, Runner("other", other, reference=other)) == 0
    assert compare_heads(job, Runner("other", other)) == pytest.approx(1, rel=0.01)


def change_predictions(job, **changes):
    """Return a function of the raw heads with one kind of value moved."""
    ((name, by),) = changes.items()

    def change(raw):
        maps = raw.unflatten(1, (3, -1)).clone()
        maps[:, :, {"x": 0, "w": 2, "objectness": 4}[name]] += by
        return maps.flatten(1, 2)

    return lambda images: [change(raw) for raw in job.model(images)]


def test_boxes_and_scores_are_compared_where_the_heads_are_near_enough(make_job):
    job = make_job(half=True)
    near = check_parity("onnx", job, Runner("a test", change_predictions(job, x=0.05)))
    assert 0.1 < near.pixels <= 1.0
    with pytest.raises(UserError, match=r"boxes differ .* px, at most 1 px is allowed; leave out --half"):
        check_parity("onnx", job, Runner("a test", change_predictions(job, w=0.1)))
    with pytest.raises(UserError, match=r"scores differ .*at most 0\.01"):
        check_parity("onnx", job, Runner("a test", change_predictions(job, objectness=0.1)))


def test_pictures_without_objects_are_said(job):
    job.model.head_p5.predict.bias.data.fill_(-9)
    job.model.head_p4.predict.bias.data.fill_(-9)
    assert "no box scores 0.05" in str(check_parity("onnx", job, Runner("itself", job.model)))


class Suppressing(ExportedModel):
    """A backend that ends in NMS, made of a function that returns raw heads."""

    def __init__(self, job, function, change=lambda found: found):
        super().__init__()
        self.config, self.function, self.change = job.config, function, change

    def run(self, images, **thresholds):
        raise AssertionError("has no heads")

    def detect(self, images, *, conf, nms_iou, max_det):
        config = self.config
        boxes, scores = decode(
            self.function(images),
            anchors=config.anchors,
            anchor_masks=config.anchor_masks,
            scale_x_y=config.scale_x_y,
        )
        limits = {"conf_threshold": conf, "iou_threshold": nms_iou, "max_detections": max_det}
        return [self.change(found) for found in postprocess(boxes, scores, **limits)]


def test_a_model_that_ends_in_nms_is_judged_by_its_detections(make_job):
    job = make_job(ends_in_nms=True)
    parity = check_parity("onnx", job, Runner("itself", Suppressing(job, job.model)))
    assert (parity.heads, parity.pixels, parity.score) == (None, 0, 0)
    assert parity.boxes > 10
    for function in (change_predictions(job, x=0.1), change_predictions(job, objectness=0.1)):
        with pytest.raises(UserError, match=r"(boxes|scores) differ|are missing"):
            check_parity("onnx", job, Runner("a test", Suppressing(job, function)))
    without_best = Suppressing(job, job.model, lambda found: found[torch.arange(1, len(found))])
    with pytest.raises(UserError, match="1 detections are missing"):
        check_parity("onnx", job, Runner("a test", without_best))


def make_hardly_trained(make_job, **changes):
    """Return a job whose scores and boxes are nearly the same in all cells: thousands of ties."""
    job = make_job("ca", num_classes=20, scale_x_y=1.0, **changes)
    for head in (job.model.head_p5, job.model.head_p4):
        head.predict.weight.data *= 1e-6
        torch.nn.init.normal_(head.predict.bias)
    pictures = tuple(np.random.default_rng(seed).integers(0, 256, (60, 90, 3), np.uint8) for seed in range(4))
    object.__setattr__(job, "pictures", pictures)
    return job


@pytest.mark.parametrize("ends_in_nms", [False, True])
def test_boxes_that_change_places_in_suppression_are_no_difference(make_job, ends_in_nms):
    job = make_hardly_trained(make_job, ends_in_nms=ends_in_nms)
    generator = torch.Generator().manual_seed(0)

    def run(images):
        return [raw + 1e-5 * torch.randn(raw.shape, generator=generator) for raw in job.model(images)]

    image = torch.rand(1, 3, 64, 96)
    thresholds = {"conf": 0.05, "nms_iou": 0.5, "max_det": 1000}
    ours, theirs = (Suppressing(job, one).detect(image, **thresholds)[0] for one in (job.model, run))
    size = min(len(ours), len(theirs))
    assert size > 100
    assert (ours.boxes[:size] - theirs.boxes[:size]).abs().max() > 10  # they do change places
    parity = check_parity("onnx", job, Runner("a test", Suppressing(job, run) if ends_in_nms else run))
    assert parity.boxes > 300
    assert 0 < parity.pixels < 0.1
    assert 0 < parity.score < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("ends_in_nms", [pytest.param(False, marks=pytest.mark.exhaustive), True])
def test_a_hardly_trained_network_is_exported(make_job, tmp_path, ends_in_nms):
    pytest.importorskip("onnxruntime")
    job = make_hardly_trained(make_job, ends_in_nms=ends_in_nms)
    (parity,) = export_as("onnx", job, tmp_path)[1].values()
    assert parity.boxes > 300


BOX, LOWER = (10, 10, 50, 50, 0.9, 0), (10, 25, 50, 65, 0.8, 0)  # overlap by 5 / 11


def made(*rows):
    """Detections of rows x1, y1, x2, y2, score, label."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].long())


@pytest.mark.parametrize(
    ("predictions", "found", "wrong"),
    [
        ([], [], 0),
        ([BOX], [BOX], 0),
        ([BOX], [], 1),
        ([(*BOX[:4], 0.0505, 0)], [], 0),  # may have fallen below the threshold
        ([(*BOX[:4], 0.06, 0)], [], 1),
        ([BOX, LOWER], [BOX, LOWER], 0),
        ([BOX, LOWER], [BOX], 1),
        ([BOX, (*BOX[:4], 0.8, 0)], [BOX], 0),  # suppressed
        ([BOX, (*BOX[:4], 0.8, 0)], [(*BOX[:4], 0.8, 0)], 1),  # by the weaker one
        ([BOX, (*BOX[:4], 0.8, 0)], [BOX, (*BOX[:4], 0.8, 0)], 1),  # not suppressed
        ([BOX, (*BOX[:4], 0.8, 1)], [BOX, (*BOX[:4], 0.8, 1)], 0),  # of another class
        ([BOX, (14, 10, 54, 50, 0.9, 0)], [(14, 10, 54, 50, 0.9, 0)], 0),  # a tie
        ([BOX, (10, 10, 50, 30.001, 0.8, 0)], [BOX], 0),  # overlap at the threshold: kept or not
        ([BOX, (10, 10, 50, 30.001, 0.8, 0)], [BOX, (10, 10, 50, 30.001, 0.8, 0)], 0),
    ],
)
def test_wrong_detections_are_counted(predictions, found, wrong):
    before = made(*predictions)
    scores = torch.zeros(len(before), 2)
    scores[torch.arange(len(before)), before.labels] = before.scores
    assert count_wrong(before.boxes, scores, made(*found), FLOAT32_LIMITS) == wrong
