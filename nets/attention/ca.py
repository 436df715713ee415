"""Coordinate attention.

Paper: Hou et al., Coordinate Attention for Efficient Mobile Network Design, https://arxiv.org/abs/2103.02907
Deviations, as in the published YOLOv4-tiny checkpoints: ratio 16 instead of 32, ReLU instead of h-swish, no
bias.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nets.attention import register
from nets.attention.gates import reduced_channels, zero


@register("ca")
class CoordinateAttention(nn.Module):
    """Gate each channel by the product of a gate along the height and one along the width."""

    ratio = 16

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = reduced_channels(type(self).__name__, channels, self.ratio)
        self.squeeze = nn.Conv2d(channels, hidden, 1, bias=False)
        self.norm = nn.BatchNorm2d(hidden)
        self.rows = nn.Conv2d(hidden, channels, 1, bias=False)
        self.columns = nn.Conv2d(hidden, channels, 1, bias=False)

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        """Return the gates along the height (B, C, H, 1) and the width (B, C, 1, W), both in (0, 1)."""
        height, width = x.shape[2:]
        strip = torch.cat((x.mean(dim=3), x.mean(dim=2)), dim=2)[..., None]  # (B, C, H + W, 1)
        strip = self.norm(self.squeeze(strip)).relu()  # (B, C / ratio, H + W, 1)
        rows, columns = strip.split((height, width), dim=2)
        return {"rows": self.rows(rows).sigmoid(), "columns": self.columns(columns.transpose(2, 3)).sigmoid()}

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        gates = self.gates(x)
        return x * gates["rows"] * gates["columns"]

    def start_constant(self) -> float:
        """Make both gates 1/2 for every input."""
        zero(self.rows, self.columns)
        return 0.25
