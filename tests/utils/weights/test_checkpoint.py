import errno
import io
import os
import pickle
import zipfile

import pytest
import torch
from torch import nn

from nets.config import ModelConfig
from tests.file_size_limit import file_size_limit
from utils.cli.errors import UserError
from utils.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, write_content
from utils.weights.load import load_model
from utils.weights.own_block import build_network


@pytest.fixture
def checkpoint():
    config = ModelConfig(2, phi="eca", phi_at=("c5",), input_size=(64, 96), scale_x_y=1.0)
    return Checkpoint(
        config, ("cat", "猫"), build_network(config).state_dict(), {"map50": 0.5}, {"imgsz": (64, 96)}
    )


def test_everything_that_defines_the_network_comes_back(tmp_path, checkpoint):
    save_checkpoint(tmp_path / "best.pth", checkpoint)
    loaded = load_checkpoint(tmp_path / "best.pth")
    assert loaded.config == checkpoint.config
    assert loaded.class_names == checkpoint.class_names
    assert loaded.metrics == {"map50": 0.5}
    assert loaded.run_config == {"imgsz": [64, 96]}
    assert all(torch.equal(value, loaded.weights[name]) for name, value in checkpoint.weights.items())
    model = load_model(str(tmp_path / "best.pth"))
    assert (model.config, model.class_names) == (checkpoint.config, checkpoint.class_names)


class Malicious:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.folder / "PWNED"),)


def zip_of(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def edited(good, *path, value):
    content = inner = torch.load(io.BytesIO(good), weights_only=True)
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return zip_of(content)


def compressed(good):
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return buffer.getvalue()


# What a damaged or foreign file holds, from the folder and a good file's bytes.
DAMAGE = {
    "empty": lambda folder, good: b"",
    "text": lambda folder, good: b"junk",
    "truncated": lambda folder, good: good[: len(good) // 2],
    "flipped": lambda folder, good: good[:200_000] + bytes(16) + good[200_016:],
    "html": lambda folder, good: b"<!DOCTYPE html><html><body>404</body></html>",
    "lfs": lambda folder, good: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "malicious zip": lambda folder, good: zip_of({"weights": Malicious(folder)}),
    "malicious pickle": lambda folder, good: pickle.dumps(Malicious(folder), protocol=2),
    "module": lambda folder, good: zip_of(nn.Linear(2, 2)),
    "foreign": lambda folder, good: zip_of({"conv.weight": torch.zeros(2)}),
    "list": lambda folder, good: zip_of([1, 2]),
    "newer": lambda folder, good: zip_of({"format_version": 99}),
    "part": lambda folder, good: zip_of({"format_version": 1}),
    "compressed": lambda folder, good: compressed(good),
    "wide": lambda folder, good: edited(good, "model_config", "input_size", value=[32, 3_200_000]),
    "anchors": lambda folder, good: edited(good, "model_config", "anchors", value=[[1.0, 2.0]] * 65),
    "sparse": lambda folder, good: edited(good, "weights", "x", value=torch.eye(2).to_sparse()),
    "metrics": lambda folder, good: edited(good, "metrics", value=[0.5]),
}


@pytest.mark.parametrize("kind", sorted(DAMAGE))
def test_a_bad_file_is_one_clear_error(tmp_path, checkpoint, kind):
    path = tmp_path / "ckpt.pth"
    save_checkpoint(path, checkpoint)
    path.write_bytes(DAMAGE[kind](tmp_path, path.read_bytes()))
    with pytest.raises(UserError) as caught:
        load_model(str(path))
    assert "ckpt.pth" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "PWNED").exists()


def test_weights_that_do_not_fit_are_listed(tmp_path, checkpoint):
    weights = {name: value for name, value in checkpoint.weights.items() if not name.startswith("neck_up")}
    save_checkpoint(tmp_path / "ckpt.pth", Checkpoint(checkpoint.config, checkpoint.class_names, weights))
    with pytest.raises(UserError, match=r"6 missing \(neck_up\.conv\.weight"):
        load_model(str(tmp_path / "ckpt.pth"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"phi": "se"}, "made with attention=eca, you asked for se"),
        ({"classes": ("one",)}, "has 2 classes, but 1 names"),
    ],
)
def test_what_does_not_match_the_file_is_refused(tmp_path, checkpoint, arguments, words):
    save_checkpoint(tmp_path / "ckpt.pth", checkpoint)
    with pytest.raises(UserError, match=words):
        load_model(str(tmp_path / "ckpt.pth"), **arguments)


@pytest.mark.parametrize(
    ("weights", "words"),
    [("last", "train first"), ("none.pth", "no such weights file"), ("x.onnx", "no such")],
)
def test_missing_weights_are_named(tmp_path, monkeypatch, weights, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        load_model(weights)


def test_a_limit_on_the_size_of_files_leaves_the_old_one(tmp_path, checkpoint):
    path = tmp_path / "last.pth"
    save_checkpoint(path, checkpoint)
    before = path.read_bytes()
    with file_size_limit(1_000_000), pytest.raises(UserError) as caught:  # the file has 24 MB
        save_checkpoint(path, checkpoint)
    assert str(caught.value) == f"{path}: cannot write: {os.strerror(errno.EFBIG)}"
    assert caught.value.exit_code == 1
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


class OnDevice(torch.Tensor):
    """Stands for a tensor on a GPU: a file with one is refused, as it is no plain tensor."""

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_a_file_holds_tensors_of_the_cpu_however_deep(tmp_path, checkpoint):
    on_cpu = torch.arange(3.0)
    tensor = on_cpu.as_subclass(OnDevice)
    training = {"optimizer": {"state": {0: {"momentum": tensor}}, "groups": [(tensor, 1)]}, "empty": {}}
    weights = checkpoint.weights | {"added": tensor}
    whole = Checkpoint(checkpoint.config, checkpoint.class_names, weights, training=training)
    save_checkpoint(tmp_path / "last.pth", whole)
    loaded = load_checkpoint(tmp_path / "last.pth")
    found = loaded.training["optimizer"]
    for value in (loaded.weights["added"], found["state"][0]["momentum"], found["groups"][0][0]):
        assert torch.equal(value, on_cpu)
    assert found["groups"][0][1] == 1
    assert loaded.training["empty"] == {}
    assert type(weights["added"]) is type(training["optimizer"]["groups"][0][0]) is OnDevice  # not in place


def test_saving_copies_no_tensor_of_the_cpu(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(torch, "save", lambda content, file: saved.append(content))
    tensor = torch.zeros(2)
    write_content(tmp_path / "file.pth", {"a": [tensor]})
    assert saved[0]["a"][0] is tensor
