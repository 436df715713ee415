"""Attention blocks of the user's own code: 'path/to/file.py:Class' or 'package.module:Class'.

Code is imported only when the caller names it; `nets` itself imports none.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from nets.attention import OWN_BLOCKS, build_attention
from nets.config import PLACE_STRIDES, PLACES, ModelConfig
from nets.yolo import YoloBody
from utils.cli.own_code import import_source


def build_network(config: ModelConfig) -> YoloBody:
    """Build a network, after importing the user's own attention block if `config.phi` names one.

    A block of the user's own that fails on features in channels_last gets contiguous ones.

    Raises:
        ValueError: the block cannot be imported or built; one line.
    """
    import_block(config.phi)
    with _named(config.phi):
        model = YoloBody(config)
        if ":" in config.phi:
            for place in config.phi_at:
                if needs_contiguous(config.phi, place, config.input_size):
                    use_contiguous(model.attention[place])
        return model


def needs_contiguous(spec: str, place: str, input_size: tuple[int, int]) -> bool:
    """Tell whether the block of a place fails on features in channels_last and works on contiguous ones.

    Blocks that split the channels into groups with `x.view(B * groups, ...)` do. They work on one image in
    either layout, so the trial takes two.
    """
    height, width = (side // PLACE_STRIDES[place] for side in input_size)

    def works(layout: torch.memory_format, is_training: bool) -> bool:
        try:
            block = build_attention(spec, PLACES[place]).train(is_training)
            _store_in(layout, block)
            block(torch.rand(2, PLACES[place], height, width).contiguous(memory_format=layout))
        except Exception:  # the user's code may fail in any way
            return False
        return True

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        return any(
            not works(torch.channels_last, is_training) and works(torch.contiguous_format, is_training)
            for is_training in (True, False)
        )


def use_contiguous(block: nn.Module) -> None:
    """Give a block contiguous features; a wrapping module would change the names of its weights."""
    block.register_forward_pre_hook(_make_contiguous)


def to_channels_last(model: nn.Module) -> nn.Module:
    """Store the weights of a network in channels_last, except in blocks that get contiguous features.

    A convolution with weights in channels_last would return such features again.
    """
    _store_in(torch.channels_last, model)
    for module in model.modules():
        if _make_contiguous in module._forward_pre_hooks.values():
            _store_in(torch.contiguous_format, module)
    return model


def _store_in(layout: torch.memory_format, module: nn.Module) -> None:
    """Store the 4-D weights of a module in a layout; `module.to` raises on 5-D ones, as of `nn.Conv3d`."""
    for weight in (*module.parameters(), *module.buffers()):
        if weight.dim() == 4:
            weight.data = weight.data.to(memory_format=layout)


def _make_contiguous(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.contiguous() for value in inputs)


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
