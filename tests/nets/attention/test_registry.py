import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from nets.attention import ATTENTION, attention_name, build_attention, register, same_attention

ROOT = Path(__file__).resolve().parents[3]
PLAIN = """
from dataclasses import dataclass
from torch import nn
from nets.attention import register
from nets.attention.se import SqueezeExcite

class SE8(SqueezeExcite):
    ratio = 8

@dataclass
class Settings:
    gain: "float" = 2.0

@register("mine")
class Mine(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gain = Settings().gain

    def forward(self, x):
        return self.gain * x
"""


@pytest.fixture
def own_file(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(PLAIN)
    yield file
    ATTENTION.pop("mine", None)


def test_none_is_the_identity():
    assert isinstance(build_attention("none", 8), nn.Identity)


def test_names_are_listed_numbered_first_then_by_family():
    assert list(ATTENTION) == [
        *("none", "se", "cbam", "eca", "ca", "channel", "spatial", "cam", "cse", "sse"),
        *("scse_add", "scse_max", "scse_multiply", "self_attention", "split_attention", "simam"),
    ]
    with pytest.raises(ValueError, match=r"choose 0.none, 1.se, 2.cbam, 3.eca, 4.ca, channel, spatial, cam"):
        attention_name("sen")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "unknown attention"),
        ("-1", "unknown attention"),
        ("5", "choose 0.none, 1.se"),
        ("missing.py:Block", "missing.py:Block.*there is no file .*missing.py"),
        ("no.such.module:Block", "ModuleNotFoundError.*no"),
        ("nets.boxes:box_iou", "no nn.Module class 'box_iou'"),
        ("nets.blocks:ConvNormAct", r"built as ConvNormAct\(channels\), but missing.*out_channels"),
    ],
)
def test_a_wrong_spec_is_named(spec, words):
    with pytest.raises(ValueError, match=words):
        build_attention(spec, 64)


def test_registering_enrols_a_block_by_name():
    class Double(nn.Module):
        def __init__(self, channels):
            super().__init__()

        def forward(self, x):
            return 2 * x

    try:
        register("double")(Double)
        assert attention_name("double") == "double"
        assert build_attention("double", 3)(torch.ones(1, 3, 1, 1)).sum() == 6
        with pytest.raises(ValueError, match="taken"):
            register("double")(Double)
    finally:
        ATTENTION.pop("double", None)


@pytest.mark.parametrize("name", ["none", "se", "0", "9", "own.py:Block"])
def test_what_cannot_be_a_new_name_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}.*taken or not a plain name"):
        register(name)(nn.Identity)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (2, "cbam", True),
        ("se", "cbam", False),
        ("own.py:SE8", "/else/where/own.py:SE8", True),
        ("own.py:SE8", "own.py:SE4", False),
        ("own.py:SE8", "other.py:SE8", False),
    ],
)
def test_a_block_of_ones_own_is_known_by_file_and_class(first, second, same):
    assert same_attention(first, second) is same


def test_a_file_of_the_users_own_is_run_once_and_may_register_names(own_file, monkeypatch):
    blocks = [build_attention(f"{own_file}:Mine", channels) for channels in (256, 512, 128)]
    monkeypatch.chdir(own_file.parent)
    blocks += [build_attention("own.py:Mine", 64), build_attention("mine", 64)]
    assert len({type(block) for block in blocks}) == 1
    assert blocks[0](torch.ones(1)).item() == 2


def test_a_subclass_of_the_users_own_is_called_by_its_name(own_file):
    assert build_attention(f"{own_file}:SE8", 64).fc[0].weight.shape == (8, 64)
    with pytest.raises(ValueError, match="SE8: ratio 8 leaves no channel of 4"):
        build_attention(f"{own_file}:SE8", 4)


def test_two_files_of_one_name_are_two_modules(tmp_path):
    for folder, value in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "own.py"
        file.write_text(f"from torch import nn\n\nclass Block(nn.Identity):\n    value = {value}\n")
    assert [build_attention(f"{tmp_path / folder}/own.py:Block", 8).value for folder in "ab"] == [1, 2]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "has no nn.Module class 'Block'"),
        ("class Block(\n", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("raise SystemExit(0)", "SystemExit"),
        (
            "from torch import nn\nclass Block(nn.Module):\n    def __init__(self):\n        pass",
            r"a block is built as Block\(channels\), but too many positional arguments",
        ),
    ],
)
def test_a_broken_file_of_the_users_own_is_named_in_one_line(tmp_path, source, words):
    file = tmp_path / "own.py"
    file.write_text(source)
    modules = len(sys.modules)
    with pytest.raises(ValueError, match=rf"own\.py:Block.*{words}") as caught:
        build_attention(f"{file}:Block", 64)
    assert "\n" not in str(caught.value)
    if "class Block(nn" not in source and source:
        assert len(sys.modules) == modules  # mended, it can be imported again


def test_a_module_in_the_current_directory_is_found(tmp_path, monkeypatch):
    package = tmp_path / "attention_of_ones_own"
    package.mkdir()
    (package / "block.py").write_text("from torch import nn\n\nclass Block(nn.Identity):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert type(build_attention("attention_of_ones_own.block:Block", 8)).__name__ == "Block"
    assert sys.path == before


@pytest.mark.slow
def test_a_script_that_lies_elsewhere_finds_a_module_in_the_current_directory(tmp_path):
    (tmp_path / "mine_here.py").write_text("from torch import nn\n\nclass Block(nn.Identity):\n    pass\n")
    script = tmp_path / "elsewhere" / "script.py"
    script.parent.mkdir()
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom nets.attention import build_attention\n"
        "print(type(build_attention('mine_here:Block', 8)).__name__)\n"
    )
    result = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.returncode) == ("Block\n", 0), result.stderr
