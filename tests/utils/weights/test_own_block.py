"""Attention blocks from files and modules of the user's own."""

import copy
import sys
from pathlib import Path

import pytest
import torch

from nets.attention import ATTENTION, OWN_BLOCKS, build_attention
from nets.config import ModelConfig
from nets.yolo import YoloBody
from utils.weights.own_block import build_network, import_block, needs_contiguous, to_channels_last

GROUPED = f"{Path(__file__).resolve().parents[2]}/grouped_block.py:SGE"

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


def build(spec, channels):
    import_block(spec)
    return build_attention(spec, channels)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("missing.py:Block", "missing.py:Block.*no such file: .*missing.py"),
        ("no.such.module:Block", "ModuleNotFoundError.*no"),
        ("nets.boxes:box_iou", "no nn.Module class 'box_iou'"),
        ("nets.blocks:ConvNormAct", r"built as ConvNormAct\(channels\), but missing.*out_channels"),
    ],
)
def test_a_wrong_spec_is_named(spec, words):
    with pytest.raises(ValueError, match=words):
        import_block(spec)


def test_a_file_of_the_users_own_is_run_once_and_may_register_names(own_file, monkeypatch):
    blocks = [build(f"{own_file}:Mine", channels) for channels in (256, 512, 128)]
    monkeypatch.chdir(own_file.parent)
    blocks += [build("own.py:Mine", 64), build("mine", 64)]
    assert len({type(block) for block in blocks}) == 1
    assert blocks[0](torch.ones(1)).item() == 2


def test_a_subclass_of_the_users_own_is_called_by_its_name(own_file):
    assert build(f"{own_file}:SE8", 64).fc[0].weight.shape == (8, 64)
    with pytest.raises(ValueError, match="SE8: ratio 8 leaves no channel of 4"):
        build(f"{own_file}:SE8", 4)


def test_two_files_of_one_name_are_two_modules(tmp_path):
    for folder, value in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "own.py"
        file.write_text(f"from torch import nn\n\nclass Block(nn.Identity):\n    value = {value}\n")
    assert [build(f"{tmp_path / folder}/own.py:Block", 8).value for folder in "ab"] == [1, 2]


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
        build(f"{file}:Block", 64)
    assert "\n" not in str(caught.value)
    if "class Block(nn" not in source and source:
        assert len(sys.modules) == modules  # mended, it can be imported again


def test_a_module_in_the_current_directory_is_found(tmp_path, monkeypatch):
    package = tmp_path / "attention_of_ones_own"
    package.mkdir()
    (package / "block.py").write_text("from torch import nn\n\nclass Block(nn.Identity):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert type(build("attention_of_ones_own.block:Block", 8)).__name__ == "Block"
    assert sys.path == before


def make_grouped(phi_at=("c4", "c5", "up")):
    """A network with the grouped block, and what it computes on contiguous images, which it always could."""
    torch.manual_seed(0)
    config = ModelConfig(2, phi=GROUPED, phi_at=phi_at, input_size=(64, 64))
    network = build_network(config)
    torch.manual_seed(0)
    plain = YoloBody(config)
    assert list(plain.state_dict()) == list(network.state_dict())
    assert all(map(torch.equal, plain.state_dict().values(), network.state_dict().values()))
    images = torch.rand(2, 3, 64, 64)
    return network, plain, images


def test_a_block_that_needs_contiguous_features_gets_them():
    network, plain, images = make_grouped()
    expected = plain.eval()(images)
    images = images.contiguous(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        plain(images)
    for one in (network, copy.deepcopy(network), to_channels_last(network), copy.deepcopy(network)):
        for ours, theirs in zip(one.eval()(images), expected, strict=True):
            torch.testing.assert_close(ours, theirs)
    layouts = [one.conv.weight.is_contiguous() for one in (network.attention.c4, network.head_p5.conv)]
    assert layouts == [True, False]


def test_only_blocks_that_fail_on_channels_last_are_given_others(own_file):
    size = (64, 64)
    import_block(f"{own_file}:SE8")
    assert not needs_contiguous(f"{own_file}:SE8", "c4", size)
    network = build_network(ModelConfig(2, phi=f"{own_file}:SE8", input_size=size))
    assert not any(module._forward_pre_hooks for module in network.modules())
    network, *_ = make_grouped(phi_at=("c5",))
    assert [place for place, block in network.attention.items() if block._forward_pre_hooks] == ["c5"]


def test_weights_of_five_dimensions_keep_their_layout():
    block = torch.nn.Sequential(torch.nn.Conv3d(2, 2, 3), torch.nn.Conv2d(2, 2, 3))
    to_channels_last(block)
    assert block[0].weight.is_contiguous()
    assert block[1].weight.is_contiguous(memory_format=torch.channels_last)


def test_the_layout_is_tried_without_a_trace():
    import_block(GROUPED)
    block, state = OWN_BLOCKS[GROUPED], torch.get_rng_state()
    assert needs_contiguous(GROUPED, "c4", (64, 64))
    assert torch.equal(torch.get_rng_state(), state)
    assert OWN_BLOCKS[GROUPED] is block
