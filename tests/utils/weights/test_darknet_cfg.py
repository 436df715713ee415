"""Darknet's .cfg: what it says of a .weights file, and which are refused."""

import os
import re

import cv2
import numpy as np
import pytest
import torch

from nets.config import USUAL_ANCHORS, ModelConfig
from nets.decode import decode
from nets.yolo import YoloBody
from tests.darknet_files import write_cfg, write_weights
from utils.cli.errors import UserError
from utils.inference.predictor import Predictor
from utils.weights.darknet_cfg import build_cfg, find_beside, read_cfg
from utils.weights.load import load_model, read_weights
from utils.weights.published import write_published

OFFICIAL = "anchors=10,14, 23,27, 37,58, 81,82, 135,169, 344,319"
CUSTOM = ["3,4,5", "0,1,2"]  # of yolov4-tiny-custom.cfg
# As people have it: both batches, blanks, comments in other encodings, training options.
NET = b"[net]\r\n# Testing\r\nbatch=1\r\n; Training\r\nbatch = 64\r\nlearning_rate=0.00261\r\n"
TRAINING = "jitter=.3\nignore_thresh = .7\niou_loss=ciou\nnms_kind=greedynms\nmax=200\n"


@pytest.mark.parametrize("heads", [2, 3])
def test_the_official_cfg_is_the_usual_network(tmp_path, heads):
    write_cfg(tmp_path / "tiny.cfg", 416, 80, heads)
    anchors, masks = USUAL_ANCHORS[heads]
    assert read_cfg(tmp_path / "tiny.cfg") == ModelConfig(80, anchors=anchors, anchor_masks=masks)


