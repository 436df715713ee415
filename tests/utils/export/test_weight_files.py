"""Darknet's files, the published layout and our own .pth."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch

from utils.cli.class_names import read_class_names
from utils.cli.errors import UserError
from utils.export import weight_files
from utils.export.exporter import FORMATS, export_as, staged
from utils.weights.darknet import DarknetWeights, write_darknet
from utils.weights.darknet_cfg import build_cfg
from utils.weights.load import load_model


@pytest.mark.slow
def test_the_files_and_what_they_say(make_job, tmp_path):
    job = make_job(
        anchors=((1.5, 2), (3, 4), (5, 6), (7.25, 8), (9, 10)), anchor_masks=((2, 3, 4), (0, 1, 2))
    )
    files, _ = export_as("darknet", job, tmp_path)
    assert [path.name for path in files] == ["best.weights", "best.cfg", "best.names", "best.json"]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert read_class_names(files[2]) == ("cat", "dög")
    assert json.loads(files[3].read_text(encoding="utf-8")) == job.metadata()
    cfg = files[1].read_text().splitlines()
    for line in ("width=96", "height=64", "filters=21", "classes=2", "num=5", "mask=2,3,4", "mask=0,1,2"):
        assert line in cfg
    assert cfg.count("anchors=1.5,2,3,4,5,6,7.25,8,9,10") == 2
    assert cfg.count("scale_x_y=1.05") == 2


@pytest.mark.parametrize("heads", [2, 3])
def test_both_readers_compute_the_same(make_job, tmp_path, heads):
    _, differences = export_as("darknet", make_job(heads=heads), tmp_path)
    assert [name.split(" ")[0] for name in differences] == ["our", "OpenCV"]
    assert max(one.heads for one in differences.values()) < 1e-4


@pytest.mark.slow
def test_opencv_decodes_with_the_anchors_masks_and_scale_of_the_cfg(make_job, tmp_path):
    """The yolo layers of OpenCV give (cx, cy, w, h) as parts of the input, a row a cell and anchor."""
    job = make_job(
        scale_x_y=1.2, anchors=((10, 14), (23, 27), (37, 58), (81, 82)), anchor_masks=((1, 2, 3), (0, 1, 2))
    )
    (weights, cfg, *_), _ = export_as("darknet", job, tmp_path)
    network = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    image = torch.rand(1, 3, 64, 96)
    network.setInput(image.numpy())
    rows = network.forward("yolo_30")  # (2 * 3 cells * 3 anchors, 5 + K)
    with torch.no_grad():
        raw = job.model(image)[0][0].reshape(3, 7, 2, 3)
    for anchor, (width, height) in enumerate(((23, 27), (37, 58), (81, 82))):
        for row in range(2):
            for column in range(3):
                tx, ty, tw, th = (float(value) for value in raw[anchor, :4, row, column])
                stretch = [1.2 / (1 + np.exp(-t)) - 0.1 for t in (tx, ty)]
                expected = [
                    (column + stretch[0]) / 3,
                    (row + stretch[1]) / 2,
                    width / 96 * np.exp(tw),
                    height / 64 * np.exp(th),
                ]
                found = rows[(row * 3 + column) * 3 + anchor, :4]
                np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "seen", "heads"),
    [((0, 2, 5), 32013312, 2), ((0, 1, 0), 7, 2), ((1, 3, 9), 2**40, 2), ((0, 2, 5), 32013312, 3)],
)
def test_darknets_own_weights_come_out_as_the_same_bytes(make_job, tmp_path, version, seen, heads):
    job, source = make_job(heads=heads), tmp_path / "given.weights"
    write_darknet(source, DarknetWeights(job.state_dict(), 2, version, seen))
    (tmp_path / "out").mkdir()
    job = dataclasses.replace(job, source=source)
    (weights, *_), _ = export_as("darknet", job, tmp_path / "out")
    assert weights.read_bytes() == source.read_bytes()


def test_a_wrong_file_is_refused_and_leaves_nothing(job, tmp_path, monkeypatch):
    def spoil(path, weights):
        tensors = weights.state_dict | {
            "neck_p5.conv.weight": weights.state_dict["neck_p5.conv.weight"] * 1.01
        }
        write_darknet(path, dataclasses.replace(weights, state_dict=tensors))

    monkeypatch.setattr(weight_files, "write_darknet", spoil)
    with pytest.raises(UserError, match="--format darknet: in our reader the raw heads differ") as caught:
        export_as("darknet", job, tmp_path)
    assert caught.value.exit_code == 1


def test_a_wrong_cfg_is_found_by_opencv(job, tmp_path, monkeypatch):
    monkeypatch.setattr(
        weight_files, "build_cfg", lambda config: build_cfg(config).replace("group_id=1", "group_id=0")
    )
    with pytest.raises(UserError, match=r"in OpenCV .* the raw heads differ"):
        export_as("darknet", job, tmp_path)


def test_opencv_without_the_reader_is_said(job, tmp_path, monkeypatch):
    monkeypatch.delattr(cv2.dnn, "readNetFromDarknet")
    assert len(FORMATS["darknet"].notes(job)) == 1
    assert "only our own reader" in FORMATS["darknet"].notes(job)[0]
    assert list(export_as("darknet", job, tmp_path)[1]) == ["our reader"]


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("darknet", {"phi": "se"}, "takes --phi none only; these weights have se"),
        ("darknet", {"phi": "simam"}, "have simam"),  # it has no parameters by which a file could tell
        ("darknet", {"anchor_masks": ((0, 1), (2, 3))}, "3 anchors a head, these weights have 2"),
        ("published", {"phi": "simam"}, "--format published: the published layout has no attention simam"),
        ("published", {"anchor_masks": ((0, 1), (2, 3))}, "3 anchors a head"),
        ("published", {"heads": 3}, "the published layout has 2 heads, these weights have 3"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(make_job, name, changes, words):
    with pytest.raises(UserError, match=words) as caught:
        FORMATS[name].check(make_job(**changes))
    assert caught.value.exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("phi", ["none", "cbam"])
@pytest.mark.parametrize(("name", "heads"), [("published", 2), ("pth", 2), ("pth", 3)])
def test_the_files_hold_the_network(make_job, tmp_path, name, phi, half, heads):
    job = make_job(phi, half=half, heads=heads)
    (path,), differences = export_as(name, job, tmp_path)
    assert path.name == {"published": "best_published.pth", "pth": "best.pth"}[name]
    assert list(tmp_path.iterdir()) == [path]
    content = torch.load(path, weights_only=True)
    tensors = content if name == "published" else content["weights"]
    kinds = {value.dtype for value in tensors.values() if value.is_floating_point()}
    assert kinds == {torch.float16 if half else torch.float32}
    (difference,) = (one.heads for one in differences.values())
    assert 0 < difference < 1e-2 if half else difference == 0
    loaded = load_model(str(path), classes=("cat", "dög"))
    assert (loaded.config.phi, loaded.config.num_heads) == (phi, heads)
    assert loaded.config.input_size == ((64, 96) if name == "pth" else (416, 416))


def test_the_source_is_never_overwritten(job, tmp_path):
    source = tmp_path / "best.pth"
    source.write_bytes(b"precious")
    words = r"best\.pth: is also a source"
    with pytest.raises(UserError, match=words), staged(tmp_path, source) as folder:
        export_as("pth", job, folder)
    assert source.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [source]


def test_what_the_layout_leaves_out_is_said(make_job, tmp_path):
    (line,) = FORMATS["published"].notes(make_job())
    assert "no scale_x_y" in line
    assert "by up to 0.025 of a cell" in line
    assert FORMATS["published"].notes(make_job(scale_x_y=1.0)) == []
    other = make_job(scale_x_y=1.0, anchor_masks=((3, 4, 5), (0, 1, 2)))
    (line,) = FORMATS["published"].notes(other)
    assert "set anchors_path to best_published_anchors.txt and anchors_mask to [[3, 4, 5], [0, 1, 2]]" in line
    assert FORMATS["published"].next_command(make_job(), tmp_path)[-3:] == ["--imgsz", "64", "96"]
    assert FORMATS["published"].next_command(other, tmp_path)[-2:] == [
        "--anchors",
        str(tmp_path / "best_published_anchors.txt"),
    ]
