"""Darknet's .cfg of yolov4-tiny and yolov4-tiny-3l: the reader beside the writer.

A cfg is a list of sections, `[kind]` and options `key=value`. [net] has the input size, each [yolo] the
anchors, mask and classes of a head; the other sections are the layers, which must be those of our network.
Options that only training uses are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

from nets.config import USUAL_ANCHORS, ModelConfig
from utils.cli.errors import UserError
from utils.cli.files import read_bytes

ANCHORS = 3  # of each head; with others the length of a weights file would give another number of classes
_MAX_BYTES = 1_000_000
_NAMES = {2: "yolov4-tiny", 3: "yolov4-tiny-3l"}  # by number of heads
# Options that change what a layer computes, with Darknet's defaults. The padding follows from pad and size.
_GRAPH = {
    "convolutional": {
        **{"batch_normalize": "0", "filters": "1", "size": "1", "stride": "1", "activation": "logistic"},
        **{"groups": "1", "dilation": "1", "stride_x": "", "stride_y": "", "antialiasing": "0"},
        **{"xnor": "0", "binary": "0", "share_index": ""},
    },
    "route": {"layers": "", "groups": "1", "group_id": "0"},
    "maxpool": {"size": "1", "stride": "1", "maxpool_depth": "0"},
    "upsample": {"stride": "2", "scale": "1"},
    "yolo": {"new_coords": "0"},  # of scaled-YOLOv4, which decodes boxes without exp
}
_CONFIG = ("width", "height", "channels", "mask", "anchors", "classes", "num", "scale_x_y", "pad", "padding")
_READ = {*_CONFIG, *(key for options in _GRAPH.values() for key in options)}

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class _Section:
    """A section of a cfg."""

    path: Path | str
    line: int
    kind: str
    options: dict[str, str] = field(default_factory=dict)

    def fail(self, reason: str, line: int | None = None) -> UserError:
        return UserError(f"{self.path}, line {line or self.line}: [{self.kind}] {reason}")

    def numbers(self, key: str, parse: Callable[[str], Number]) -> list[Number]:
        """Return the numbers of a list `1,2,3`; a UserError where the option is missing or no such list."""
        if key not in self.options:
            raise self.fail(f"has no {key}")
        words = [word for word in self.options[key].split(",") if word]
        try:
            return [parse(word) for word in words]
        except ValueError:
            kind = "whole numbers" if parse is int else "numbers"
            raise self.fail(f"{key}={self.options[key][:40]}: not {kind} divided by commas") from None

    def number(self, key: str, parse: Callable[[str], Number], default: Number | None = None) -> Number:
        """Return a single number, or the default where the option is missing."""
        if key not in self.options and default is not None:
            return default
        numbers = self.numbers(key, parse)
        if len(numbers) != 1:
            raise self.fail(f"{key}={self.options[key][:40]}: not a single number")
        return numbers[0]


def find_beside(weights: Path, suffix: str) -> Path | None:
    """Return the .cfg or .names beside a .weights file, or None.

    It has the same stem, or the one that Darknet names weights by: NAME_best, NAME_last, NAME_final and
    NAME_1000 are trained with NAME.cfg.
    """
    if weights.suffix.lower() != ".weights":
        return None
    stems = (weights.stem, re.sub(r"_(best|last|final|\d+)$", "", weights.stem))
    paths = (weights.with_name(f"{stem}{suffix}") for stem in stems)
    return next((path for path in paths if path.exists()), None)


def read_cfg(path: Path | str) -> ModelConfig:
    """Read the network of a cfg: classes, input size, anchors, masks and scale_x_y.

    Raises:
        UserError: the file cannot be read, or describes another network than yolov4-tiny or yolov4-tiny-3l;
            names the line and what differs.
    """
    net, *layers = _parse(path, read_bytes(path, _MAX_BYTES).decode("utf-8-sig", errors="replace"))
    if net.kind not in ("net", "network"):
        raise net.fail("is the first section, which must be [net]")
    heads = [layer for layer in layers if layer.kind == "yolo"]
    if len(heads) not in USUAL_ANCHORS:
        raise UserError(f"{path}: has {len(heads)} sections [yolo]; yolov4-tiny has 2, yolov4-tiny-3l has 3")
    config = _read_config(net, heads)
    _check_layers(layers, _parse(path, build_cfg(config))[1:], config)
    return config


def build_cfg(config: ModelConfig) -> str:
    """Return the Darknet cfg of a network without attention."""
    height, width = config.input_size
    net = {"batch": 1, "subdivisions": 1, "width": width, "height": height, "channels": 3, "letter_box": 1}
    predict = _conv(ANCHORS * (5 + config.num_classes), 1, norm=False)
    coarse, *finer = (_yolo(config, mask) for mask in config.anchor_masks)
    sections = [
        _section("net", **net),
        _conv(32, 3, stride=2),
        _conv(64, 3, stride=2),
        *_csp(64),
        *_csp(128),
        *_csp(256),
        _conv(512, 3),
        *(_conv(256, 1), _conv(512, 3), predict, coarse),
    ]
    # Of a finer head: the layer before that it upsamples, the layer of the backbone it reads, its filters.
    for (before, tap, filters), yolo in zip(((-4, 23, 256), (-3, 15, 128)), finer, strict=False):
        sections += [
            *(_section("route", layers=before), _conv(filters // 2, 1), _section("upsample", stride=2)),
            *(_section("route", layers=f"-1,{tap}"), _conv(filters, 3), predict, yolo),
        ]
    return "\n".join(sections).rstrip()


def _parse(path: Path | str, text: str) -> list[_Section]:
    """Split a cfg into its sections; blanks have no meaning, # and ; start comments."""
    sections: list[_Section] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = "".join(re.split("[#;]", raw, maxsplit=1)[0].split())
        key, equals, value = line.partition("=")
        if line.startswith("[") and line.endswith("]"):
            sections.append(_Section(path, number, line[1:-1]))
        elif line and not (equals and sections):
            wanted = "neither a [section] nor key=value" if sections else "before the first [section]"
            raise UserError(f"{path}, line {number}: {line[:40]!r}: {wanted}; not a Darknet .cfg")
        elif line and sections[-1].options.setdefault(key, value) != value and key in _READ:
            raise sections[-1].fail(f"has {key} twice: {sections[-1].options[key]} and {value}", number)
    if not sections:
        raise UserError(f"{path}: no sections in it; not a Darknet .cfg")
    return sections


