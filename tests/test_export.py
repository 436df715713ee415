from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import export
from nets.config import ModelConfig
from utils.cli.class_names import read_class_names
from utils.cli.errors import UserError
from utils.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from utils.weights.load import load_model
from utils.weights.own_block import build_network

ROOT = Path(__file__).resolve().parents[1]


def make_weights(path: Path, phi: str = "none") -> None:
    """Write untrained weights for cat and dog at 64 x 64 pixels."""
    torch.manual_seed(0)
    model = build_network(ModelConfig(2, phi=phi, input_size=(64, 64)))
    save_checkpoint(path, Checkpoint(model.config, ("cat", "dog"), model.state_dict(), run_config={"lr": 1}))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights of several blocks."""
    folder = tmp_path_factory.mktemp("weights")
    for name, phi in (("best", "none"), ("se", "se"), ("simam", "simam")):
        make_weights(folder / f"{name}.pth", phi)
    return folder


@pytest.fixture
def room(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the weights best.pth, se.pth and simam.pth."""
    for path in weights.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*argv: str) -> int:
    return export.main(["--weights", "best.pth", *argv])


@pytest.mark.slow
def test_several_formats_in_one_folder(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--format", "darknet", "published", "pth") == 0
    out, err = capsys.readouterr()
    models = ["best.weights", "best.cfg", "best.names", "best.json", "best_published.pth", "best.pth"]
    files = [*models, "labels.txt", "MODEL_CARD.md", "args.yaml"]
    folder = room / "runs/export/exp"
    assert {path.name for path in folder.iterdir()} == set(files)
    assert read_class_names(folder / "labels.txt") == ("cat", "dog")
    assert "no scale_x_y" in err
    lines = out.splitlines()
    measured = [line for line in lines if "largest differences from PyTorch" in line]
    assert [line.partition(":")[0] for line in measured] == ["darknet", "darknet", "published", "pth"]
    named = lines[len(measured) : -3]
    assert [line.split("  ")[0] for line in named] == [f"runs/export/exp/{name}" for name in files]
    weights = [
        "best.weights",
        "best_published.pth --classes runs/export/exp/labels.txt --imgsz 64 64",
        "best.pth",
    ]
    command = "next: python predict.py photo.jpg --weights runs/export/exp/"
    assert lines[-3:] == [command + rest for rest in weights]


@pytest.mark.slow
def test_the_settings_can_be_given_back(room: Path) -> None:
    assert run("--format", "pth", "--imgsz", "96x64", "--half", "--project", "out", "--name", "first") == 0
    folder = room / "out/first"
    checkpoint = load_checkpoint(folder / "best.pth")
    assert checkpoint.config.input_size == (96, 64)
    assert checkpoint.weights["head_p5.predict.weight"].dtype == torch.float16
    assert checkpoint.run_config == {}
    assert yaml.safe_load((folder / "args.yaml").read_text())["imgsz"] == [96, 64]
    assert export.main(["--config", str(folder / "args.yaml")]) == 0
    assert (room / "out/first2/best.pth").is_file()
    assert export.main(["--config", str(folder / "args.yaml"), "--exist-ok"]) == 0
    assert not (room / "out/first3").exists()


def test_imgsz_reaches_the_cfg_and_classes_the_names(room: Path) -> None:
    (room / "names.txt").write_text("Katze\nHund\n")
    assert run("--format", "darknet", "--imgsz", "32", "96", "--classes", "names.txt") == 0
    folder = room / "runs/export/exp"
    cfg = (folder / "best.cfg").read_text().splitlines()
    assert {"width=96", "height=32"} <= set(cfg)
    assert read_class_names(folder / "best.names") == ("Katze", "Hund")
    assert read_class_names(folder / "labels.txt") == ("Katze", "Hund")


def test_last_is_the_newest_run(room: Path) -> None:
    (room / "runs/train/exp/weights").mkdir(parents=True)
    (room / "runs/train/exp/weights/best.pth").symlink_to(room / "se.pth")
    assert export.main(["--weights", "last", "--format", "pth"]) == 0
    assert load_checkpoint(room / "runs/export/exp/best.pth").config.phi == "se"


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--weights", "nowhere.pth"], "nowhere.pth"),
        (["--weights", "last"], "--weights last"),
        (["--weights", "se.pth", "--format", "pth", "darknet"], "takes --phi none only"),
        (["--weights", "simam.pth", "--format", "published"], "has no attention simam"),
        (["--weights", "se.pth", "--phi", "ca", "--format", "pth"], "attention=se"),
        (["--int8", "--data", "nowhere"], "nowhere"),
        (["--format", "pth", "--classes", "three.txt"], "3 names were given"),
        (["--half", "--format", "pth", "darknet"], "--half: the Darknet format stores 32-bit values"),
        (["--opset", "99"], "--opset 99: onnx "),
    ],
)
def test_mistakes_end_in_one_line_and_write_nothing(
    room: Path, capsys: pytest.CaptureFixture[str], argv: list[str], named: str
) -> None:
    (room / "three.txt").write_text("a\nb\nc\n")
    before = set(room.rglob("*"))
    assert run(*argv) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert named in errors[0]
    assert set(room.rglob("*")) == before


