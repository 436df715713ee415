"""Split attention: the bottleneck of ResNeSt.

Paper: Zhang et al., ResNeSt: Split-Attention Networks, https://arxiv.org/abs/2004.08955; radix 2, cardinality
1, as a residual block that keeps the size.
Deviations: no ReLU after the sum, so that the block can start as the identity on features of either sign; the
first of the two dense layers has no bias, since a BatchNorm follows it.
There are no `gates`: the weights choose between the two splits, no factor multiplies x.
"""

from __future__ import annotations

from torch import Tensor, nn

from nets.attention import register
from nets.attention.gates import reduced_channels, zero


class SplitAttentionConv(nn.Module):
    """Mix two 3x3 convolutions, each of half the channels, by weights that say which one a channel takes."""

    radix = 2
    ratio = 4

    def __init__(self, channels: int) -> None:
        super().__init__()
        splits = self.radix * channels
        hidden = max(splits // self.ratio, 32)
        self.conv = nn.Conv2d(channels, splits, 3, padding=1, groups=self.radix, bias=False)
        self.norm = nn.BatchNorm2d(splits)
        self.squeeze = nn.Conv2d(channels, hidden, 1, bias=False)
        self.squeeze_norm = nn.BatchNorm2d(hidden)
        self.excite = nn.Conv2d(hidden, splits, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        splits = self.norm(self.conv(x)).relu().unflatten(1, (self.radix, -1))  # (B, radix, C, H, W)
        pooled = splits.sum(dim=1).mean(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
        logits = self.excite(self.squeeze_norm(self.squeeze(pooled)).relu())  # (B, radix * C, 1, 1)
        weights = logits.unflatten(1, (self.radix, -1)).softmax(dim=1)  # (B, radix, C, 1, 1)
        return (splits * weights).sum(dim=1)


@register("split_attention")
class SplitAttention(nn.Module):
    """Add to x a bottleneck of a quarter of its channels whose middle is a split-attention convolution."""

    ratio = 8

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = 2 * reduced_channels(type(self).__name__, channels, self.ratio)  # even: each split reads half
        self.reduce = nn.Conv2d(channels, width, 1, bias=False)
        self.reduce_norm = nn.BatchNorm2d(width)
        self.split = SplitAttentionConv(width)
        self.expand = nn.Conv2d(width, channels, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W).

        Raises:
            ValueError: one image in training: the BatchNorm of the pooled values needs two.
        """
        if self.training and len(x) == 1:
            raise ValueError(f"{type(self).__name__}: training needs a batch of at least 2 images, got 1")
        reduced = self.reduce_norm(self.reduce(x)).relu()  # (B, C / 4, H, W)
        return x + self.expand_norm(self.expand(self.split(reduced)))

    def start_constant(self) -> float:
        """Make the block the identity."""
        zero(self.expand_norm)
        return 1.0
