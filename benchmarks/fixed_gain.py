"""Attention blocks with a fixed gain that undoes their initial gate, to compare ways of inserting a block.

`--phi benchmarks/fixed_gain.py:GainSE`; train.py itself folds the gain into the next convolution.
"""

from __future__ import annotations

from torch import Tensor

from nets.attention.cbam import CBAM
from nets.attention.se import SqueezeExcite


class GainSE(SqueezeExcite):
    """SE times 2: its gate starts at 1/2, so the block starts as x -> x."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return 2 * super().forward(x)

    def start_constant(self) -> float:
        """Set the gate to 1/2 for every input, which the gain undoes."""
        return 2 * super().start_constant()


class GainCBAM(CBAM):
    """CBAM times 4: its two gates start at 1/2 each, so the block starts as x -> x."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return 4 * super().forward(x)

    def start_constant(self) -> float:
        """Set both gates to 1/2 for every input, which the gain undoes."""
        return 4 * super().start_constant()
