"""Registry of the attention blocks.

A block is an `nn.Module` class: `Block(channels)` maps (B, C, H, W) to (B, C, H, W). Two methods are
optional:

- `gates(x) -> dict[str, Tensor]`: the factors that the forward applies to x, each broadcastable to x;
  attention maps draw them.
- `start_constant() -> float`: set the parameters so that the block is at first x -> c * x in eval mode, and
  return c.

Command lines list the names before torch is imported. Built-in blocks are therefore named here by module and
class, and imported when they are first built.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import nn

Block = TypeVar("Block", bound="type[nn.Module]")

# Name -> class, or "module:Class" until it is imported. The order is that of the names in messages.
ATTENTION: dict[str, type[nn.Module] | str] = {
    "none": "torch.nn:Identity",
    "se": "nets.attention.se:SqueezeExcite",
    "cbam": "nets.attention.cbam:CBAM",
    "eca": "nets.attention.eca:ECA",
    "ca": "nets.attention.ca:CoordinateAttention",
    "channel": "nets.attention.cbam:ChannelAttention",
    "spatial": "nets.attention.cbam:SpatialAttention",
    "cam": "nets.attention.cam:ChannelAttentionModule",
    "cse": "nets.attention.scse:ChannelSqueezeExcite",
    "sse": "nets.attention.scse:SpatialSqueezeExcite",
    "scse_add": "nets.attention.scse:AddedSqueezeExcite",
    "scse_max": "nets.attention.scse:MaximumSqueezeExcite",
    "scse_multiply": "nets.attention.scse:MultipliedSqueezeExcite",
    "self_attention": "nets.attention.self_attention:SelfAttention",
    "split_attention": "nets.attention.split_attention:SplitAttention",
    "simam": "nets.attention.simam:SimAM",
}
# Classes from the user's own code by spec, such as "my_block.py:SE8"; nothing here runs that code.
OWN_BLOCKS: dict[str, type[nn.Module]] = {}

NUMBERS = {"0": "none", "1": "se", "2": "cbam", "3": "eca", "4": "ca"}  # of the published checkpoints


def register(name: str) -> Callable[[Block], Block]:
    """Register a block under a name that `phi` then takes.

    Raises:
        ValueError: the name is taken, or would be read as a number or a path.
    """

    def add(block: Block) -> Block:
        is_listed = ATTENTION.get(name) == f"{block.__module__}:{block.__qualname__}"
        if (name in ATTENTION and not is_listed) or name.isdigit() or ":" in name:
            raise ValueError(f"attention name {name!r} is taken or not a plain name")
        ATTENTION[name] = block
        return block

    return add


def attention_name(spec: str | int) -> str:
    """Return the name of a spec: a registered name, or 'file.py:Class' / 'package.module:Class' as given.

    A name that the user's own code registered becomes 'file.py:Class', by which weights find it again.

    Raises:
        ValueError: the spec is unknown; the message lists the names.
    """
    name = NUMBERS.get(str(spec), str(spec))
    if name in ATTENTION:
        return _spec_of_own(ATTENTION[name]) or name
    if ":" in name:
        return name
    raise ValueError(f"unknown attention {spec!r}; choose {describe_names()}, or path/to/file.py:Class")


def describe_names() -> str:
    """Return the names in one line, the numbered ones with their numbers."""
    numbered = [f"{number}|{name}" for number, name in NUMBERS.items()]
    return ", ".join(numbered + [name for name in ATTENTION if name not in NUMBERS.values()])


def same_attention(first: str | int, second: str | int) -> bool:
    """Tell whether two specs name one block; a block of the user's own is known by file name and class."""
    return short_name(attention_name(first)) == short_name(attention_name(second))


def short_name(name: str) -> str:
    """Return a block's name without the folders of its file."""
    return name.replace("\\", "/").rpartition("/")[2]


def build_attention(spec: str | int, channels: int) -> nn.Module:
    """Build the block that a spec names for feature maps of `channels` channels.

    Raises:
        ValueError: the spec is unknown, or names a block of the user's own that is not in `OWN_BLOCKS`.
    """
    name = attention_name(spec)
    block = OWN_BLOCKS.get(name) or ATTENTION.get(name)
    if block is None:
        raise ValueError(f"attention {name!r}: its code is not imported; see utils/weights/own_block.py")
    if isinstance(block, str):
        module, _, class_name = block.partition(":")
        block = ATTENTION[name] = getattr(import_module(module), class_name)
    return block(channels)


def _spec_of_own(block: type[nn.Module] | str) -> str | None:
    """Return 'path/to/file.py:Class' of a block that the user's code registered."""
    if isinstance(block, str) or block.__module__.startswith(("nets.", "torch.")):
        return None
    module = sys.modules.get(block.__module__)
    file = getattr(module, "__file__", None)
    return f"{file}:{block.__name__}" if file and getattr(module, block.__name__, None) is block else None