def test_without_the_onnx_packages_only_onnx_is_refused(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    assert run() == 2
    assert "--format onnx: needs onnx, which cannot be imported" in capsys.readouterr().err
    assert not (room / "runs").exists()
    assert run("--format", "darknet") == 0


@pytest.mark.slow  # a new process imports torch
def test_the_command_does_not_import_the_extra_packages() -> None:
    # The last two take as long as torch itself, and only training needs them.
    extra = {"onnx", "onnxscript", "onnxruntime", "openvino", "ncnn", "pnnx", "torchvision", "torch._dynamo"}
    modules = "utils.export.bundle, utils.export.exporter"
    code = f"import sys, predict, {modules}; sys.exit(bool({extra} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_wrong_export_ends_in_one_line(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load_another(path: str, **kwargs: object) -> object:
        loaded = load_model(path)
        loaded.model.head_p4.predict.bias.data += 0.5
        return loaded

    monkeypatch.setattr("utils.export.weight_files.load_model", load_another)
    assert run("--format", "pth") == 1
    assert "the raw heads differ from PyTorch by 0.5, at most 0.001 is allowed" in capsys.readouterr().err
    assert not (room / "runs/export/exp").exists()


def test_of_several_formats_none_remains_when_one_fails(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(self: object, job: object, folder: Path) -> list[Path]:
        raise UserError(f"{folder / 'best.weights'}: cannot be written", exit_code=1)

    monkeypatch.setattr("utils.export.weight_files.DarknetFormat.write", fail)
    assert run("--format", "pth", "darknet") == 1
    assert "error: runs/export/exp/best.weights: cannot be written" in capsys.readouterr().err
    assert list(room.glob("runs/export/*")) == []
    (room / "runs/export/exp").mkdir()
    (room / "runs/export/exp/mine.txt").write_text("kept")
    assert run("--format", "pth", "darknet", "--exist-ok") == 1
    assert [path.name for path in room.glob("runs/export/exp/*")] == ["mine.txt"]


def test_a_signal_leaves_nothing_behind(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "utils.export.weight_files.DarknetFormat.write", lambda *_: signal.raise_signal(signal.SIGTERM)
    )
    assert run("--format", "pth", "darknet") == 128 + signal.SIGTERM
    assert "interrupted" in capsys.readouterr().err
    assert list(room.glob("runs/export/*")) == []


OWN_BLOCK = """
from torch import nn

class Own(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return x + self.mix(x)
"""


def make_own(room: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make weights with a block of the user's own, then go to another folder; returns --phi from there."""
    (room / "code").mkdir()
    (room / "code/own.py").write_text(OWN_BLOCK)
    (room / "best.pth").unlink()
    make_weights(room / "best.pth", f"{room}/code/own.py:Own")
    (room / "elsewhere").mkdir()
    monkeypatch.chdir(room / "elsewhere")
    return "../code/own.py:Own"


def test_an_own_block_needs_its_flag_and_keeps_no_path(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    phi = make_own(room, monkeypatch)
    given = ["--weights", "../best.pth", "--format", "pth"]
    assert export.main(given) == 2
    assert f"add --phi {room}/code/own.py:Own" in capsys.readouterr().err
    assert export.main([*given, "--phi", phi]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"--phi {phi}")
    path = Path("runs/export/exp/best.pth")
    assert load_checkpoint(path).config.phi == "own.py:Own"
    assert str(room).encode() not in path.read_bytes()
    assert load_model(str(path), phi=phi).config.phi == phi
