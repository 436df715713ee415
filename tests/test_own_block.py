"""A block from a file outside the repository, each command run from another working directory."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import compare
import evaluate
import export
import predict
import train
from nets.attention import ATTENTION
from nets.config import ModelConfig
from utils.data.voc_xml import VocObject, write_annotation
from utils.weights.load import read_weights
from utils.weights.own_block import import_block

OWN = """
from nets.attention import register
from nets.attention.se import SqueezeExcite


@register("own_se8")
class SE8(SqueezeExcite):
    ratio = 8
"""


@pytest.fixture
def room(tmp_path, monkeypatch):
    """Images, a file with a block, and a function that changes into a new folder."""
    data = tmp_path / "data"
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (data / part).mkdir(parents=True)
    for index in range(6):
        pixels = np.random.default_rng(index).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(data / f"JPEGImages/{index}.jpg")
        write_annotation(
            data / f"Annotations/{index}.xml",
            f"{index}.jpg",
            80,
            60,
            [VocObject("cat", (10.0, 10.0, 50.0, 40.0))],
        )
    (data / "ImageSets/Main/train.txt").write_text("0\n1\n2\n3\n")
    (data / "ImageSets/Main/val.txt").write_text("4\n5\n")
    for folder in ("blocks", "a", "b", "c", "d", "e"):
        (tmp_path / folder).mkdir()
    (tmp_path / "blocks/own.py").write_text(OWN)
    known = dict(ATTENTION)
    yield tmp_path
    for name in ATTENTION.keys() - known:  # registered when the file was imported
        del ATTENTION[name]


QUICK = ["--data", "../data", "--imgsz", "64", "--workers", "0", "--device", "cpu", "--batch-size", "2"]


@pytest.mark.slow
def test_every_command_takes_it_from_anywhere(room, monkeypatch, capsys):
    monkeypatch.chdir(room / "a")
    start = [*QUICK, "--weights", "none", "--epochs", "1", "--phi", "../blocks/own.py:SE8"]
    assert train.main(start) == 0
    last, best = (room / f"a/runs/train/exp/weights/{name}.pth" for name in ("last", "best"))
    assert read_weights(str(best)).state_dict["attention.c4.fc.0.weight"].shape == (32, 256)
    assert "--phi ../blocks/own.py:SE8" in capsys.readouterr().err  # in the commands to type next

    monkeypatch.chdir(room / "b")
    own = str(room / "blocks/own.py:SE8")
    for script, argv in (
        (train, ["--resume", str(last), "--epochs", "2"]),
        (evaluate, ["--weights", str(best), "--data", "../data"]),
        (predict, [str(room / "data/JPEGImages/4.jpg"), "--weights", str(best), "--json", "found.jsonl"]),
        (compare, ["--from", str(last.parent.parent)]),
        (export, ["--weights", str(best), "--format", "onnx", "pth"]),
    ):
        assert script.main(argv) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert re.search(r"block of your own; to import its code add --phi \S*own\.py:SE8$", error)
        assert script.main([*argv, "--phi", own]) == 0, capsys.readouterr().err
    assert Path("runs/export/exp/best.onnx").exists()
    assert json.loads(Path("found.jsonl").read_text())["width"] == 80
    assert Path("runs/compare/exp/table.md").read_text().count("own.py:SE8") >= 1


@pytest.mark.slow
def test_a_module_in_the_current_directory_is_found(room, monkeypatch):
    monkeypatch.chdir(room / "c")
    Path("my_blocks_of_c.py").write_text(OWN.replace("own_se8", "own_se8_c"))
    assert train.main([*QUICK, "--weights", "none", "--epochs", "1", "--phi", "my_blocks_of_c:SE8"]) == 0


OUTPUTS = {  # what the forward of a user's block may give -> what its user must see
    "x[:1]": "a block must keep shape and type",
    "x.double()": "a block must keep shape and type",
    "(x, x)": "must return one tensor, this one returns tuple",
    "x[0, 1e9]": "--phi .*own",
    "x.mul_(2)": "changes its input in place",
}
FORWARD = "class Own(nn.Identity):\n    def forward(self, x):\n        return "
BROKEN = {FORWARD + output: words for output, words in OUTPUTS.items()} | {
    "class Own(nn.Module):\n    def __init__(self, c, more):\n        pass": r"built as Own\(channels\)",
    "raise SystemExit(3)": "SystemExit",
    "class Other: pass": "has no nn.Module class 'Own'",
}


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_a_broken_block_is_refused_before_training(room, monkeypatch, capsys, number):
    monkeypatch.chdir(room / "d")
    code, words = list(BROKEN.items())[number]
    Path(f"own{number}.py").write_text(f"from torch import nn\n\n\n{code}\n")
    assert train.main([*QUICK, "--weights", "none", "--epochs", "1", "--phi", f"own{number}.py:Own"]) == 2
    assert re.search(words, capsys.readouterr().err.strip().splitlines()[-1])
    assert not Path("runs").exists()


def test_a_name_that_a_users_file_registers_is_stored_as_the_file(room, monkeypatch):
    (room / "blocks/named.py").write_text(OWN.replace("own_se8", "named_se8"))
    import_block(f"{room}/blocks/named.py:SE8")
    assert ModelConfig(1, "named_se8").phi == f"{room}/blocks/named.py:SE8"


def test_a_batch_of_one_that_a_block_cannot_train_on_is_refused(room, monkeypatch, capsys):
    monkeypatch.chdir(room / "e")
    argv = [*QUICK[:-1], "1", "--weights", "none", "--epochs", "1", "--phi", "split_attention"]
    assert train.main(argv) == 2
    words = "at c4, training on 1 image of 64x64 pixels: SplitAttention: training needs a batch of at least 2"
    assert words in capsys.readouterr().err


TABLE = """
import torch
from torch import nn

