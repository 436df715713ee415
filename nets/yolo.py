"""YOLOv4-tiny: backbone, attention, neck and two heads.

Paper: Wang et al., Scaled-YOLOv4, https://arxiv.org/abs/2011.08036. The graph is that of Darknet's
cfg/yolov4-tiny.cfg.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nets.attention import attention_name, build_attention
from nets.blocks import ConvNormAct
from nets.darknet53_tiny import Darknet53Tiny

PLACES = {"c4": 256, "c5": 512, "up": 128}  # the features that take an attention block, with their channels
RARE_LOGIT = -4.6  # sigmoid(-4.6) = 0.01, the prior of the focal loss (https://arxiv.org/abs/1708.02002)
OFFICIAL_ANCHORS = ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319))


@dataclass(frozen=True)
class ModelConfig:
    """Everything that defines the network and the meaning of its output; stored in every checkpoint.

    Attributes:
        num_classes: number of classes, at least 1.
        phi: attention block: 0|none, 1|se, 2|cbam, 3|eca, 4|ca, a registered name or 'file.py:Class'; kept as
            the name.
        phi_at: where blocks stand: any of c4 (256 channels), c5 (512) and up (the upsampled P5, 128).
        input_size: (height, width) in pixels, multiples of 32.
        anchors: (width, height) pairs in network pixels.
        anchor_masks: for each head, coarse first, the indices of its anchors.
        scale_x_y: how far a centre may reach over its cell; 1.05 in yolov4-tiny.cfg, 1.0 is the plain
            sigmoid.

    Raises:
        ValueError: a value makes no sense; the message names it.
    """

    num_classes: int
    phi: str = "none"
    phi_at: tuple[str, ...] = ("c4", "c5", "up")
    input_size: tuple[int, int] = (416, 416)
    anchors: tuple[tuple[float, float], ...] = OFFICIAL_ANCHORS
    anchor_masks: tuple[tuple[int, ...], ...] = ((3, 4, 5), (1, 2, 3))
    scale_x_y: float = 1.05

    def __post_init__(self) -> None:
        object.__setattr__(self, "phi", attention_name(self.phi))
        if self.num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {self.num_classes}")
        unknown = [place for place in self.phi_at if place not in PLACES]
        if unknown or len(set(self.phi_at)) != len(self.phi_at):
            raise ValueError(f"phi_at must name each of {', '.join(PLACES)} at most once, got {self.phi_at}")
        if len(self.input_size) != 2 or any(side < 32 or side % 32 for side in self.input_size):
            raise ValueError(f"input_size must be two positive multiples of 32, got {self.input_size}")
        if not all(math.isfinite(side) and side > 0 for anchor in self.anchors for side in anchor):
            raise ValueError(f"anchors must be positive, got {self.anchors}")
        if len(self.anchor_masks) != 2 or len({len(mask) for mask in self.anchor_masks}) != 1:
            raise ValueError(f"anchor_masks must be two lists of one length, got {self.anchor_masks}")
        if any(not 0 <= index < len(self.anchors) for mask in self.anchor_masks for index in mask):
            raise ValueError(
                f"anchor_masks {self.anchor_masks} name an anchor that is not among {len(self.anchors)}"
            )
        if not 1.0 <= self.scale_x_y <= 2.0:
            raise ValueError(f"scale_x_y must be in [1, 2], got {self.scale_x_y}")


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
    """Map images to two raw maps.

    The channels of a raw map are, anchor by anchor: tx, ty, tw, th, objectness, class logits.
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
        if not self.neck_p5.conv.weight.is_meta:  # there torch would load its compiler for nothing
            self.apply(_initialise)
        # Last, so that one seed gives every block the same network around it, and untouched by our
        # initialisation.
        self.attention = nn.ModuleDict()
        for place, channels in PLACES.items():
            spec = config.phi if place in config.phi_at else "none"
            self.attention[place] = build_attention(spec, channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) in [0, 1] to [(B, A*(5+K), H/32, W/32), (B, A*(5+K), H/16, W/16)]."""
        c4, c5 = self.backbone(images)  # (B, 256, H/16, W/16), (B, 512, H/32, W/32)
        c4, c5 = self.attention["c4"](c4), self.attention["c5"](c5)
        p5 = self.neck_p5(c5)  # (B, 256, H/32, W/32)
        up = self.attention["up"](self.upsample(self.neck_up(p5)))  # (B, 128, H/16, W/16)
        p4 = torch.cat((up, c4), dim=1)  # (B, 384, H/16, W/16)
        return [self.head_p5(p5), self.head_p4(p4)]


def _initialise(module: nn.Module) -> None:
    """Start convolutions with He's normal, and heads so that objects are rare and all classes as likely."""
    if isinstance(module, ConvNormAct):
        nn.init.kaiming_normal_(module.conv.weight, a=0.1)
    elif isinstance(module, YoloHead):
        nn.init.normal_(module.predict.weight, std=0.01)
        bias = torch.zeros(len(module.predict.weight)).unflatten(0, (-1, 5 + module.num_classes))  # (A, 5+K)
        bias[:, 4] = RARE_LOGIT
        bias[:, 5:] = -math.log(max(module.num_classes - 1, 1))  # each class has probability 1/K
        module.predict.bias = nn.Parameter(bias.flatten())
