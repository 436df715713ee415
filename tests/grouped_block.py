"""A block as most grouped ones are written: `view` splits the channels, so it fails on channels_last."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SGE(nn.Module):
    """Spatial group-wise enhance, https://arxiv.org/abs/1905.09646, with a convolution in front."""

    groups = 8

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.weight = nn.Parameter(torch.zeros(1, self.groups, 1, 1))
        self.bias = nn.Parameter(torch.ones(1, self.groups, 1, 1))

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        n, c, h, w = x.shape
        gate = self.gate(x).expand(-1, c // self.groups, -1, -1)
        return {"element": gate.reshape(n, c, h, w)}

    def gate(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B * groups, 1, H, W)."""
        n, _, h, w = x.shape
        grouped = self.conv(x).view(n * self.groups, -1, h, w)
        t = (grouped * grouped.mean((2, 3), keepdim=True)).sum(1).view(n * self.groups, -1)
        t = t - t.mean(1, keepdim=True)
        t = t / ((t * t).mean(1, keepdim=True) + 1e-5).sqrt()
        gate = t.view(n, self.groups, h, w) * self.weight + self.bias
        return gate.sigmoid().view(n * self.groups, 1, h, w)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return (x.view(n * self.groups, -1, h, w) * self.gate(x)).view(n, c, h, w)
