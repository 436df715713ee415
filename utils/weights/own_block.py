"""Attention blocks of the user's own code: 'path/to/file.py:Class' or 'package.module:Class'.

Code is imported only when the caller names it; `nets` itself imports none.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from torch import nn

from nets.attention import OWN_BLOCKS
from nets.config import ModelConfig
from nets.yolo import YoloBody


def build_network(config: ModelConfig) -> YoloBody:
    """Build a network, after importing the user's own attention block if `config.phi` names one.

    Raises:
        ValueError: the block cannot be imported or built; one line.
    """
    import_block(config.phi)
    with _named(config.phi):
        return YoloBody(config)


def import_block(spec: str) -> None:
    """Import the class of a spec; a registered name needs no import.

    Raises:
        ValueError: it cannot be imported, or is no block; one line.
    """
    if ":" in spec:
        with _named(spec):
            OWN_BLOCKS[spec] = _find_class(spec)


@contextmanager
def _named(spec: str) -> Iterator[None]:
    """Turn any exception of the user's code, also SystemExit, into a ValueError of one line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if ":" not in spec:
            raise
        reason = " ".join(str(error).split())
        raise ValueError(f"attention {spec!r}: {type(error).__name__}: {reason}") from error


def _find_class(spec: str) -> type[nn.Module]:
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
    """Import a file, unless it was imported under any name: its blocks cannot be registered twice."""
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and vars(module).get("__file__") == str(path):
            return module
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    name = f"{path.stem}_{zlib.crc32(str(path).encode()):08x}"  # unlike the plain name, hides no other module
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None  # a .py file always has a loader
    assert module_spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(name: str) -> ModuleType:
    """Import a module, also from the current directory, which Python does not search when a script runs."""
    here = str(Path.cwd())
    if here in sys.path:
        return importlib.import_module(name)
    sys.path.append(here)  # last, so that it hides no other module
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(here)
