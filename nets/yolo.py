"""YOLOv4-tiny: backbone, attention, neck and two or three heads.

Paper: Wang et al., Scaled-YOLOv4, https://arxiv.org/abs/2011.08036. The graph is that of Darknet's
cfg/yolov4-tiny.cfg, with three heads that of cfg/yolov4-tiny-3l.cfg.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nets.attention import build_attention
from nets.blocks import ConvNormAct
from nets.config import PLACES, ModelConfig
from nets.darknet53_tiny import Darknet53Tiny

HEADS = ("head_p5", "head_p4", "head_p3")  # modules of a network, coarse first
THIRD_HEAD = ("neck_up2", "head_p3")  # modules that a network of two heads lacks
# The convolution that reads a place of attention, and its first input channel from there.
_READERS = {
    "c5": ("neck_p5.conv.weight", 0),
    "up": ("head_p4.conv.conv.weight", 0),
    "c4": ("head_p4.conv.conv.weight", PLACES["up"]),
    "up2": ("head_p3.conv.conv.weight", 0),
    "c3": ("head_p3.conv.conv.weight", PLACES["up2"]),
}
RARE_LOGIT = -4.6  # sigmoid(-4.6) = 0.01, the prior of the focal loss (https://arxiv.org/abs/1708.02002)


class YoloHead(nn.Module):
    """3x3 convolution, then a 1x1 convolution with bias to the raw map (B, A*(5+K), H, W)."""

    def __init__(self, in_channels: int, hidden_channels: int, num_anchors: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv = ConvNormAct(in_channels, hidden_channels, 3)
        self.predict = nn.Conv2d(hidden_channels, num_anchors * (5 + num_classes), 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, A*(5+K), H, W)."""
        return self.predict(self.conv(x))


class YoloBody(nn.Module):
    """Map images to a raw map for each head.

    The third head reads the hidden layer of the second, upsampled, and C3. The channels of a raw map are,
    anchor by anchor: tx, ty, tw, th, objectness, class logits.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        num_anchors = len(config.anchor_masks[0])
        self.backbone = Darknet53Tiny()
        self.neck_p5 = ConvNormAct(512, 256, 1)
        self.head_p5 = YoloHead(256, 512, num_anchors, config.num_classes)
        self.neck_up = ConvNormAct(256, 128, 1)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.head_p4 = YoloHead(128 + 256, 256, num_anchors, config.num_classes)
        if config.num_heads == 3:
            self.neck_up2 = ConvNormAct(256, 64, 1)
            self.head_p3 = YoloHead(64 + 128, 128, num_anchors, config.num_classes)
        if not self.neck_p5.conv.weight.is_meta:  # there torch would load its compiler for nothing
            self.apply(_initialize)
        # Last, so that one seed gives every block the same network around it, and untouched by our
        # initialization.
        self.attention = nn.ModuleDict()
        for place in config.places:
            spec = config.phi if place in config.phi_at else "none"
            self.attention[place] = build_attention(spec, PLACES[place])
        self.gains: dict[str, float] = {}  # in training, the factor behind a block that started as 1 / factor

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) in [0, 1] to (B, A*(5+K), H / stride, W / stride) for each head, coarse first."""
        c3, c4, c5 = self.backbone(images)  # (B, 128, H/8, W/8), (B, 256, H/16, W/16), (B, 512, H/32, W/32)
        c4, c5 = self._attend("c4", c4), self._attend("c5", c5)
        p5 = self.neck_p5(c5)  # (B, 256, H/32, W/32)
        up = self._attend("up", self.upsample(self.neck_up(p5)))  # (B, 128, H/16, W/16)
        p4 = self.head_p4.conv(torch.cat((up, c4), dim=1))  # (B, 256, H/16, W/16)
        raw_maps = [self.head_p5(p5), self.head_p4.predict(p4)]
        if self.config.num_heads == 3:
            up2 = self._attend("up2", self.upsample(self.neck_up2(p4)))  # (B, 64, H/8, W/8)
            raw_maps.append(self.head_p3(torch.cat((up2, self._attend("c3", c3)), dim=1)))
        return raw_maps

    def _attend(self, place: str, x: Tensor) -> Tensor:
        x = self.attention[place](x)
        return x * self.gains[place] if place in self.gains else x

    @torch.no_grad()
    def folded_state_dict(self) -> dict[str, Tensor]:
        """Return the weights of the same network without gains: the next convolutions contain them."""
        state = dict(self.state_dict())
        for place, gain in self.gains.items():
            name, first = _READERS[place]
            state[name] = state[name].clone()
            state[name][:, first : first + PLACES[place]] *= gain
        return state


def _initialize(module: nn.Module) -> None:
    """Start convolutions with He's normal, and heads so that objects are rare and all classes as likely."""
    if isinstance(module, ConvNormAct):
        nn.init.kaiming_normal_(module.conv.weight, a=0.1)
    elif isinstance(module, YoloHead):
        nn.init.normal_(module.predict.weight, std=0.01)
        bias = torch.zeros(len(module.predict.weight)).unflatten(0, (-1, 5 + module.num_classes))  # (A, 5+K)
        bias[:, 4] = RARE_LOGIT
        bias[:, 5:] = -math.log(max(module.num_classes - 1, 1))  # each class has probability 1/K
        module.predict.bias = nn.Parameter(bias.flatten())
