import inspect
import sys

import pytest
import torch
from torch import nn

from nets.attention import ATTENTION, attention_name, build_attention, register, same_attention


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
        ("never_imported.py:Block", "never_imported.py:Block.*its code is not imported"),
    ],
)
def test_a_wrong_spec_is_named(spec, words):
    with pytest.raises(ValueError, match=words):
        build_attention(spec, 64)


@pytest.mark.parametrize("name", [name for name in ATTENTION if name != "none"])
def test_the_table_names_the_class_that_registers_itself(name):
    block = type(build_attention(name, 64))
    assert ATTENTION[name] is block
    assert f'@register("{name}")\nclass {block.__name__}(' in inspect.getsource(sys.modules[block.__module__])


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
