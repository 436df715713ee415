"""Self-attention over the positions of a feature map.

Paper: Vaswani et al., Attention Is All You Need, https://arxiv.org/abs/1706.03762; as a residual block in a
convolutional network: Wang et al., Non-local Neural Networks, https://arxiv.org/abs/1711.07971
Deviations: one head, no position encoding, no normalization; query, key and value have d = C / 8 channels
(SAGAN, https://arxiv.org/abs/1805.08318, has 1/8 for query and key), where the non-local block has C / 2.
Cost, with N = H W positions: 4 C d parameters, 4 C d N + 2 d N^2 multiply-adds, and N^2 weights in memory
for each image: quadratic in the positions, so that an input of twice the side costs up to 16 times as much.
There are no `gates`: the block adds to x a mixture of other positions, no factor multiplies x.
"""

from __future__ import annotations

from torch import Tensor, nn

from nets.attention import register
from nets.attention.gates import reduced_channels, zero


@register("self_attention")
class SelfAttention(nn.Module):
    """Add to each position a projection of what it attends to: x + project(softmax(Q K^T / sqrt(d)) V).

    The projection starts at zero, so that the block starts as the identity wherever it is inserted.
    """

    ratio = 8

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = reduced_channels(type(self).__name__, channels, self.ratio)
        self.scale = hidden**-0.5
        self.query = nn.Linear(channels, hidden, bias=False)
        self.key = nn.Linear(channels, hidden, bias=False)
        self.value = nn.Linear(channels, hidden, bias=False)
        self.project = nn.Linear(hidden, channels, bias=False)
        zero(self.project)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        pixels = x.flatten(2).mT  # (B, H * W, C)
        query, key = self.query(pixels) * self.scale, self.key(pixels)  # (B, H * W, C / ratio)
        weights = (query @ key.mT).softmax(dim=2)  # (B, H * W, H * W)
        seen = self.project(weights @ self.value(pixels))  # (B, H * W, C)
        return x + seen.mT.unflatten(2, x.shape[2:])  # (B, C, H, W)

    def start_constant(self) -> float:
        """Make the block the identity."""
        zero(self.project)
        return 1.0
