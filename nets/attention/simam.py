"""SimAM, a parameter-free attention.

Paper: Yang et al., SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural Networks, ICML
2021, https://proceedings.mlr.press/v139/yang21o.html (equation 5, lambda = 1e-4)
Deviation: the variance is divided by H W - 1, but by 1 on a 1x1 map, where the gate is then sigmoid(1/2).
There is no `start_constant`: without parameters nothing can make the gate constant.
"""

from __future__ import annotations

from torch import Tensor, nn

from nets.attention import register


@register("simam")
class SimAM(nn.Module):
    """Gate each element by how far it stands out of its channel: sigmoid of the inverse of its energy."""

    regularization = 1e-4

    def __init__(self, channels: int) -> None:
        super().__init__()

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        """Return the gate of each element (B, C, H, W) in (0.62, 1)."""
        squares = (x - x.mean(dim=(2, 3), keepdim=True)).square()
        others = max(x.shape[2] * x.shape[3] - 1, 1)
        variance = squares.sum(dim=(2, 3), keepdim=True) / others  # (B, C, 1, 1)
        return {"element": (squares / (4 * (variance + self.regularization)) + 0.5).sigmoid()}

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return x * self.gates(x)["element"]
