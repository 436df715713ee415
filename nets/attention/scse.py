"""Concurrent spatial and channel squeeze and excitation: cSE, sSE and three ways to join them.

Paper: Roy et al., Concurrent Spatial and Channel Squeeze & Excitation, https://arxiv.org/abs/1803.02579
Deviation: none from its formulas, which have no bias; `scse_multiply` multiplies the two gates, so that x
enters once and not squared.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from nets.attention import register
from nets.attention.gates import reduced_channels, zero


@register("cse")
class ChannelSqueezeExcite(nn.Module):
    """cSE: gate each channel by a two-layer network over the channel means."""

    ratio = 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = reduced_channels(type(self).__name__, channels, self.ratio)
        self.fc1 = nn.Linear(channels, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, channels, bias=False)

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        """Return the channel gate (B, C, 1, 1) in (0, 1)."""
        squeezed = x.mean(dim=(2, 3))  # (B, C)
        return {"channel": self.fc2(self.fc1(squeezed).relu()).sigmoid()[:, :, None, None]}

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return x * self.gates(x)["channel"]

    def start_constant(self) -> float:
        """Make the gate 1/2 for every input."""
        zero(self.fc2)
        return 0.5


@register("sse")
class SpatialSqueezeExcite(nn.Module):
    """sSE: gate each position by one weighted sum of its channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 1, 1, bias=False)

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        """Return the spatial gate (B, 1, H, W) in (0, 1)."""
        return {"spatial": self.conv(x).sigmoid()}

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return x * self.gates(x)["spatial"]

    def start_constant(self) -> float:
        """Make the gate 1/2 for every input."""
        zero(self.conv)
        return 0.5


class ConcurrentSqueezeExcite(nn.Module, ABC):
    """Base of cSE and sSE in parallel; a subclass joins them. `constant`: the result of gates of 1/2."""

    constant: float

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cse = ChannelSqueezeExcite(channels)
        self.sse = SpatialSqueezeExcite(channels)

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        """Return the channel gate (B, C, 1, 1) and the spatial gate (B, 1, H, W), both in (0, 1)."""
        return self.cse.gates(x) | self.sse.gates(x)

    @abstractmethod
    def join(self, x: Tensor, channel: Tensor, spatial: Tensor) -> Tensor:
        """Apply both gates to x (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return self.join(x, **self.gates(x))

    def start_constant(self) -> float:
        """Make both gates 1/2 for every input."""
        self.cse.start_constant()
        self.sse.start_constant()
        return self.constant


@register("scse_add")
class AddedSqueezeExcite(ConcurrentSqueezeExcite):
    """cSE(x) + sSE(x)."""

    constant = 1.0

    def join(self, x: Tensor, channel: Tensor, spatial: Tensor) -> Tensor:
        """Apply both gates to x (B, C, H, W)."""
        return x * channel + x * spatial


@register("scse_max")
class MaximumSqueezeExcite(ConcurrentSqueezeExcite):
    """The larger of cSE(x) and sSE(x), element by element; where x < 0 that is the smaller gate."""

    constant = 0.5

    def join(self, x: Tensor, channel: Tensor, spatial: Tensor) -> Tensor:
        """Apply both gates to x (B, C, H, W)."""
        return torch.maximum(x * channel, x * spatial)


@register("scse_multiply")
class MultipliedSqueezeExcite(ConcurrentSqueezeExcite):
    """x times both gates."""

    constant = 0.25

    def join(self, x: Tensor, channel: Tensor, spatial: Tensor) -> Tensor:
        """Apply both gates to x (B, C, H, W)."""
        return x * channel * spatial