def _read_config(net: _Section, heads: Sequence[_Section]) -> ModelConfig:
    """Return the network that the options of [net] and [yolo] describe."""
    read: list[dict[str, Any]] = [
        {
            "classes": head.number("classes", int),
            "anchors": head.numbers("anchors", float),
            "scale_x_y": head.number("scale_x_y", float, 1.0),
        }
        for head in heads
    ]
    first, shared = heads[0], read[0]
    for head, own in zip(heads, read, strict=True):
        for key in (key for key in shared if own[key] != shared[key]):
            raise head.fail(f"has other {key} than the one in line {first.line}; they must be the same")
    sides: list[float] = shared["anchors"]
    if len(sides) % 2:
        raise first.fail(f"anchors has an odd number of values, {len(sides)}; it needs pairs width,height")
    masks = tuple(_read_mask(head, len(sides) // 2) for head in heads)
    pairs = tuple(zip(sides[::2], sides[1::2], strict=True))
    try:
        return ModelConfig(
            shared["classes"],
            input_size=_read_size(net),
            anchors=pairs,
            anchor_masks=masks,
            scale_x_y=shared["scale_x_y"],
        )
    except ValueError as error:
        raise UserError(f"{net.path}: {error}") from None


def _read_size(net: _Section) -> tuple[int, int]:
    """Return (height, width) of the input."""
    height, width, channels = (net.number(key, int) for key in ("height", "width", "channels"))
    if channels != 3:
        raise net.fail(f"channels={channels}: only color images, channels=3, are read")
    return height, width


def _read_mask(head: _Section, num_anchors: int) -> tuple[int, ...]:
    """Return the indices of a head's anchors."""
    mask = head.numbers("mask", int)
    if (number := head.number("num", int, num_anchors)) != num_anchors:
        raise head.fail(f"num={number}, but there are {num_anchors} anchors")
    if len(mask) != ANCHORS:
        raise head.fail(f"mask={head.options['mask'][:40]}: heads of {ANCHORS} anchors are read")
    if len(set(mask)) < len(mask) or not all(0 <= index < num_anchors for index in mask):
        reason = f"needs different anchors from 0 to {num_anchors - 1}"
        raise head.fail(f"mask={head.options['mask'][:40]}: {reason}")
    return tuple(mask)


def _check_layers(layers: Sequence[_Section], expected: Sequence[_Section], config: ModelConfig) -> None:
    """Compare the layers with those of our network; a UserError names the first difference."""
    name = _NAMES[config.num_heads]
    for index, (theirs, ours) in enumerate(zip_longest(layers, expected)):
        if theirs is None:
            raise UserError(f"{layers[-1].path}: ends after {index} layers; {name} has {len(expected)}")
        if ours is None:
            raise theirs.fail(f"follows the last layer of {name}")
        if theirs.kind != ours.kind:
            raise theirs.fail(f"is not the layer that {name} has here, [{ours.kind}]")
        found, needed = _graph_options(theirs, index), _graph_options(ours, index)
        for key in (key for key in needed if found[key] != needed[key]):
            own = theirs.options.get(key, "")
            reason = f"has {key}={own[:40]}" if own else f"has no {key}"
            wanted = f"{key}={ours.options[key]}" if key in ours.options else "no such option"
            if key == "filters" and ours.options["activation"] == "linear":
                wanted += f" for {ANCHORS} anchors and {config.num_classes} classes"
            raise theirs.fail(f"{reason}; {name} has {wanted}")


def _graph_options(section: _Section, index: int) -> dict[str, object]:
    """Return the options that change what layer number `index` computes, in comparable form."""
    options = section.options
    values: dict[str, object] = {
        key: options.get(key, default) for key, default in _GRAPH[section.kind].items()
    }
    if section.kind == "convolutional":
        same = section.number("size", int, 1) // 2
        values["pad"] = same if section.number("pad", int, 0) else section.number("padding", int, 0)
    if section.kind == "route":
        layers = section.numbers("layers", int)
        values["layers"] = [index + layer if layer < 0 else layer for layer in layers]
    return values


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
