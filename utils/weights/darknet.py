"""Darknet's files of yolov4-tiny: `.weights`, partial `.conv.N` of the first N layers, and `.cfg`.

A weights file is a header, then float32 values in the order of the cfg: for a convolution with batch
normalization its bias, scale, running mean, running variance and weights, for the last one of a head its bias
and weights.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nets.config import ModelConfig
from nets.yolo import YoloBody
from utils.cli.errors import UserError
from utils.cli.files import atomic_write

# Convolutions of yolov4-tiny.cfg: layer number -> our name.
_LAYERS = {
    **{0: "backbone.stem1", 1: "backbone.stem2"},
    **{
        first + layer: f"backbone.stage{stage}.{name}"
        for stage, first in ((2, 2), (3, 10), (4, 18))
        for layer, name in {0: "route", 2: "first", 3: "second", 5: "merge"}.items()
    },
    **{26: "backbone.last", 27: "neck_p5", 28: "head_p5.conv", 29: "head_p5.predict"},
    **{32: "neck_up", 35: "head_p4.conv", 36: "head_p4.predict"},
}
_HEADS = ("head_p5.predict", "head_p4.predict")
_ANCHORS = 3  # of each head; with others the length of the file would give another number of classes
_NORM_PARTS = ("norm.bias", "norm.weight", "norm.running_mean", "norm.running_var", "conv.weight")
_HEAD_PARTS = ("bias", "weight")


@dataclass(frozen=True)
class DarknetWeights:
    """The content of a weights file."""

    state_dict: dict[str, Tensor]  # of `YoloBody(ModelConfig(num_classes))`; of a partial file the first ones
    num_classes: int  # solved from the file's length; 0 for a partial file without the heads' last layers
    version: tuple[int, int, int] = (0, 2, 5)  # (major, minor, revision) of Darknet, as in the header
    seen: int = 0  # number of training images, as in the header


def is_darknet(path: Path) -> bool:
    """Tell by its name whether a file is a Darknet weights file."""
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
    values = [weights.state_dict[name].detach().cpu().float().flatten() for name in _names()]
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
    if (anchors := len(config.anchor_masks[0])) != _ANCHORS:
        raise ValueError(f"takes {_ANCHORS} anchors a head, these weights have {anchors}")


def build_cfg(config: ModelConfig) -> str:
    """Return the Darknet cfg of a network without attention."""
    height, width = config.input_size
    net = {"batch": 1, "subdivisions": 1, "width": width, "height": height, "channels": 3, "letter_box": 1}
    predict = _conv(_ANCHORS * (5 + config.num_classes), 1, norm=False)
    coarse, fine = (_yolo(config, mask) for mask in config.anchor_masks)
    sections = [
        _section("net", **net),
        _conv(32, 3, stride=2),
        _conv(64, 3, stride=2),
        *_csp(64),
        *_csp(128),
        *_csp(256),
        _conv(512, 3),
        *(_conv(256, 1), _conv(512, 3), predict, coarse),
        *(
            _section("route", layers="-4"),
            _conv(128, 1),
            _section("upsample", stride=2),
            _section("route", layers="-1,23"),
        ),
        *(_conv(256, 3), predict, fine),
    ]
    return "\n".join(sections).rstrip()


def _csp(channels: int) -> list[str]:
    """Return a stage of the backbone: half of the channels pass two convolutions, then all are joined."""
    half = channels // 2
    return [
        *(_conv(channels, 3), _section("route", layers=-1, groups=2, group_id=1)),
        *(_conv(half, 3), _conv(half, 3), _section("route", layers="-1,-2"), _conv(channels, 1)),
        *(_section("route", layers="-6,-1"), _section("maxpool", size=2, stride=2)),
    ]


def _conv(filters: int, size: int, stride: int = 1, norm: bool = True) -> str:
    kind = {"batch_normalize": 1} if norm else {}
    activation = "leaky" if norm else "linear"
    shape = {"filters": filters, "size": size, "stride": stride, "pad": 1}
    return _section("convolutional", **kind, **shape, activation=activation)


def _yolo(config: ModelConfig, mask: Iterable[int]) -> str:
    return _section(
        "yolo",
        mask=_join(mask),
        anchors=_join(side for anchor in config.anchors for side in anchor),
        classes=config.num_classes,
        num=len(config.anchors),
        scale_x_y=f"{config.scale_x_y:.10g}",
    )


def _section(kind: str, **options: object) -> str:
    return "\n".join([f"[{kind}]", *(f"{key}={value}" for key, value in options.items()), ""])


def _join(numbers: Iterable[float]) -> str:
    return ",".join(f"{number:.10g}" for number in numbers)


def _seen_format(major: int, minor: int) -> str:
    """Return the struct format of the counter of training images: 64 bits since version 0.2."""
    return "<Q" if major * 10 + minor >= 2 else "<I"


def _cutoff(path: Path) -> int | None:
    """Return N of a file *.conv.N, which ends before layer N of the cfg."""
    match = re.search(r"\.conv\.(\d+)$", path.name.lower())
    return int(match[1]) if match else None


def _names(cutoff: int | None = None) -> list[str]:
    """Return the tensor names of the layers below the cutoff, in the order of the file."""
    convs = [conv for layer, conv in _LAYERS.items() if cutoff is None or layer < cutoff]
    return [f"{conv}.{part}" for conv in convs for part in (_HEAD_PARTS if conv in _HEADS else _NORM_PARTS)]


def _shapes(num_classes: int) -> dict[str, torch.Size]:
    """Return the shapes of the network's tensors by name."""
    with torch.device("meta"):
        return {name: value.shape for name, value in YoloBody(ModelConfig(num_classes)).state_dict().items()}


def _solve_num_classes(path: Path, length: int, header: int, names: list[str]) -> int:
    """Solve for the K with which the named tensors of yolov4-tiny have exactly `length` bytes."""
    one, two = (header + 4 * sum(shapes[name].numel() for name in names) for shapes in map(_shapes, (1, 2)))
    per_class = two - one
    if per_class == 0:  # a partial file that ends before the heads' last layers
        if length == one:
            return 0
        raise UserError(f"{path}: {length} bytes, but the layers in its name have {one}; download it again")
    num_classes = max(1, round((length - one) / per_class) + 1)
    expected = one + (num_classes - 1) * per_class
    if length == expected:
        return num_classes
    raise UserError(
        f"{path}: not a complete yolov4-tiny weights file: {length} bytes, but {expected} would be "
        f"{num_classes} classes; download it again, or check that it is yolov4-tiny's"
    )


def _unpack(values: Tensor, names: list[str], num_classes: int) -> dict[str, Tensor]:
    """Split the values of a file into the tensors of the network."""
    shapes = _shapes(max(num_classes, 1))
    parts = values.split([shapes[name].numel() for name in names])
    state = {name: part.reshape(shapes[name]).clone() for name, part in zip(names, parts, strict=True)}
    norms = [name.removesuffix("running_mean") for name in names if name.endswith("running_mean")]
    return state | {f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms}
