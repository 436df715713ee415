import copy

import pytest
import torch

from utils.cli.errors import UserError
from utils.export.parity import Reader, hold_parity, make_images, measure_difference


def shifted(job, by):
    return Reader("a test", lambda images: [raw + by for raw in job.model(images)])


def test_images_are_the_same_each_time_and_differ_from_each_other():
    images = make_images((64, 96))
    assert torch.equal(images, make_images((64, 96)))
    assert images.shape == (4, 3, 64, 96)
    assert 0 <= images.min() <= images.max() <= 1
    assert len(images.flatten(1).unique(dim=0)) == 4
    assert (images[0] == 128 / 255).all()


def test_the_network_equals_itself(job):
    assert measure_difference(job, Reader("itself", job.model)) == 0
    parity = hold_parity("onnx", job, Reader("itself", job.model))
    assert (parity.heads, parity.detections.pixels, parity.detections.score) == (0, 0, 0)
    assert parity.detections.pairs > 10


@pytest.mark.parametrize(("batch", "sizes"), [(1, [1] * 4), (3, [3, 3]), (5, [5]), (None, [1, 3])])
def test_batches_are_those_the_model_takes(make_job, batch, sizes):
    job, seen = make_job(batch=batch), []

    def run(images):
        seen.append(len(images))
        return job.model(images)

    measure_difference(job, Reader("a test", run))
    assert seen == sizes


def test_a_shift_is_measured_and_refused_above_the_limit(job):
    assert measure_difference(job, shifted(job, 5e-4)) == pytest.approx(5e-4, rel=0.02)
    assert hold_parity("onnx", job, shifted(job, 9e-4)).heads == pytest.approx(9e-4, rel=0.02)
    with pytest.raises(UserError, match=r"--format onnx: in a test .* by 0\.002, at most 0\.001") as caught:
        hold_parity("onnx", job, shifted(job, 2e-3))
    assert caught.value.exit_code == 1


def test_half_is_measured_against_the_largest_value(make_job):
    job = make_job(half=True)
    off = Reader("a test", lambda images: [raw * 1.005 for raw in job.model(images)])
    assert hold_parity("onnx", job, off).heads == pytest.approx(0.005, rel=0.01)
    far = Reader("a test", lambda images: [raw * 1.1 for raw in job.model(images)])
    with pytest.raises(UserError, match=r"0\.1 of their largest value, at most 0\.05"):
        hold_parity("onnx", job, far)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("half", [False, True])
def test_values_that_are_not_finite_are_refused(make_job, value, half):
    job = make_job(half=half)
    with pytest.raises(UserError, match="differ from PyTorch by inf"):
        hold_parity("onnx", job, shifted(job, value))


def test_a_network_that_is_broken_itself_is_named(job):
    job.model.head_p5.predict.bias.data[0] = float("nan")
    with pytest.raises(UserError, match=r"best\.pth: the network itself"):
        measure_difference(job, Reader("itself", job.model))


def test_heads_of_another_shape_are_refused(job):
    one = Reader("a test", lambda images: [raw[:, :1] for raw in job.model(images)])
    with pytest.raises(UserError, match="gives heads"):
        measure_difference(job, one)


def test_a_reader_may_bring_its_own_reference(job):
    other = copy.deepcopy(job.model)
    other.head_p4.predict.bias.data += 1
    assert measure_difference(job, Reader("other", other, reference=other)) == 0
    assert measure_difference(job, Reader("other", other)) == pytest.approx(1, rel=0.01)


def with_detections(job, **changes):
    """A reader whose raw heads are right, or almost, and whose boxes are moved."""
    run = Reader("a test", lambda images: [change(raw.clone()) for raw in job.model(images)])
    (name, by), *_ = changes.items()

    def change(raw):
        maps = raw.unflatten(1, (3, -1))
        maps[:, :, {"x": 0, "w": 2, "objectness": 4}[name]] += by
        return maps.flatten(1, 2)

    return run


def test_detections_are_held_where_the_heads_are_near_enough(make_job):
    job = make_job(half=True)
    near = hold_parity("onnx", job, with_detections(job, x=0.05))
    assert 0.1 < near.detections.pixels <= 1.0
    with pytest.raises(
        UserError, match=r"detections differ .* px .*, at most 1 px and 0\.01 .*; leave out --half"
    ):
        hold_parity("onnx", job, with_detections(job, w=0.1))
    with pytest.raises(UserError, match=r"in score.*at most 1 px and 0\.01"):
        hold_parity("onnx", job, with_detections(job, objectness=0.1))


def test_pictures_without_objects_are_said(job):
    job.model.head_p5.predict.bias.data.fill_(-9)
    job.model.head_p4.predict.bias.data.fill_(-9)
    assert "nothing is found" in str(hold_parity("onnx", job, Reader("itself", job.model)))


def test_a_model_that_ends_in_nms_is_held_by_its_detections(make_job):
    job = make_job(ends_in_nms=True)
    parity = hold_parity("onnx", job, Reader("itself", job.model))
    assert parity.heads is None
    assert parity.detections.pairs > 10
    with pytest.raises(UserError, match="detections differ"):
        hold_parity("onnx", job, with_detections(job, x=0.1))
