"""Squeeze-and-Excitation.

Paper: Hu et al., Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507
Deviation: the two linear layers have no bias, as in the published YOLOv4-tiny checkpoints.
"""

from __future__ import annotations

from torch import Tensor, nn

from nets.attention import register
from nets.attention.gates import reduced_channels, zero


@register("se")
class SqueezeExcite(nn.Module):
    """Gate each channel by a two-layer network over the channel means."""

    ratio = 16

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = reduced_channels(type(self).__name__, channels, self.ratio)
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels, bias=False),
            nn.Sigmoid(),
        )

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        """Return the channel gate (B, C, 1, 1) in (0, 1)."""
        squeezed = x.mean(dim=(2, 3))  # (B, C)
        return {"channel": self.fc(squeezed)[:, :, None, None]}

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return x * self.gates(x)["channel"]

    def start_constant(self) -> float:
        """Make the gate 1/2 for every input."""
        zero(self.fc[2])
        return 0.5