class Table(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(4, 4))

    def forward(self, x):
        return x + self.table
"""


@pytest.mark.parametrize("flag", ["--grow", "--multi-scale"])
def test_a_block_of_one_size_is_refused_where_sizes_vary(room, monkeypatch, capsys, flag):
    monkeypatch.chdir(room / "e")
    Path("table.py").write_text(TABLE)
    argv = [*QUICK, "--weights", "none", "--epochs", "2", "--phi", "table.py:Table", "--phi-at", "c4"]
    assert train.main([*argv, flag]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: --phi table.py:Table at c4, training on 2 images of 32x32 pixels: ")
    assert error.endswith("it fits 64x64 pixels but not 32x32: remove --multi-scale and --grow")
    assert not Path("runs").exists()


@pytest.mark.slow
def test_a_block_that_fails_later_is_named_with_its_line(room, monkeypatch, capsys):
    monkeypatch.chdir(room / "e")
    Path("table.py").write_text(TABLE)
    own = ["--phi", "table.py:Table"]
    start = [*QUICK, "--weights", "none", "--epochs", "1", *own, "--phi-at", "c4", "--val", "none"]
    assert train.main(start) == 0
    assert "at c4: fits 64x64 pixels but not 96x96" in capsys.readouterr().err
    image = str(room / "data/JPEGImages/4.jpg")
    weights = ["--weights", "last", "--no-save", *own]
    assert predict.main([image, *weights]) == 0
    assert predict.main([image, *weights, "--imgsz", "96"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: table.py line 11, your own code: RuntimeError: The size of tensor a (6)")


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_grouped_block_goes_through_every_command(room, monkeypatch, capsys):
    monkeypatch.chdir(room / "e")
    own = ["--phi", f"{Path(__file__).with_name('grouped_block.py')}:SGE"]
    assert train.main([*QUICK, "--weights", "none", "--epochs", "1", *own]) == 0
    assert capsys.readouterr().err.count("gets contiguous features") == 1
    weights = Path("runs/train/exp/weights/best.pth")
    assert train.main(["--resume", str(weights.with_name("last.pth")), "--epochs", "2", *own]) == 0
    given = ["--weights", str(weights), *own]
    assert evaluate.main([*given, "--data", "../data"]) == 0
    images = [str(room / f"data/JPEGImages/{index}.jpg") for index in range(3)]
    assert predict.main([*images, *given, "--batch-size", "2", "--attention-maps"]) == 0
