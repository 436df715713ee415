"""Darknet's `.weights` files of yolov4-tiny.

A file is a header, then float32 values in the order of the cfg: for a convolution with batch normalization
its bias, scale, running mean, running variance and weights, for the last one of a head its bias and weights.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nets.yolo import ModelConfig, YoloBody
from utils.errors import UserError

_CSP = ("route", "first", "second", "merge")
_HEADS = ("head_p5.predict", "head_p4.predict")
# Our names of the convolutions in the order of yolov4-tiny.cfg.
_ORDER = (
    "backbone.stem1",
    "backbone.stem2",
    *(f"backbone.stage{stage}.{part}" for stage in (2, 3, 4) for part in _CSP),
    "backbone.last",
    "neck_p5",
    "head_p5.conv",
    "head_p5.predict",
    "neck_up",
    "head_p4.conv",
    "head_p4.predict",
)
_NORM_PARTS = ("norm.bias", "norm.weight", "norm.running_mean", "norm.running_var", "conv.weight")
_HEAD_PARTS = ("bias", "weight")


@dataclass(frozen=True)
class DarknetWeights:
    """What a `.weights` file holds.

    Attributes:
        state_dict: all tensors of `YoloBody(ModelConfig(num_classes))`.
        num_classes: solved from the length of the file.
        seen: number of images that the file says it was trained on.
    """

    state_dict: dict[str, Tensor]
    num_classes: int
    seen: int


def read_darknet(path: Path | str) -> DarknetWeights:
    """Read a `.weights` file of yolov4-tiny with any number of classes.

    Raises:
        UserError: the file cannot be read, or its length fits no number of classes.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read the weights: {error.strerror}") from None
    if len(data) < 12:
        raise UserError(f"{path}: not a Darknet weights file: only {len(data)} bytes")
    major, minor, _ = struct.unpack_from("<3i", data)
    wide = major * 10 + minor >= 2  # since version 0.2 the counter of seen images has 64 bits
    header = 20 if wide else 16
    num_classes = _solve_num_classes(path, len(data), header)
    (seen,) = struct.unpack_from("<Q" if wide else "<I", data, 12)
    values = torch.from_numpy(np.frombuffer(data, dtype="<f4", offset=header).astype(np.float32))
    if not values.isfinite().all():
        raise UserError(f"{path}: holds values that are not finite; the file is damaged")
    return DarknetWeights(_unpack(values, num_classes), num_classes, seen)


def _tensors(num_classes: int) -> dict[str, Tensor]:
    """Return the tensors of the network by name."""
    return YoloBody(ModelConfig(num_classes)).state_dict()


def _names() -> list[str]:
    """Return the names of the tensors in the order of the file."""
    return [f"{conv}.{part}" for conv in _ORDER for part in (_HEAD_PARTS if conv in _HEADS else _NORM_PARTS)]


def _count_floats(tensors: dict[str, Tensor]) -> int:
    return sum(tensors[name].numel() for name in _names())


def _solve_num_classes(path: Path, length: int, header: int) -> int:
    """Find K so that a yolov4-tiny of K classes has exactly `length` bytes."""
    one, two = (_count_floats(_tensors(num_classes)) for num_classes in (1, 2))
    per_class = two - one
    floats = (length - header) / 4
    num_classes = (floats - one) / per_class + 1
    if num_classes >= 1 and num_classes == int(num_classes):
        return int(num_classes)
    nearest = max(1, round(num_classes))
    expected = header + 4 * (one + (nearest - 1) * per_class)
    raise UserError(
        f"{path}: not a whole yolov4-tiny weights file: {length} bytes, but {expected} would be {nearest} "
        "classes; fetch it again, or check that it is yolov4-tiny's"
    )


def _unpack(values: Tensor, num_classes: int) -> dict[str, Tensor]:
    """Cut the values of a file into the tensors of the network."""
    tensors = _tensors(num_classes)
    names = _names()
    parts = values.split([tensors[name].numel() for name in names])
    state = {name: part.reshape(tensors[name].shape).clone() for name, part in zip(names, parts, strict=True)}
    counters = {name: torch.tensor(0) for name in tensors if name.endswith("num_batches_tracked")}
    return state | counters
