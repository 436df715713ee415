"""Blocks whose start is undone by a fixed gain at the place instead of a fold into the convolution behind it.

For the comparison of the ways to insert a block: `--phi benchmarks/fixed_gain.py:GainSE`.
"""

from __future__ import annotations

from torch import Tensor

from nets.attention.cbam import CBAM
from nets.attention.se import SqueezeExcite


class GainSE(SqueezeExcite):
    """SE times 2 for ever: its gate starts at 1/2, so that the block starts as x -> x."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return 2 * super().forward(x)

    def start_constant(self) -> float:
        """Make the gate 1/2 for every input, which the gain undoes."""
        return 2 * super().start_constant()


class GainCBAM(CBAM):
    """CBAM times 4 for ever: its two gates start at 1/2 each, so that the block starts as x -> x."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return 4 * super().forward(x)

    def start_constant(self) -> float:
        """Make both gates 1/2 for every input, which the gain undoes."""
        return 4 * super().start_constant()
