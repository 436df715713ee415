"""CSPDarknet53-tiny, the backbone of YOLOv4-tiny.

Papers: Wang et al., CSPNet (https://arxiv.org/abs/1911.11929) and Scaled-YOLOv4 (https://arxiv.org/abs/2011.08036).
The graph is that of Darknet's cfg/yolov4-tiny.cfg, layers 0 to 26.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nets.blocks import ConvNormAct


class CSPBlock(nn.Module):
    r"""Cross-stage partial block; C channels in, 2C channels out at half the size.

    ::

        x (C) ── 3x3 ──> route (C) ── second half (C/2) ── 3x3 ──> first (C/2) ── 3x3 ──> second (C/2)
                           │                                         │                      │
                           │                                         └──── cat(second, first) (C)
                           │                                                       │
                           │                                                      1x1
                           │                                                       │
                           └──────────────── cat(route, block) (2C) <──── block (C) = the tap
                                                   │
                                              2x2 max pool ──> (2C, H/2, W/2)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.route = ConvNormAct(channels, channels, 3)
        self.first = ConvNormAct(half, half, 3)
        self.second = ConvNormAct(half, half, 3)
        self.merge = ConvNormAct(channels, channels, 1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, H, W) to the pooled output (B, 2C, H/2, W/2) and the tap (B, C, H, W)."""
        route = self.route(x)
        first = self.first(route.chunk(2, dim=1)[1])
        second = self.second(first)
        block = self.merge(torch.cat((second, first), dim=1))
        return self.pool(torch.cat((route, block), dim=1)), block


class Darknet53Tiny(nn.Module):
    """Map images to the features (C3, C4, C5) that the neck takes; two heads leave C3 unused."""

    def __init__(self) -> None:
        super().__init__()
        self.stem1 = ConvNormAct(3, 32, 3, stride=2)
        self.stem2 = ConvNormAct(32, 64, 3, stride=2)
        self.stage2 = CSPBlock(64)
        self.stage3 = CSPBlock(128)
        self.stage4 = CSPBlock(256)
        self.last = ConvNormAct(512, 512, 3)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (B, 3, H, W) in [0, 1] to features of strides 8, 16 and 32, with 128, 256 and 512 channels."""
        x = self.stem2(self.stem1(images))  # (B, 64, H/4, W/4)
        x, _ = self.stage2(x)  # (B, 128, H/8, W/8)
        x, c3 = self.stage3(x)  # (B, 256, H/16, W/16), C3 = the block's output before the pool
        x, c4 = self.stage4(x)  # (B, 512, H/32, W/32)
        return c3, c4, self.last(x)
