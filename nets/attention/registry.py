"""The registry of attention blocks.

A block is an `nn.Module` class: `Block(channels)` maps (B, C, H, W) to (B, C, H, W). Two methods are
optional:

- `gates(x) -> dict[str, Tensor]`: the factors that multiply x, each broadcastable to x; attention maps draw
them.
- `start_constant() -> float`: set the parameters so that the block is at first x -> c * x, and return c.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

from torch import nn

ATTENTION: dict[str, type[nn.Module]] = {"none": nn.Identity}

# The numbering of the published checkpoints.
_NUMBERS = {"0": "none", "1": "se", "2": "cbam", "3": "eca", "4": "ca"}


def register(name: str) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Enrol a block under a name that `phi` then takes.

    Raises:
        ValueError: the name is taken, or would be read as a number or a path.
    """

    def enrol(block: type[nn.Module]) -> type[nn.Module]:
        if name in ATTENTION or name.isdigit() or ":" in name:
            raise ValueError(f"attention name {name!r} is taken or not a plain name")
        ATTENTION[name] = block
        return block

    return enrol


def attention_name(spec: str | int) -> str:
    """Return the name of a spec: a registered name, or 'file.py:Class' / 'package.module:Class' as given.

    Raises:
        ValueError: the spec is unknown; the message lists what there is.
    """
    name = _NUMBERS.get(str(spec), str(spec))
    if name in ATTENTION or ":" in name:
        return name
    numbered = ", ".join(f"{number}|{known}" for number, known in _NUMBERS.items())
    others = "".join(f", {known}" for known in ATTENTION if known not in _NUMBERS.values())
    raise ValueError(f"unknown attention {spec!r}; choose {numbered}{others}, or path/to/file.py:Class")


def same_attention(first: str | int, second: str | int) -> bool:
    """Tell whether two specs name one block; one of the user's own is known by its file's name and class."""
    names = [attention_name(spec) for spec in (first, second)]
    return len({name.replace("\\", "/").rpartition("/")[2] for name in names}) == 1


def build_attention(spec: str | int, channels: int) -> nn.Module:
    """Build the block that a spec names for feature maps of `channels` channels.

    Raises:
        ValueError: the spec is unknown, or names a class that cannot be imported.
    """
    name = attention_name(spec)
    if name == "none":
        return nn.Identity()
    if name in ATTENTION:
        return ATTENTION[name](channels)
    try:
        return _import_block(name)(channels)
    except Exception as error:  # the user's code may fail in any way
        raise ValueError(f"attention {name!r}: {type(error).__name__}: {error}") from error


def _import_block(spec: str) -> type[nn.Module]:
    """Import 'package.module:Class' or 'path/to/file.py:Class'."""
    source, _, class_name = spec.rpartition(":")
    if source.endswith(".py"):
        module_spec = importlib.util.spec_from_file_location(Path(source).stem, Path(source).resolve())
        if module_spec is None or module_spec.loader is None:
            raise ImportError(f"no module at {source}")
        module = importlib.util.module_from_spec(module_spec)
        module_spec.loader.exec_module(module)
    else:
        module = importlib.import_module(source)
    block = getattr(module, class_name, None)
    if not (isinstance(block, type) and issubclass(block, nn.Module)):
        raise TypeError(f"{source} has no nn.Module class {class_name!r}")
    return block
