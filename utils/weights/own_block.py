"""Attention blocks of the user's own code: 'path/to/file.py:Class' or 'package.module:Class'.

Code is imported only when the caller names it; `nets` itself imports none.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from nets.attention import OWN_BLOCKS
from nets.config import ModelConfig
from nets.yolo import YoloBody
from utils.cli.own_code import import_source


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
    block = getattr(import_source(source), class_name, None)
    if not (isinstance(block, type) and issubclass(block, nn.Module)):
        raise TypeError(f"{source} has no nn.Module class {class_name!r}")
    try:
        inspect.signature(block).bind(0)
    except TypeError as error:
        raise TypeError(f"a block is built as {class_name}(channels), but {error}") from error
    return block
