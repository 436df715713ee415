"""Convolutional Block Attention Module.

Paper: Woo et al., CBAM, https://arxiv.org/abs/1807.06521
Deviation: reduction ratio 8 instead of 16 and no bias, as in the published YOLOv4-tiny checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nets.attention import register
from nets.attention.gates import reduced_channels, zero


@register("channel")
class ChannelAttention(nn.Module):
    """Gate each channel by one shared two-layer network over its mean and its maximum."""

    ratio = 8

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = reduced_channels(type(self).__name__, channels, self.ratio)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=False)

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        """Return the channel gate (B, C, 1, 1) in (0, 1)."""
        mean, peak = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
        return {"channel": torch.sigmoid(self.fc2(self.fc1(mean).relu()) + self.fc2(self.fc1(peak).relu()))}

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return x * self.gates(x)["channel"]

    def start_constant(self) -> float:
        """Make the gate 1/2 for every input."""
        zero(self.fc2)
        return 0.5


@register("spatial")
class SpatialAttention(nn.Module):
    """Gate each position by a 7x7 convolution over the mean and the maximum of its channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        """Return the spatial gate (B, 1, H, W) in (0, 1)."""
        pooled = torch.cat((x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)), dim=1)  # (B, 2, H, W)
        return {"spatial": torch.sigmoid(self.conv(pooled))}

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return x * self.gates(x)["spatial"]

    def start_constant(self) -> float:
        """Make the gate 1/2 for every input."""
        zero(self.conv)
        return 0.5


@register("cbam")
class CBAM(nn.Module):
    """Channel attention, then spatial attention of its result."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels)
        self.spatial = SpatialAttention(channels)

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        """Return the channel gate (B, C, 1, 1) and the spatial gate (B, 1, H, W)."""
        channel = self.channel.gates(x)
        return channel | self.spatial.gates(x * channel["channel"])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return self.spatial(self.channel(x))

    def start_constant(self) -> float:
        """Make both gates 1/2 for every input."""
        return self.channel.start_constant() * self.spatial.start_constant()
