"""The two kinds of .pth: the published layout and our own."""

import dataclasses

import pytest
import torch

from utils.cli.errors import UserError
from utils.export.exporter import FORMATS, export_as
from utils.weights.checkpoint import load_checkpoint
from utils.weights.load import load_model


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("phi", ["none", "cbam"])
@pytest.mark.parametrize("name", ["published", "pth"])
def test_the_files_hold_the_network(make_job, tmp_path, name, phi, half):
    job = make_job(phi, half=half)
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
    assert loaded.config.phi == phi
    assert loaded.config.input_size == ((64, 96) if name == "pth" else (416, 416))


def test_a_shared_checkpoint_says_what_it_is_and_nothing_of_the_run(job, tmp_path):
    (path,), _ = export_as("pth", job, tmp_path)
    checkpoint = load_checkpoint(path)
    assert (checkpoint.config, checkpoint.class_names) == (job.config, ("cat", "dög"))
    assert (checkpoint.run_config, checkpoint.training) == ({}, {})


def test_the_source_is_never_overwritten(job, tmp_path):
    job = dataclasses.replace(job, source=tmp_path / "best.pth")
    job.source.write_bytes(b"precious")
    with pytest.raises(UserError, match=r"best\.pth: is also a source"):
        export_as("pth", job, tmp_path)
    assert job.source.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [job.source]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"phi": "simam"}, "--format published: the published layout has no attention simam"),
        ({"anchor_masks": ((0, 1), (2, 3))}, "3 anchors a head"),
    ],
)
def test_what_the_layout_cannot_hold_is_refused(make_job, changes, words):
    with pytest.raises(UserError, match=words):
        FORMATS["published"].check(make_job(**changes))


def test_what_the_layout_leaves_out_is_said(make_job, tmp_path):
    (line,) = FORMATS["published"].notes(make_job())
    assert "no scale_x_y" in line
    assert "by up to 0.025 of a cell" in line
    assert FORMATS["published"].notes(make_job(scale_x_y=1.0)) == []
    other = make_job(scale_x_y=1.0, anchor_masks=((3, 4, 5), (0, 1, 2)))
    assert "has no anchors" in FORMATS["published"].notes(other)[0]
    assert FORMATS["published"].next_command(other, tmp_path) is None
    assert FORMATS["published"].next_command(make_job(), tmp_path) is not None


def test_ours_leaves_nothing_out(make_job):
    assert FORMATS["pth"].notes(make_job(scale_x_y=1.3)) == []
