"""Definition of a network, and the constants that command lines know before torch is imported."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nets.attention import attention_name

# The features that take an attention block, with their channels.
PLACES = {"c4": 256, "c5": 512, "up": 128, "c3": 128, "up2": 64}
PLACE_STRIDES = {"c4": 16, "c5": 32, "up": 16, "c3": 8, "up2": 8}  # in input pixels
THIRD_HEAD_PLACES = ("c3", "up2")
LARGEST_SIDE = 4096  # of an input in pixels
MOST_ANCHORS = 64  # of a network
STRIDES = (32, 16, 8)  # of the heads in input pixels, coarse first; a network has the first two or all three
Anchors = tuple[tuple[float, float], ...]
Masks = tuple[tuple[int, ...], ...]
# (width, height) in pixels of a 416x416 input; cfg/yolov4-tiny.cfg.
OFFICIAL_ANCHORS = ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319))
# Anchors and masks by number of heads; those of three are for a 608x608 input, cfg/yolov4-tiny-3l.cfg.
USUAL_ANCHORS: dict[int, tuple[Anchors, Masks]] = {
    2: (OFFICIAL_ANCHORS, ((3, 4, 5), (1, 2, 3))),
    3: (
        ((12, 16), (19, 36), (40, 28), (36, 75), (76, 55), (72, 146), (142, 110), (192, 243), (459, 401)),
        ((6, 7, 8), (3, 4, 5), (0, 1, 2)),
    ),
}
LOSS_NORMALIZATIONS = ("sums", "means")  # see nets/loss.py


@dataclass(frozen=True)
class ModelConfig:
    """Everything that defines the network and the meaning of its output; stored in every checkpoint.

    Attributes:
        num_classes: number of classes, at least 1.
        phi: attention block: 0|none, 1|se, 2|cbam, 3|eca, 4|ca, a registered name or 'file.py:Class'; kept as
            the name.
        phi_at: where blocks stand: any of c4 (256 channels), c5 (512) and up (the upsampled P5, 128); with
            three heads also c3 (128) and up2 (the upsampled P4, 64).
        input_size: (height, width) in pixels, multiples of 32 up to 4096.
        anchors: at most 64 (width, height) pairs in network pixels.
        anchor_masks: for each head, coarse first, the indices of its anchors; two masks make a network of
            two heads (strides 32 and 16), three add the head of stride 8.
        scale_x_y: how far a center may reach over its cell; 1.05 in yolov4-tiny.cfg, 1.0 is the plain
            sigmoid.

    Raises:
        ValueError: a value makes no sense; the message names it.
    """

    num_classes: int
    phi: str = "none"
    phi_at: tuple[str, ...] = ("c4", "c5", "up")
    input_size: tuple[int, int] = (416, 416)
    anchors: Anchors = OFFICIAL_ANCHORS
    anchor_masks: Masks = USUAL_ANCHORS[2][1]
    scale_x_y: float = 1.05

    def __post_init__(self) -> None:
        object.__setattr__(self, "phi", attention_name(self.phi))
        if not all(isinstance(number, int) for number in (self.num_classes, *self.input_size)):
            raise ValueError(f"num_classes and input_size must be whole numbers, got {self}")
        if self.num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {self.num_classes}")
        unknown = [place for place in self.phi_at if place not in PLACES]
        if unknown or len(set(self.phi_at)) != len(self.phi_at):
            raise ValueError(f"phi_at must name each of {', '.join(PLACES)} at most once, got {self.phi_at}")
        is_side = [32 <= side <= LARGEST_SIDE and side % 32 == 0 for side in self.input_size]
        if is_side != [True, True]:
            rule = f"two positive multiples of 32 up to {LARGEST_SIDE}"
            raise ValueError(f"input_size must be {rule}, got {self.input_size}")
        if len(self.anchors) > MOST_ANCHORS:
            raise ValueError(f"a network has at most {MOST_ANCHORS} anchors, got {len(self.anchors)}")
        if not all(math.isfinite(side) and side > 0 for anchor in self.anchors for side in anchor):
            raise ValueError(f"anchors must be positive, got {self.anchors}")
        if len(self.anchor_masks) not in USUAL_ANCHORS or len({*map(len, self.anchor_masks)}) != 1:
            raise ValueError(
                f"anchor_masks must be two or three lists of one length, got {self.anchor_masks}"
            )
        if any(not 0 <= index < len(self.anchors) for mask in self.anchor_masks for index in mask):
            raise ValueError(
                f"anchor_masks {self.anchor_masks} name an anchor that is not among {len(self.anchors)}"
            )
        absent = [place for place in self.phi_at if place in THIRD_HEAD_PLACES]
        if absent and self.num_heads < 3:
            raise ValueError(f"phi_at {', '.join(absent)}: only a network of three heads has it")
        if not 1.0 <= self.scale_x_y <= 2.0:
            raise ValueError(f"scale_x_y must be in [1, 2], got {self.scale_x_y}")

    @property
    def num_heads(self) -> int:
        """Number of heads: one for each mask."""
        return len(self.anchor_masks)

    @property
    def places(self) -> tuple[str, ...]:
        """The features of this network that take an attention block."""
        return tuple(place for place in PLACES if self.num_heads == 3 or place not in THIRD_HEAD_PLACES)
