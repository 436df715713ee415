"""The registry of attention blocks.

A block is an `nn.Module` class: `Block(channels)` maps (B, C, H, W) to (B, C, H, W). Two methods are
optional:

- `gates(x) -> dict[str, Tensor]`: the factors that the forward applies to x, each broadcastable to x;
attention maps draw them.
- `start_constant() -> float`: set the parameters so that the block is at first x -> c * x in eval mode, and
return c.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

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

    A name that the user's own code registered becomes 'file.py:Class', by which weights find it again.

    Raises:
        ValueError: the spec is unknown; the message lists what there is.
    """
    name = _NUMBERS.get(str(spec), str(spec))
    if name in ATTENTION:
        return _own_spec(ATTENTION[name]) or name
    if ":" in name:
        return name
    numbered = ", ".join(f"{number}|{known}" for number, known in _NUMBERS.items())
    others = "".join(f", {known}" for known in ATTENTION if known not in _NUMBERS.values())
    raise ValueError(f"unknown attention {spec!r}; choose {numbered}{others}, or path/to/file.py:Class")


def _own_spec(block: type[nn.Module]) -> str | None:
    """Return 'path/to/file.py:Class' of a block the user registered; its name is unknown to the next run."""
    if block.__module__.startswith(("nets.", "torch.")):
        return None
    module = sys.modules.get(block.__module__)
    file = getattr(module, "__file__", None)
    return f"{file}:{block.__name__}" if file and getattr(module, block.__name__, None) is block else None


def same_attention(first: str | int, second: str | int) -> bool:
    """Tell whether two specs name one block; one of the user's own is known by its file's name and class."""
    return short_name(attention_name(first)) == short_name(attention_name(second))


def short_name(name: str) -> str:
    """Return a block's name without the folders of its file."""
    return name.replace("\\", "/").rpartition("/")[2]


def build_attention(spec: str | int, channels: int) -> nn.Module:
    """Build the block that a spec names for feature maps of `channels` channels.

    Raises:
        ValueError: the spec is unknown, or names a class that cannot be imported or built; one line.
    """
    name = attention_name(spec)
    if name in ATTENTION:
        return ATTENTION[name](channels)
    try:
        return _import_block(name)(channels)
    except (Exception, SystemExit) as error:  # the user's code may fail in any way, or be a script that ends
        reason = " ".join(str(error).split())
        raise ValueError(f"attention {name!r}: {type(error).__name__}: {reason}") from error


def _import_block(spec: str) -> type[nn.Module]:
    """Import 'package.module:Class' or 'path/to/file.py:Class'."""
    source, _, class_name = spec.rpartition(":")
    module = _import_file(Path(source).resolve()) if source.endswith(".py") else _import_module(source)
    block = getattr(module, class_name, None)
    if not (isinstance(block, type) and issubclass(block, nn.Module)):
        raise TypeError(f"{source} has no nn.Module class {class_name!r}")
    try:
        inspect.signature(block).bind(0)
    except TypeError as error:
        raise TypeError(f"a block is built as {class_name}(channels), but {error}") from error
    return block


def _import_file(path: Path) -> ModuleType:
    """Import a file unless it is imported under any name: a second run could not register its blocks."""
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and vars(module).get("__file__") == str(path):
            return module
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    name = f"{path.stem}_{zlib.crc32(str(path).encode()):08x}"  # hides no module of the file's plain name
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise ImportError(f"cannot import {path}")
    module = sys.modules[name] = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(name: str) -> ModuleType:
    """Import a module that may lie in the current directory, which is not searched when a script runs."""
    here = str(Path.cwd())
    if here in sys.path:
        return importlib.import_module(name)
    sys.path.append(here)  # last, so that it hides nothing
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(here)
