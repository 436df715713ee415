"""Efficient Channel Attention.

Paper: Wang et al., ECA-Net, https://arxiv.org/abs/1910.03151 (kernel size: equation 12 with gamma = 2, b = 1)
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from nets.attention import register
from nets.attention.gates import zero


@register("eca")
class ECA(nn.Module):
    """Gate each channel by a 1-D convolution over the means of its neighboring channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = int(abs((math.log2(channels) + 1) / 2))
        kernel_size = size if size % 2 else size + 1
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        """Return the channel gate (B, C, 1, 1) in (0, 1)."""
        squeezed = x.mean(dim=(2, 3))[:, None]  # (B, 1, C): the channels are the sequence
        return {"channel": self.conv(squeezed).sigmoid()[:, 0, :, None, None]}

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return x * self.gates(x)["channel"]

    def start_constant(self) -> float:
        """Make the gate 1/2 for every input."""
        zero(self.conv)
        return 0.5
