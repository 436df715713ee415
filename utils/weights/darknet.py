"""Darknet's weights of yolov4-tiny and yolov4-tiny-3l: `.weights`, and `.conv.N` of the first N layers.

A weights file is a header, then float32 values in the order of the cfg: for a convolution with batch
normalization its bias, scale, running mean, running variance and weights, for the last one of a head its bias
and weights.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nets.config import USUAL_ANCHORS, ModelConfig
from nets.yolo import HEADS, THIRD_HEAD, YoloBody
from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.weights.darknet_cfg import ANCHORS

# Convolutions of yolov4-tiny-3l.cfg, of which yolov4-tiny.cfg has the first: layer number -> our name.
_LAYERS = {
    **{0: "backbone.stem1", 1: "backbone.stem2"},
    **{
        first + layer: f"backbone.stage{stage}.{name}"
        for stage, first in ((2, 2), (3, 10), (4, 18))
        for layer, name in {0: "route", 2: "first", 3: "second", 5: "merge"}.items()
    },
    **{26: "backbone.last", 27: "neck_p5", 28: "head_p5.conv", 29: "head_p5.predict"},
    **{32: "neck_up", 35: "head_p4.conv", 36: "head_p4.predict"},
    **{39: "neck_up2", 42: "head_p3.conv", 43: "head_p3.predict"},
}
_LAST_LAYERS = tuple(f"{head}.predict" for head in HEADS)
_NORM_PARTS = ("norm.bias", "norm.weight", "norm.running_mean", "norm.running_var", "conv.weight")
_HEAD_PARTS = ("bias", "weight")


@dataclass(frozen=True)
class DarknetWeights:
    """The content of a weights file."""

    state_dict: dict[str, Tensor]  # of a `YoloBody`; of a partial file the first layers
    num_classes: int  # solved from the file's length; 0 for a partial file without the heads' last layers
    version: tuple[int, int, int] = (0, 2, 5)  # (major, minor, revision) of Darknet, as in the header
    seen: int = 0  # number of training images, as in the header

    @property
    def num_heads(self) -> int:
        """Number of heads of the network; two also for a partial file that ends before the third."""
        return 3 if any(name.startswith(THIRD_HEAD) for name in self.state_dict) else 2

    @property
    def is_partial(self) -> bool:
        """Tell whether the last head is missing."""
        return f"{HEADS[self.num_heads - 1]}.predict.weight" not in self.state_dict


def is_darknet(path: Path) -> bool:
    """Tell by its name whether a file is a Darknet weights file."""
    return path.suffix.lower() == ".weights" or _cutoff(path) is not None


def read_darknet(path: Path | str) -> DarknetWeights:
    """Read a `.weights` file with two or three heads and any number of classes, or a partial `.conv.N`.

    Raises:
        UserError: the file cannot be read, or its length fits no number of heads and classes.
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
    names, num_classes = _solve_contents(path, len(data), header)
    (seen,) = struct.unpack_from(_seen_format(major, minor), data, 12)
    values = torch.from_numpy(np.frombuffer(data, dtype="<f4", offset=header).astype(np.float32))
    if not values.isfinite().all():
        raise UserError(f"{path}: damaged, has values that are not finite; download or copy it again")
    return DarknetWeights(_unpack(values, names, num_classes), num_classes, (major, minor, revision), seen)


def write_darknet(path: Path | str, weights: DarknetWeights) -> None:
    """Write a complete `.weights` file; reading and writing a file gives the same bytes.

    Raises:
        UserError: the network has attention blocks, or the file cannot be written.
    """
    if any(name.startswith("attention.") for name in weights.state_dict):
        raise UserError(f"{path}: Darknet has no attention blocks; only --phi none can be written")
    major, minor, _ = weights.version
    names = _names(weights.num_heads)
    values = [weights.state_dict[name].detach().cpu().float().flatten() for name in names]
    with atomic_write(path) as file:
        file.write(struct.pack("<3i", *weights.version))
        file.write(struct.pack(_seen_format(major, minor), weights.seen))
        file.write(torch.cat(values).numpy().astype("<f4").tobytes())


