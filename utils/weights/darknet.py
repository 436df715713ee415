"""Darknet's `.weights` files of yolov4-tiny, and the partial `.conv.N` files of its first N layers.

A file is a header, then float32 values in the order of the cfg: for a convolution with batch normalization
its bias, scale, running mean, running variance and weights, for the last one of a head its bias and weights.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nets.config import ModelConfig
from nets.yolo import YoloBody
from utils.cli.errors import UserError
from utils.cli.files import atomic_write

# The convolutions of yolov4-tiny.cfg: the number of the layer there and our name.
_LAYERS = {
    0: "backbone.stem1",
    1: "backbone.stem2",
    2: "backbone.stage2.route",
    4: "backbone.stage2.first",
    5: "backbone.stage2.second",
    7: "backbone.stage2.merge",
    10: "backbone.stage3.route",
    12: "backbone.stage3.first",
    13: "backbone.stage3.second",
    15: "backbone.stage3.merge",
    18: "backbone.stage4.route",
    20: "backbone.stage4.first",
    21: "backbone.stage4.second",
    23: "backbone.stage4.merge",
    26: "backbone.last",
    27: "neck_p5",
    28: "head_p5.conv",
    29: "head_p5.predict",
    32: "neck_up",
    35: "head_p4.conv",
    36: "head_p4.predict",
}
_HEADS = ("head_p5.predict", "head_p4.predict")
_NORM_PARTS = ("norm.bias", "norm.weight", "norm.running_mean", "norm.running_var", "conv.weight")
_HEAD_PARTS = ("bias", "weight")


@dataclass(frozen=True)
class DarknetWeights:
    """What a file holds.

    Attributes:
        state_dict: the tensors of `YoloBody(ModelConfig(num_classes))`; of a partial file the first ones.
        num_classes: solved from the length of the file; 0 for a partial file that ends before the heads' last
            layers.
        version: (major, minor, revision) of Darknet, as in the header.
        seen: number of images that the file says it was trained on.
    """

    state_dict: dict[str, Tensor]
    num_classes: int
    version: tuple[int, int, int] = (0, 2, 5)
    seen: int = 0

    @property
    def is_partial(self) -> bool:
        """Tell whether the file ends before the last layer of the network."""
        return "head_p4.predict.weight" not in self.state_dict


def is_darknet(path: Path) -> bool:
    """Tell by its name whether a file is one of Darknet's."""
    return path.suffix.lower() == ".weights" or _cutoff(path) is not None


def read_darknet(path: Path | str) -> DarknetWeights:
    """Read a `.weights` file of yolov4-tiny with any number of classes, or a `.conv.N` of its first N layers.

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
    major, minor, revision = struct.unpack_from("<3i", data)
    header = 12 + struct.calcsize(_seen_format(major, minor))
    names = _names(_cutoff(path))
    num_classes = _solve_num_classes(path, len(data), header, names)
    (seen,) = struct.unpack_from(_seen_format(major, minor), data, 12)
    values = torch.from_numpy(np.frombuffer(data, dtype="<f4", offset=header).astype(np.float32))
    if not values.isfinite().all():
        raise UserError(f"{path}: holds values that are not finite; the file is damaged")
    return DarknetWeights(_unpack(values, names, num_classes), num_classes, (major, minor, revision), seen)


def write_darknet(path: Path | str, weights: DarknetWeights) -> None:
    """Write a whole `.weights` file; one that was read comes out as the same bytes.

    Raises:
        UserError: the network has attention blocks, which Darknet does not know, or cannot be written.
    """
    if any(name.startswith("attention.") for name in weights.state_dict):
        raise UserError(f"{path}: Darknet's format has no attention blocks; it takes --phi none only")
    major, minor, _ = weights.version
    values = [weights.state_dict[name].detach().cpu().float().flatten() for name in _names()]
    with atomic_write(path) as file:
        file.write(struct.pack("<3i", *weights.version))
        file.write(struct.pack(_seen_format(major, minor), weights.seen))
        file.write(torch.cat(values).numpy().astype("<f4").tobytes())


def _seen_format(major: int, minor: int) -> str:
    """Return how the counter of seen images is stored: in 64 bits since version 0.2."""
    return "<Q" if major * 10 + minor >= 2 else "<I"


def _cutoff(path: Path) -> int | None:
    """Return N of a file called *.conv.N, which ends before layer N of the cfg."""
    match = re.search(r"\.conv\.(\d+)$", path.name.lower())
    return int(match[1]) if match else None


def _names(cutoff: int | None = None) -> list[str]:
    """Return the names of the tensors in the order of the file, of the layers below the cutoff."""
    convs = [conv for layer, conv in _LAYERS.items() if cutoff is None or layer < cutoff]
    return [f"{conv}.{part}" for conv in convs for part in (_HEAD_PARTS if conv in _HEADS else _NORM_PARTS)]


def _tensors(num_classes: int) -> Mapping[str, Tensor]:
    """Return the tensors of the network by name, as shapes without values."""
    with torch.device("meta"):
        return YoloBody(ModelConfig(num_classes)).state_dict()


def _solve_num_classes(path: Path, length: int, header: int, names: list[str]) -> int:
    """Find K so that the named tensors of a yolov4-tiny of K classes have exactly `length` bytes."""
    one, two = (
        header + 4 * sum(tensors[name].numel() for name in names) for tensors in (_tensors(1), _tensors(2))
    )
    per_class = two - one
    if per_class == 0:  # a partial file that ends before the heads' last layers
        if length == one:
            return 0
        raise UserError(
            f"{path}: {length} bytes, but the layers that its name says have {one}; fetch it again"
        )
    num_classes = max(1, round((length - one) / per_class) + 1)
    expected = one + (num_classes - 1) * per_class
    if length == expected:
        return num_classes
    raise UserError(
        f"{path}: not a whole yolov4-tiny weights file: {length} bytes, but {expected} would be "
        f"{num_classes} classes; fetch it again, or check that it is yolov4-tiny's"
    )


def _unpack(values: Tensor, names: list[str], num_classes: int) -> dict[str, Tensor]:
    """Cut the values of a file into the tensors of the network."""
    tensors = _tensors(max(num_classes, 1))
    parts = values.split([tensors[name].numel() for name in names])
    state = {name: part.reshape(tensors[name].shape).clone() for name, part in zip(names, parts, strict=True)}
    norms = [name.removesuffix("running_mean") for name in names if name.endswith("running_mean")]
    return state | {f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms}
