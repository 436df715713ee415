"""Channel attention of CBAM with one shared perceptron that has biases.

Paper: Woo et al., CBAM, https://arxiv.org/abs/1807.06521 (section 3.1)
Deviation: the paper's formula has no bias. Unlike `channel`, which follows the published YOLOv4-tiny
checkpoints, the ratio is the paper's 16, and few channels keep one hidden unit instead of being refused.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nets.attention import register
from nets.attention.gates import zero


@register("cam")
class ChannelAttentionModule(nn.Module):
    """Gate each channel by one shared perceptron over its mean and its maximum."""

    ratio = 16

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // self.ratio, 1)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        """Return the channel gate (B, C, 1, 1) in (0, 1)."""
        mean, peak = x.mean(dim=(2, 3)), x.amax(dim=(2, 3))  # (B, C)
        return {"channel": torch.sigmoid(self.mlp(mean) + self.mlp(peak))[:, :, None, None]}

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return x * self.gates(x)["channel"]

    def start_constant(self) -> float:
        """Make the gate 1/2 for every input."""
        zero(self.mlp[2])
        return 0.5
