"""SE behind a residual gate that starts closed, to compare with blocks in the way of the features.

`--phi benchmarks/residual_gate.py:ResidualSE`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nets.attention.se import SqueezeExcite


class ResidualSE(SqueezeExcite):
    """x + a * SE(x) with one learned a that starts at 0 (ReZero, https://arxiv.org/abs/2003.04887)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return x + self.scale * super().forward(x)

    def start_constant(self) -> float:
        """Close the residual gate; SE keeps its own start, so that both learn from the first step but one."""
        nn.init.zeros_(self.scale)
        return 1.0