def check_darknet(config: ModelConfig) -> None:
    """Check that Darknet's files can hold a network.

    Raises:
        ValueError: they cannot; says why.
    """
    if config.phi != "none":
        raise ValueError(f"Darknet takes --phi none only; these weights have {config.phi}")
    if (anchors := len(config.anchor_masks[0])) != ANCHORS:
        raise ValueError(f"takes {ANCHORS} anchors a head, these weights have {anchors}")


def _seen_format(major: int, minor: int) -> str:
    """Return the struct format of the counter of training images: 64 bits since version 0.2."""
    return "<Q" if major * 10 + minor >= 2 else "<I"


def _cutoff(path: Path) -> int | None:
    """Return N of a file *.conv.N, which ends before layer N of the cfg."""
    match = re.search(r"\.conv\.(\d+)$", path.name.lower())
    return int(match[1]) if match else None


def _names(num_heads: int, cutoff: int | None = None) -> list[str]:
    """Return the tensor names of a network's layers below the cutoff, in the order of the file."""
    absent = () if num_heads == 3 else THIRD_HEAD
    convs = [
        conv
        for layer, conv in _LAYERS.items()
        if (cutoff is None or layer < cutoff) and not conv.startswith(absent)
    ]
    return [
        f"{conv}.{part}" for conv in convs for part in (_HEAD_PARTS if conv in _LAST_LAYERS else _NORM_PARTS)
    ]


def _shapes(num_classes: int) -> dict[str, torch.Size]:
    """Return the shapes of the tensors of three heads by name, which include those of two."""
    anchors, masks = USUAL_ANCHORS[3]
    with torch.device("meta"):
        body = YoloBody(ModelConfig(num_classes, anchors=anchors, anchor_masks=masks))
    return {name: value.shape for name, value in body.state_dict().items()}


def _solve_contents(path: Path, length: int, header: int) -> tuple[list[str], int]:
    """Solve for the heads and classes with which a file has exactly `length` bytes.

    No length fits both numbers of heads: two have 2310 values a class, three 2697, both divisible by 3, and
    the 240,271 values that the third head has without classes are not.

    Returns:
        The names of its tensors in order, and the number of classes: 0 where it ends before all last layers.
    """
    misses = []
    one_class, two_classes = map(_shapes, (1, 2))
    for num_heads in USUAL_ANCHORS:
        names = _names(num_heads, _cutoff(path))
        one, two = (header + 4 * _count(names, shapes) for shapes in (one_class, two_classes))
        per_class = two - one
        num_classes = max(1, round((length - one) / per_class) + 1) if per_class else 0
        expected = one + max(num_classes - 1, 0) * per_class
        if length == expected:
            return names, num_classes
        misses.append((abs(length - expected), num_heads, num_classes, expected))
    _, num_heads, num_classes, expected = min(misses)
    if num_classes == 0:
        raise UserError(
            f"{path}: {length} bytes, but the layers in its name have {expected}; download it again"
        )
    raise UserError(
        f"{path}: not a complete yolov4-tiny weights file: {length} bytes, but {expected} would be "
        f"{num_classes} classes and {num_heads} heads; download it again, or check that it is yolov4-tiny's"
    )


def _count(names: Iterable[str], shapes: Mapping[str, torch.Size]) -> int:
    return sum(shapes[name].numel() for name in names)


def _unpack(values: Tensor, names: list[str], num_classes: int) -> dict[str, Tensor]:
    """Split the values of a file into the tensors of the network."""
    shapes = _shapes(max(num_classes, 1))
    parts = values.split([shapes[name].numel() for name in names])
    state = {name: part.reshape(shapes[name]).clone() for name, part in zip(names, parts, strict=True)}
    norms = [name.removesuffix("running_mean") for name in names if name.endswith("running_mean")]
    return state | {f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms}
