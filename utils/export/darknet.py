"""Darknet: `.weights`, the `.cfg` that gives them their meaning, the class names, and what the cfg lacks."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from nets.config import ModelConfig
from nets.yolo import YoloBody
from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.export.job import ExportJob
from utils.export.parity import Reader
from utils.weights.darknet import DarknetWeights, is_darknet, read_darknet, write_darknet

_ANCHORS = 3  # of each head; with others the weights' length would tell another number of classes
_HEADS = ["conv_29", "conv_36"]  # OpenCV's names of the last convolutions
_OPENCV_EPSILON = 1e-6  # of batch normalization; Darknet's and ours is 1e-5


def check(job: ExportJob) -> None:
    """Hold that the format can say what the network is; a UserError says why not."""
    if job.config.phi != "none":
        raise UserError(
            "--format darknet: Darknet has no attention blocks, so it takes --phi none only, and these "
            f"weights have {job.config.phi}; take --format onnx or pth"
        )
    anchors = len(job.config.anchor_masks[0])
    if anchors != _ANCHORS:
        raise UserError(f"--format darknet: takes {_ANCHORS} anchors a head, these weights have {anchors}")


def notes(job: ExportJob) -> list[str]:
    """Return what the user should know of this format."""
    lines = []
    if not hasattr(cv2.dnn, "readNetFromDarknet"):
        lines.append("darknet: this OpenCV cannot read Darknet's files, so only our own reader compares them")
    if not job.is_official():
        lines.append(
            "darknet: anchors, masks or scale_x_y are not those of yolov4-tiny.cfg; they stand in the .cfg, "
            "which predict.py and evaluate.py do not read"
        )
    return lines


def write(job: ExportJob, folder: Path) -> list[Path]:
    """Write .weights, .cfg, .names and .json; weights that were Darknet's keep their header."""
    paths = [folder / job.named(ending) for ending in (".weights", ".cfg", ".names", ".json")]
    origin = (
        read_darknet(job.source) if is_darknet(job.source) else DarknetWeights({}, job.config.num_classes)
    )
    write_darknet(paths[0], dataclasses.replace(origin, state_dict=job.weights()))
    description = json.dumps(job.describe(), ensure_ascii=False, indent=1)
    texts = (build_cfg(job.config), "\n".join(job.class_names), description)
    for path, text in zip(paths[1:], texts, strict=True):
        with atomic_write(path, "w") as file:
            file.write(text + "\n")
    return paths


def readers(job: ExportJob, path: Path) -> list[Reader]:
    """Return our own reading of the files, and OpenCV's where it has one."""
    model = YoloBody(job.config).eval()
    model.load_state_dict(read_darknet(path).state_dict)
    found = [Reader("our reader", model)]
    if hasattr(cv2.dnn, "readNetFromDarknet"):
        found.append(_read_with_opencv(job, path))
    return found


def following(job: ExportJob, folder: Path) -> list[str] | None:
    """Return the command that uses the export, None where ours would decode it wrongly."""
    if not job.is_official():
        return None
    return job.predict_command(folder, ".weights", has_config=False)


def build_cfg(config: ModelConfig) -> str:
    """Write the network without attention as a Darknet cfg."""
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
        *(_route(-4), _conv(128, 1), _section("upsample", stride=2), _route(-1, 23)),
        *(_conv(256, 3), predict, fine),
    ]
    return "\n".join(sections).rstrip()


def _csp(channels: int) -> list[str]:
    """A stage of the backbone: half of the channels goes through two convolutions, then all meet again."""
    half = channels // 2
    second_half = _section("route", layers=-1, groups=2, group_id=1)
    inner = [second_half, _conv(half, 3), _conv(half, 3), _route(-1, -2), _conv(channels, 1)]
    return [_conv(channels, 3), *inner, _route(-6, -1), _section("maxpool", size=2, stride=2)]


def _conv(filters: int, size: int, stride: int = 1, norm: bool = True) -> str:
    kind = {"batch_normalize": 1} if norm else {}
    activation = "leaky" if norm else "linear"
    return _section(
        "convolutional", **kind, filters=filters, size=size, stride=stride, pad=1, activation=activation
    )


def _route(*layers: int) -> str:
    return _section("route", layers=_listed(layers))


def _yolo(config: ModelConfig, mask: Iterable[int]) -> str:
    return _section(
        "yolo",
        mask=_listed(mask),
        anchors=_listed(side for anchor in config.anchors for side in anchor),
        classes=config.num_classes,
        num=len(config.anchors),
        scale_x_y=f"{config.scale_x_y:.10g}",
    )


def _section(kind: str, **options: object) -> str:
    return "\n".join([f"[{kind}]", *(f"{key}={value}" for key, value in options.items()), ""])


def _listed(numbers: Iterable[float]) -> str:
    return ",".join(f"{number:.10g}" for number in numbers)


def _read_with_opencv(job: ExportJob, path: Path) -> Reader:
    cfg, weights = (np.fromfile(file, dtype=np.uint8) for file in (path.with_suffix(".cfg"), path))
    try:
        network = cv2.dnn.readNetFromDarknet(cfg, weights)
    except cv2.error as error:
        raise UserError(
            f"--format darknet: OpenCV refuses the files: {error.err or error}", exit_code=1
        ) from error

    def run(images: Tensor) -> list[Tensor]:
        network.setInput(images.numpy())
        return [torch.from_numpy(raw) for raw in network.forward(_HEADS)]

    # OpenCV adds another epsilon to the variance than Darknet and we do. For the official weights that alone
    # is 3e-3 in the heads and would hide a fault of the files, so the network is given OpenCV's here.
    reference = copy.deepcopy(job.model)
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = _OPENCV_EPSILON
    return Reader(f"OpenCV {cv2.__version__}, both at its epsilon of {_OPENCV_EPSILON:g}", run, reference)