def test_a_custom_cfg_as_people_have_it(tmp_path):
    path = tmp_path / "custom.cfg"
    write_cfg(path, 320, 3, masks=CUSTOM)
    text = path.read_text().replace("width=320", "width = 608").replace("activation", "\tactivation ")
    text = text.replace("anchors=10,14, 23,27,", "anchors = 10.5,14,  23,27 ,").replace("344,319", "344,319,")
    text = text.replace("filters=24\n", "filters=24   # 修改\n\n").replace("layers=-1,23", "layers = -1, 23")
    text = text.replace("[yolo]\n", f"[yolo]\n{TRAINING}").replace("scale_x_y=1.05", "scale_x_y = 1.2")
    text = text.replace("layers=-4", "layers=27")  # the same layer, counted from the first
    text = text.replace("\n", "\r\n").removeprefix("[net]\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + NET + text.encode("gbk"))
    anchors = ((10.5, 14), *USUAL_ANCHORS[2][0][1:])
    masks = ((3, 4, 5), (0, 1, 2))
    assert read_cfg(path) == ModelConfig(
        3, input_size=(320, 608), anchors=anchors, anchor_masks=masks, scale_x_y=1.2
    )


def test_without_scale_x_y_it_is_the_plain_sigmoid(tmp_path):
    write_cfg(tmp_path / "tiny.cfg", 416, 1)
    text = (tmp_path / "tiny.cfg").read_text().replace("scale_x_y=1.05\n", "")
    (tmp_path / "tiny.cfg").write_text(text.replace("num=6\n", ""))
    assert read_cfg(tmp_path / "tiny.cfg").scale_x_y == 1.0


@pytest.mark.parametrize("heads", [2, 3])
def test_what_is_written_is_read(tmp_path, heads):
    anchors = tuple((7.25 + index, 1000 / 3 - index) for index in range(3 * heads))
    anchors = tuple((width, round(height, 7)) for width, height in anchors)
    masks = tuple((first, first + 1, first + 2) for first in range(0, 3 * heads, 3))
    config = ModelConfig(7, input_size=(32, 96), anchors=anchors, anchor_masks=masks, scale_x_y=1.0)
    (tmp_path / "own.cfg").write_text(build_cfg(config))
    assert read_cfg(tmp_path / "own.cfg") == config


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        # Other networks, named by the first layer that differs.
        ("filters=32", "filters=16", r"line 5: \[convolutional\] has filters=16; yolov4-tiny has filters=32"),
        ("stride=2", "stride=1", "line 5: .* has stride=1; yolov4-tiny has stride=2"),
        ("leaky", "swish", "has activation=swish; yolov4-tiny has activation=leaky"),
        ("group_id=1", "group_id=0", r"\[route\] has group_id=0; yolov4-tiny has group_id=1"),
        ("group_id=1\n", "", r"\[route\] has no group_id; yolov4-tiny has group_id=1"),
        ("layers=-1,23", "layers=-1,22", "has layers=-1,22; yolov4-tiny has layers=-1,23"),
        ("pad=1", "pad=0", "has pad=0; yolov4-tiny has pad=1"),
        ("batch_normalize=1\n", "", "has no batch_normalize; yolov4-tiny has batch_normalize=1"),
        ("size=3", "size=3\ngroups=32", "has groups=32; yolov4-tiny has no such option"),
        ("[maxpool]", "[dropout]", r"\[dropout\] is not the layer that yolov4-tiny has here, \[maxpool\]"),
        ("[upsample]\nstride=2", "[upsample]\nstride=4", "has stride=4; yolov4-tiny has stride=2"),
        ("num=6", "num=6\nnew_coords=1", "has new_coords=1; yolov4-tiny has no such option"),
        # Mistakes.
        (
            "filters=24",
            "filters=255",
            "has filters=255; .* has filters=24 for 3 anchors and 3 classes",
        ),
        ("[yolo]", "[region]", "has 0 sections"),
        ("[net]", "[yolo]", "line 1: .* is the first section, which must be"),
        ("width=320", "width=300", "must be two positive multiples of 32 up to 4096, got .320, 300"),
        ("width=320", "width=9999968", "multiples of 32 up to 4096, got .320, 9999968"),
        ("width=320", "", "has no width"),
        ("width=320", "width=320\nwidth=416", "line 3: .* has width twice: 320 and 416"),
        ("channels=3", "channels=1", "channels=1: only color images"),
        ("mask=1,2,3", "mask=4,5,6", "mask=4,5,6: needs different anchors from 0 to 5"),
        ("mask=1,2,3", "mask=1,-2,3", "mask=1,-2,3: needs different anchors"),
        ("mask=1,2,3", "mask=1,2,2", "mask=1,2,2: needs different anchors"),
        ("mask=1,2,3", "mask=0,1,2,3", "mask=0,1,2,3: heads of 3 anchors are read"),
        ("mask=1,2,3", "mask=1,2,three", "mask=1,2,three: not whole numbers divided by commas"),
        ("mask=1,2,3", "", "has no mask"),
        (OFFICIAL, OFFICIAL + ",5", "anchors has an odd number of values, 13"),
        (OFFICIAL, OFFICIAL + ",5,6", "num=6, but there are 7 anchors"),
        (OFFICIAL, OFFICIAL.replace("14", "x"), "anchors=10,x,23,27.*: not numbers divided by commas"),
        (OFFICIAL, OFFICIAL.replace("14", "-14"), "anchors must be positive"),
        (OFFICIAL, OFFICIAL.replace(",", " "), "an odd number of values, 1;"),
        (OFFICIAL, "", "has no anchors"),
        ("classes=3", "classes=0", "num_classes must be at least 1, got 0"),
        ("classes=3", "classes=3,4", "classes=3,4: not a single number"),
        ("classes=3", "classes=" + "9" * 5000, "not whole numbers"),
        ("scale_x_y=1.05", "scale_x_y=3", r"scale_x_y must be in \[1, 2\], got 3"),
        ("num=6", "six anchors", "'sixanchors': neither a .section. nor key=value; not a Darknet .cfg"),
    ],
)
def test_another_network_or_a_mistake_is_one_line_that_names_it(tmp_path, old, new, reason):
    path = tmp_path / "a.cfg"
    write_cfg(path, 320, 3)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=reason) as caught:
        read_cfg(path)
    assert re.match(rf"{re.escape(str(path))}(, line \d+)?: ", str(caught.value))
    assert len(str(caught.value)) - len(str(path)) < 300


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no sections in it"),
        ("# nothing\n", "no sections in it"),
        ("width=416\n[net]\n", "line 1: 'width=416': before the first .section."),
        (b"\x00\x01\xff[net]", "line 1: .*not a Darknet .cfg"),
        (b"#" * 1_000_001, "more than 1 MB"),
    ],
)
def test_what_is_no_cfg_is_refused(tmp_path, content, reason):
    path = tmp_path / "a.cfg"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=rf"a\.cfg.*{reason}"):
        read_cfg(path)


