"""Channel reduction and zero initialization, shared by the gated blocks."""

from __future__ import annotations

from torch import nn


def reduced_channels(block: str, channels: int, ratio: int) -> int:
    """Return channels // ratio.

    Raises:
        ValueError: no channel is left; the message names block, channels and ratio.
    """
    if channels < ratio:
        raise ValueError(
            f"{block}: ratio {ratio} leaves no channel of {channels}; use at least {ratio} channels"
        )
    return channels // ratio


def zero(*layers: nn.Module) -> None:
    """Set every parameter of the layers to zero: a sigmoid behind them then gives 1/2 for every input."""
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
