import struct

import cv2
import numpy as np
import pytest
import torch

from nets.config import USUAL_ANCHORS, ModelConfig
from nets.yolo import YoloBody
from tests.darknet_files import shapes_in_file_order, write_cfg, write_weights
from utils.cli.errors import UserError
from utils.weights.darknet import DarknetWeights, read_darknet, write_darknet
from utils.weights.load import load_model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "classes", "heads"), [(416, 80, 2), (320, 20, 2), (416, 80, 3), (320, 1, 3)]
)
def test_our_reader_and_opencv_agree(tmp_path, size, classes, heads):
    write_cfg(tmp_path / "tiny.cfg", size, classes, heads)
    write_weights(tmp_path / "tiny.weights", classes, heads=heads)
    image = np.random.default_rng(1).random((1, 3, size, size), dtype=np.float32)
    net = cv2.dnn.readNetFromDarknet(str(tmp_path / "tiny.cfg"), str(tmp_path / "tiny.weights"))
    net.setInput(image)
    names = net.getLayerNames()
    outputs = [name for name in names if name.startswith("conv_") and int(name.split("_")[1]) in (29, 36, 43)]
    expected = net.forward(outputs)
    assert len(expected) == heads

    darknet = read_darknet(tmp_path / "tiny.weights")
    anchors, masks = USUAL_ANCHORS[heads]
    body = YoloBody(ModelConfig(darknet.num_classes, anchors=anchors, anchor_masks=masks))
    body.load_state_dict(darknet.state_dict)
    with torch.no_grad():
        raw_maps = body.eval()(torch.from_numpy(image))
    for ours, theirs in zip(raw_maps, expected, strict=True):
        assert np.abs(theirs).max() > 0.1  # the comparison is of numbers that matter
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-3)


@pytest.mark.parametrize("heads", [2, 3])
@pytest.mark.parametrize("classes", [1, 20, 80, 601])
def test_the_counts_of_classes_and_heads_are_solved_from_the_length(tmp_path, classes, heads):
    write_weights(tmp_path / "w.weights", classes, heads=heads)
    darknet = read_darknet(tmp_path / "w.weights")
    assert (darknet.num_classes, darknet.num_heads, darknet.seen) == (classes, heads, 12345)
    if classes == 20:
        loaded = load_model(str(tmp_path / "w.weights")).config
        assert (loaded.anchors, loaded.anchor_masks) == USUAL_ANCHORS[heads]


def test_no_length_fits_two_and_three_heads():
    def values(classes, heads):
        convs = shapes_in_file_order(classes, heads)
        return sum(c * f * kernel * kernel + f * (4 if norm else 1) for c, f, kernel, norm in convs)

    lengths = [{values(classes, heads) for classes in range(1, 3000)} for heads in (2, 3)]
    assert not lengths[0] & lengths[1]


def test_the_header_before_version_2_is_shorter(tmp_path):
    write_weights(tmp_path / "new.weights", 3)
    write_weights(tmp_path / "old.weights", 3, version=(0, 1, 0))
    new, old = read_darknet(tmp_path / "new.weights"), read_darknet(tmp_path / "old.weights")
    assert (old.num_classes, old.seen) == (3, 12345)
    assert all(torch.equal(new.state_dict[name], old.state_dict[name]) for name in new.state_dict)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: b"", "0 bytes"),
        (lambda data: data[:20], "20 bytes"),
        (lambda data: data[:-4], "bytes, but .* would be 3 classes"),
        (lambda data: data + bytes(400), "bytes, but .* would be 3 classes"),
        (lambda data: data[:-4] + struct.pack("<f", float("nan")), "not finite"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path, change, words):
    path = tmp_path / "w.weights"
    write_weights(path, 3)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=words) as caught:
        read_darknet(path)
    assert "w.weights" in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("heads", [2, 3])
@pytest.mark.parametrize("version", [(0, 2, 5), (0, 1, 0), (1, 0, 0)])
def test_what_is_read_is_written_as_the_same_bytes(tmp_path, version, heads):
    write_weights(tmp_path / "in.weights", 3, version, seen=987654, heads=heads)
    write_darknet(tmp_path / "out.weights", read_darknet(tmp_path / "in.weights"))
    assert (tmp_path / "out.weights").read_bytes() == (tmp_path / "in.weights").read_bytes()


def test_attention_cannot_be_written(tmp_path):
    weights = DarknetWeights(YoloBody(ModelConfig(1, "eca")).state_dict(), 1)
    with pytest.raises(UserError, match=r"out\.weights: Darknet has no attention"):
        write_darknet(tmp_path / "out.weights", weights)
    assert list(tmp_path.iterdir()) == []


def cut(path, layers, classes=3, heads=2):
    """Write the first layers of a file, as `darknet partial` does; routes and pools have no values."""
    write_weights(path, classes, heads=heads)
    floats = 0
    numbers = [0, 1, 2, 4, 5, 7, 10, 12, 13, 15, 18, 20, 21, 23, 26, 27, 28, 29, 32, 35, 36]  # of the cfg
    numbers += [39, 42, 43] * (heads == 3)
    shapes = shapes_in_file_order(classes, heads)
    for number, (channels, filters, kernel, norm) in zip(numbers, shapes, strict=True):
        if number < layers:
            floats += channels * filters * kernel * kernel + filters * (4 if norm else 1)
    path.write_bytes(path.read_bytes()[: 20 + 4 * floats])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "tensors", "classes", "heads"),
    [
        (29, 17 * 6, 0, 2),
        (26, 14 * 6, 0, 2),
        (32, 17 * 6 + 2, 3, 2),
        (29, 17 * 6, 0, 3),
        (42, 20 * 6 + 4, 3, 3),
    ],
)
def test_a_partial_file_holds_the_first_layers(tmp_path, layers, tensors, classes, heads):
    path = tmp_path / f"yolov4-tiny.conv.{layers}"
    cut(path, layers, heads=heads)
    write_weights(tmp_path / "whole.weights", 3, heads=heads)
    part, whole = read_darknet(path), read_darknet(tmp_path / "whole.weights").state_dict
    assert (len(part.state_dict), part.num_classes) == (tensors, classes)
    assert all(torch.equal(value, whole[name]) for name, value in part.state_dict.items())
    if layers == 29:
        assert path.stat().st_size == 19789716  # yolov4-tiny.conv.29 as it is published
    with pytest.raises(UserError, match="has the first layers only; train from it"):
        load_model(str(path))


def test_a_partial_file_of_another_length_says_what_it_should_have(tmp_path):
    path = tmp_path / "yolov4-tiny.conv.29"
    cut(path, 29)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"conv\.29: 19789712 bytes, but .* have 19789716"):
        read_darknet(path)