def test_heads_that_differ_and_layers_too_many_or_few_are_named(tmp_path):
    path = tmp_path / "a.cfg"
    write_cfg(path, 320, 3)
    text = path.read_text()
    body, _, last = text.rpartition("[yolo]")
    for old, new in (("classes=3", "classes=4"), ("10,14", "10,15"), ("scale_x_y=1.05", "scale_x_y=1.1")):
        path.write_text(f"{body}[yolo]{last.replace(old, new)}")
        with pytest.raises(UserError, match=r"has other \w+ than the one in line \d+; they must be the same"):
            read_cfg(path)
    path.write_text(text + "[dropout]\n")
    with pytest.raises(UserError, match=r"\[dropout\] follows the last layer of yolov4-tiny"):
        read_cfg(path)
    path.write_text(text + "[yolo]" + last)
    with pytest.raises(UserError, match=r"\[yolo\] is not the layer that yolov4-tiny-3l has here, \[route\]"):
        read_cfg(path)
    write_cfg(path, 320, 3, heads=3)
    layers, _, _ = path.read_text().rpartition("[convolutional]")
    path.write_text(layers + "[yolo]" + path.read_text().rpartition("[yolo]")[2])
    with pytest.raises(UserError, match=r"\[yolo\] is not the layer .* here, \[convolutional\]"):
        read_cfg(path)


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        ("a.weights", "a.cfg"),
        ("a_best.weights", "a.cfg"),
        ("a_last.weights", "a.cfg"),
        ("a_final.weights", "a.cfg"),
        ("a_4000.weights", "a.cfg"),
        ("b_best.weights", "b_best.cfg"),
        ("a_old.weights", None),
        ("a.conv.29", None),
    ],
)
def test_the_cfg_beside_has_the_stem_or_the_name_that_darknet_trains_by(tmp_path, weights, found):
    for name in ("a.cfg", "b.cfg", "b_best.cfg"):
        (tmp_path / name).touch()
    assert find_beside(tmp_path / weights, ".cfg") == (None if found is None else tmp_path / found)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A .weights file of three classes."""
    path = tmp_path_factory.mktemp("weights") / "three.weights"
    write_weights(path, 3)
    return path


def read(path, **options):
    return load_model(str(path), classes=("a", "b", "c"), **options)


def test_one_order_of_what_says_the_anchors(tmp_path, three):
    path, cfg, beside = tmp_path / "a.weights", tmp_path / "other.cfg", tmp_path / "a.cfg"
    os.link(three, path)
    anchors = tmp_path / "anchors.txt"
    usual = "81x82 135x169 344x319; 23x27 37x58 81x82"
    custom = "81x82 135x169 344x319; 10x14 23x27 37x58"

    bare = read(path)
    assert (bare.config.anchors, bare.config.anchor_masks) == USUAL_ANCHORS[2]
    hint = "a.weights does not say its own: if it has others, put its .cfg beside it or give --anchors FILE"
    assert bare.anchors_note == f"anchors: {usual} (official; {hint})"
    anchors.write_text("10,14, 23,27, 37,58, 81,82, 135,169, 344,319\nmasks = 3,4,5 0,1,2\n")
    given = read(path, anchors=anchors)
    assert given.config.anchor_masks == ((3, 4, 5), (0, 1, 2))
    assert given.anchors_note == f"anchors: {custom} ({anchors})"

    write_cfg(beside, 96, 3, masks=CUSTOM)
    described = read(path)
    assert (described.config.anchor_masks, described.config.input_size) == (((3, 4, 5), (0, 1, 2)), (96, 96))
    assert described.anchors_note == f"anchors: {custom} ({beside})"
    assert read(path, anchors=anchors).config == described.config  # they agree
    write_cfg(cfg, 64, 3)
    assert read(path, cfg=cfg).anchors_note == f"anchors: {usual} ({cfg})"
    with pytest.raises(UserError, match=rf"--anchors .*: {cfg} has other anchors, {usual}; remove --anchors"):
        read(path, cfg=cfg, anchors=anchors)

    write_cfg(beside, 96, 4)
    with pytest.raises(UserError, match=r"a\.weights: has 3 classes and 2 heads .* 4 classes and 2 heads"):
        read(path)
    write_cfg(beside, 96, 3, heads=3)
    with pytest.raises(UserError, match=r"a\.weights: has 3 classes and 2 heads .* 3 classes and 3 heads"):
        read(path)
    with pytest.raises(UserError, match=r"none\.cfg: no such file"):
        read(path, cfg=tmp_path / "none.cfg")


def test_names_beside_the_weights_are_the_class_names(tmp_path, three, capsys):
    path, names, order = tmp_path / "a_best.weights", tmp_path / "a.names", tmp_path / "order.txt"
    os.link(three, path)
    with pytest.raises(UserError, match="has 3 classes without names"):
        load_model(str(path))
    names.write_text("rot\ngrün\nblau\n", encoding="utf-8")
    order.write_text("grün\nrot\nblau\n", encoding="utf-8")
    assert load_model(str(path)).class_names == read_weights(str(path)).class_names == ("rot", "grün", "blau")
    said = Predictor.from_checkpoint(path, device="cpu").describe()
    assert said.endswith(f"3 classes ({names}): rot, grün, blau")
    with pytest.raises(UserError, match=r"a_best\.weights: its classes have another order than --classes"):
        Predictor.from_checkpoint(path, device="cpu", classes=order)
    renamed = Predictor.from_checkpoint(path, device="cpu", classes=["a", "b", "c"])
    assert renamed.describe().endswith("3 classes: a, b, c")
    assert "classes renamed by --classes: rot is now a" in capsys.readouterr().err
    names.write_text("rot\n")
    with pytest.raises(UserError, match=r"a\.names: has 1 name, but .*a_best\.weights has 3 classes"):
        load_model(str(path))


def test_anchors_for_other_heads_are_refused(tmp_path, three):
    anchors = tmp_path / "anchors.txt"
    anchors.write_text("1,1, 2,2, 3,3, 4,4, 5,5, 6,6\nmasks = 4,5 2,3 0,1")
    with pytest.raises(UserError, match=r"has 3 heads of 2 anchors, but .*three\.weights has 2 of 3"):
        read(three, anchors=anchors)


def test_a_partial_file_needs_no_anchors_and_the_official_one_has_them(tmp_path, three, monkeypatch):
    assert read_weights(str(three)).anchors_from is None
    monkeypatch.setattr("utils.weights.load.is_official", lambda path: True)
    assert read_weights(str(three)).anchors_from == three


def test_published_weights_take_an_anchor_file_and_no_cfg(tmp_path):
    config, path, anchors = ModelConfig(3, "se"), tmp_path / "a.pth", tmp_path / "anchors.txt"
    write_published(path, config, YoloBody(config).state_dict())
    hint = "a.pth does not say its own: if it has others, give --anchors FILE"
    assert read(path).anchors_note.endswith(f"(official; {hint})")
    anchors.write_text("1,2, 3,4, 5,6, 7,8, 9,10, 11,12\nmasks = 3,4,5 1,2,3\n")
    given = read(path, anchors=anchors)
    assert given.config.anchors[0] == (1, 2)
    assert given.config.anchor_masks == ((3, 4, 5), (1, 2, 3))
    assert given.config.scale_x_y == 1.0
    with pytest.raises(UserError, match=r"--cfg a\.cfg: describes a Darknet \.weights file, which .*a\.pth"):
        read(path, cfg="a.cfg")


@pytest.mark.parametrize(("heads", "masks"), [(2, CUSTOM), (3, None)])
def test_opencv_decodes_the_same_boxes_and_scores(tmp_path, heads, masks):
    """The yolo layers of OpenCV give (cx, cy, w, h) as parts of the input, a row per cell and anchor."""
    write_cfg(tmp_path / "a.cfg", 64, 3, heads, masks)
    write_weights(tmp_path / "a.weights", 3, heads=heads)
    image = np.random.default_rng(1).random((1, 3, 64, 64), dtype=np.float32)
    network = cv2.dnn.readNetFromDarknet(str(tmp_path / "a.cfg"), str(tmp_path / "a.weights"))
    network.setInput(image)
    outputs = network.forward(["yolo_30", "yolo_37", "yolo_44"][:heads])

    loaded = read(tmp_path / "a.weights")
    config = loaded.config
    with torch.no_grad():
        raw_maps = loaded.model(torch.from_numpy(image))
    boxes, scores = decode(
        raw_maps, anchors=config.anchors, anchor_masks=config.anchor_masks, scale_x_y=config.scale_x_y
    )
    rows = []
    for output, raw in zip(outputs, raw_maps, strict=True):
        cells = output.reshape(*raw.shape[2:], 3, 8)  # (h, w, A, 5 + K)
        rows.append(cells.transpose(2, 0, 1, 3).reshape(-1, 8))
    theirs = np.concatenate(rows)
    centers, sizes = 64 * theirs[:, :2], 64 * theirs[:, 2:4]
    expected = np.concatenate((centers - sizes / 2, centers + sizes / 2), axis=1)
    np.testing.assert_allclose(boxes[0].numpy(), expected, rtol=1e-3, atol=0.05)
    kept = theirs[:, 5:] > 0  # OpenCV drops scores below its own threshold
    assert kept.mean() > 0.1
    np.testing.assert_allclose(scores[0].numpy()[kept], theirs[:, 5:][kept], rtol=0, atol=2e-3)
