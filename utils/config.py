"""The settings of each command; flags, help text and YAML keys are derived from these fields."""

from __future__ import annotations

import os
from dataclasses import dataclass

from nets.attention import ATTENTION, attention_name
from nets.yolo import PLACES
from utils.errors import UserError
from utils.flags import (
    as_plain,
    config_as_dict,
    config_from_dict,
    given_settings,
    parse_config,
    save_args_yaml,
)
from utils.settings import check_settings, setting

__all__ = [
    "EvaluateConfig",
    "PredictConfig",
    "TrainConfig",
    "as_plain",
    "check_imgsz",
    "config_as_dict",
    "config_from_dict",
    "given_settings",
    "parse_config",
    "phi_name",
    "save_args_yaml",
]

_SMALLEST, _LARGEST, _STEP = 32, 4096, 32  # of an input side in pixels; 32 is the network's stride
_PHI = (
    "0|none, 1|se, 2|cbam, 3|eca, 4|ca, "
    f"{', '.join(list(ATTENTION)[5:])}, or a block of your own: path/to/file.py:Class or package.module:Class"
)
_OWN_PHI = (
    "confirm the attention block of your own that the weights were trained with, as path/to/file.py:Class"
)
_WEIGHTS = "coco (the official Darknet weights), last (the newest best.pth), or a .pth or .weights file"
_START = (
    "coco (the official Darknet weights), last (the newest best.pth), a .pth, .weights or .conv.N, or none"
)
_DATA = "a VOCdevkit, a folder in VOC layout, or a folder of images with their XML"
_SKIP_BAD = "leave out broken files (counted and named) instead of stopping"
_UNLABELLED = "images without XML: skip (an error where a VOC list names them) or take as background"
_EXIST_OK = "write into PROJECT/NAME even when it exists"
_NAME = "name of the run's folder; exp2, exp3 ... where it is taken"
_DEVICE = "auto (CUDA when there is one, else CPU), cpu, cuda, cuda:1 or mps"
ALL_CLASSES = "all"  # what --heatmap without a value stands for
_CLASSES = "file with the class names, one a line, in the order of the labels"


def _workers() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, usable)


@dataclass(frozen=True)
class TrainConfig:
    """Settings of train.py; each field's help says what it is.

    Raises:
        UserError: a value makes no sense; the message names the flag.
    """

    data: str = setting("VOCdevkit", _DATA, metavar="DIR")
    train: tuple[str, ...] | None = setting(
        None,
        "splits to train on, such as VOC2007/trainval (default: train, else trainval)",
        nargs="+",
        metavar="SPLIT",
    )
    val: tuple[str, ...] | None = setting(
        None,
        "splits to select the best epoch on, or none (default: val, else a held-out tenth)",
        nargs="+",
        metavar="SPLIT",
    )
    phi: str = setting("none", f"attention block: {_PHI}", aliases=("--attention",))
    weights: str = setting("coco", f"what to start from: {_START} (random numbers)", metavar="FILE")
    epochs: int = setting(100, "times through the training images", metavar="N", within="[1, 100000]")
    batch_size: int = setting(16, "images a step", metavar="N", within="[1, 65536]")
    imgsz: tuple[int, int] = setting(
        (416, 416), "side of the network's input in pixels, or height and width", nargs="+", metavar="N"
    )
    device: str = setting("auto", _DEVICE)
    workers: int = setting(
        _workers(), "processes that read images; 0 reads in this one", metavar="N", within="[0, 256]"
    )
    seed: int = setting(0, "of every random choice", metavar="N", within="[0, 4294967295]")
    freeze_epochs: int = setting(
        0, "epochs at the start with the backbone frozen", metavar="N", within="[0, 100000]"
    )
    resume: str | None = setting(
        None,
        "go on from a last.pth; without a value from the newest",
        nargs="?",
        bare="auto",
        metavar="FILE",
        alone_with=("epochs", "device", "workers", "phi"),
    )
    demo: bool = setting(False, "make a small data set under runs/demo and train on it")

    classes: str | None = setting(
        None, f"{_CLASSES} (default: those of the data)", group="data", metavar="FILE"
    )
    unlabelled: str = setting("skip", _UNLABELLED, group="data", choices=("skip", "background"))
    skip_bad: bool = setting(False, _SKIP_BAD, group="data")
    mosaic: float = setting(
        0.5, "probability that a sample is made of four images", group="data", metavar="P", within="[0, 1]"
    )
    mixup: float = setting(
        0.0, "probability that a sample is blended with another", group="data", metavar="P", within="[0, 1]"
    )
    close_mosaic: int = setting(
        5, "epochs at the end without mosaic", group="data", metavar="N", within="[0, 100000]"
    )

    phi_at: tuple[str, ...] = setting(
        ("c4", "c5", "up"),
        "where attention blocks stand",
        group="network",
        nargs="+",
        metavar="PLACE",
        choices=tuple(PLACES),
    )
    insert: str = setting(
        "preserve",
        "how a block that is new to the weights starts: preserve (the network computes what it did) or "
        "published (as the block initialises itself)",
        group="network",
        choices=("preserve", "published"),
    )
    partial: bool = setting(
        False, "take from --weights what fits, and print what does not, instead of stopping", group="network"
    )

    lr: float = setting(0.01, "peak learning rate", group="optimization", metavar="X", within="[0, inf)")
    momentum: float = setting(0.937, "of SGD", group="optimization", metavar="X", within="[0, 1)")
    weight_decay: float = setting(
        0.0005, "of convolution weights", group="optimization", metavar="X", within="[0, inf)"
    )
    warmup_epochs: float = setting(
        1.0,
        "epochs in which the learning rate rises from 0",
        group="optimization",
        metavar="X",
        within="[0, inf)",
    )
    label_smoothing: float = setting(
        0.0, "class targets become 1 - X/2 and X/2", group="optimization", within="[0, 1)"
    )
    ema: bool = setting(True, "no moving average of the weights", group="optimization")
    eval_interval: int = setting(
        1, "epochs from one evaluation to the next", group="output", metavar="N", within="[1, 100000]"
    )
    project: str = setting("runs/train", "folder of the runs", group="output", metavar="DIR")
    name: str = setting("exp", _NAME, group="output")
    exist_ok: bool = setting(False, _EXIST_OK, group="output")

    def __post_init__(self) -> None:
        check_settings(self)
        check_imgsz(self.imgsz)
        object.__setattr__(self, "phi", phi_name(self.phi))
        if self.freeze_epochs > self.epochs:
            raise UserError(f"--freeze-epochs {self.freeze_epochs}: more than --epochs {self.epochs}")
        if self.val is not None and "none" in self.val and len(self.val) > 1:
            raise UserError(f"--val {' '.join(self.val)}: none cannot stand beside a split")
        if len(set(self.phi_at)) != len(self.phi_at):
            raise UserError(f"--phi-at {' '.join(self.phi_at)}: names a place twice")
        if self.batch_size == 1 and self.imgsz == (32, 32):
            raise UserError(
                "--batch-size 1: at --imgsz 32 batch normalization would see a single value; use at least 2"
            )


@dataclass(frozen=True)
class EvaluateConfig:
    """Settings of evaluate.py; each field's help says what it is.

    Raises:
        UserError: a value makes no sense; the message names the flag.
    """

    weights: str = setting("coco", _WEIGHTS, metavar="FILE")
    data: str = setting("VOCdevkit", _DATA, metavar="DIR")
    split: tuple[str, ...] | None = setting(
        None, "splits to evaluate, such as VOC2007/test (default: test, else val)", nargs="+", metavar="SPLIT"
    )
    imgsz: tuple[int, int] | None = setting(
        None,
        "side of the network's input in pixels, or height and width (default: the weights' own)",
        nargs="+",
        metavar="N",
    )
    batch_size: int = setting(8, "images at a time", metavar="N", within="[1, 65536]")
    device: str = setting("auto", _DEVICE)
    json: str | None = setting(None, "write a copy of metrics.json here", metavar="FILE")

    conf: float = setting(0.001, "lowest score that counts", group="detection", metavar="X", within="[0, 1]")
    nms_iou: float = setting(
        0.5,
        "overlap from which the weaker box of a class goes",
        group="detection",
        metavar="X",
        within="[0, 1]",
    )
    max_det: int = setting(
        100, "most detections an image", group="detection", metavar="N", within="[1, 100000]"
    )
    phi: str | None = setting(None, _OWN_PHI, group="detection", aliases=("--attention",))
    classes: str | None = setting(
        None, f"{_CLASSES} (default: those of the weights)", group="data", metavar="FILE"
    )
    unlabelled: str = setting("skip", _UNLABELLED, group="data", choices=("skip", "background"))
    skip_bad: bool = setting(False, _SKIP_BAD, group="data")
    project: str = setting("runs/evaluate", "folder of the runs", group="output", metavar="DIR")
    name: str = setting("exp", _NAME, group="output")
    exist_ok: bool = setting(False, _EXIST_OK, group="output")

    def __post_init__(self) -> None:
        check_settings(self)
        check_imgsz(self.imgsz)
        object.__setattr__(self, "phi", phi_name(self.phi))


@dataclass(frozen=True)
class PredictConfig:
    """Settings of predict.py; each field's help says what it is.

    Raises:
        UserError: a value makes no sense; the message names the flag.
    """

    sources: tuple[str, ...] = setting(
        (), "image, folder or glob; several may be given", positional=True, nargs="*", metavar="SOURCE"
    )
    weights: str = setting("coco", _WEIGHTS, metavar="FILE")
    conf: float = setting(0.25, "lowest score shown", metavar="X", within="[0, 1]")
    nms_iou: float = setting(
        0.5, "overlap from which the weaker box of a class goes", metavar="X", within="[0, 1]"
    )
    max_det: int = setting(100, "most detections an image", metavar="N", within="[1, 100000]")
    only: tuple[str, ...] | None = setting(None, "keep these classes", nargs="+", metavar="NAME")
    imgsz: tuple[int, int] | None = setting(
        None,
        "side of the network's input in pixels, or height and width (default: the weights' own)",
        nargs="+",
        metavar="N",
    )
    batch_size: int = setting(1, "images at a time", metavar="N", within="[1, 65536]")
    device: str = setting("auto", _DEVICE)
    json: str | None = setting(None, "write the detections here, a JSON object a line", metavar="FILE")
    heatmap: str | None = setting(
        None,
        "a picture more an image: what raises the scores of the detections, or of CLASS alone",
        nargs="?",
        bare=ALL_CLASSES,
        metavar="[CLASS]",
    )
    attention_maps: bool = setting(False, "a picture more an image: the gates of the attention blocks")
    save: bool = setting(True, "write no pictures")

    classes: str | None = setting(
        None, f"{_CLASSES} (default: those of the weights)", group="detection", metavar="FILE"
    )
    phi: str | None = setting(None, _OWN_PHI, group="detection", aliases=("--attention",))
    project: str = setting("runs/predict", "folder of the runs", group="output", metavar="DIR")
    name: str = setting("exp", _NAME, group="output")
    exist_ok: bool = setting(False, _EXIST_OK, group="output")

    def __post_init__(self) -> None:
        check_settings(self)
        check_imgsz(self.imgsz)
        object.__setattr__(self, "phi", phi_name(self.phi))
        explained = "--heatmap" if self.heatmap is not None else "--attention-maps"
        if not self.save and (self.heatmap is not None or self.attention_maps):
            raise UserError(
                f"--no-save: writes no pictures, and {explained} asks for one; leave one of them out"
            )
        if not self.sources and self.heatmap not in (None, ALL_CLASSES):
            raise UserError(
                f"SOURCE: nothing to look at; --heatmap took {self.heatmap} for its class, so write the "
                f"sources first: python predict.py {self.heatmap} --heatmap"
            )
        if not self.sources:
            raise UserError(
                "SOURCE: nothing to look at; name an image, a folder or a glob: python predict.py photo.jpg"
            )
        if "" in self.sources:
            raise UserError("SOURCE '': is empty")


def phi_name(phi: str | None) -> str | None:
    """Return the name of what --phi gave, None for nothing; raises a UserError for an unknown block."""
    try:
        return None if phi is None else attention_name(phi)
    except ValueError as error:
        raise UserError(f"--phi {phi}: {error}") from None


def check_imgsz(imgsz: tuple[int, int] | None) -> None:
    """Refuse an --imgsz that the network cannot take; the UserError names the nearest sizes."""
    if imgsz is None or all(_SMALLEST <= side <= _LARGEST and side % _STEP == 0 for side in imgsz):
        return
    nearest = []
    for side in imgsz:
        below = min(max(side // _STEP * _STEP, _SMALLEST), _LARGEST)
        nearest.append(
            f"{below} or {below + _STEP}" if below < side < _LARGEST and side % _STEP else str(below)
        )
    shown, advice = " ".join(map(str, dict.fromkeys(imgsz))), ", ".join(dict.fromkeys(nearest))
    rule = f"sides are multiples of {_STEP} from {_SMALLEST} to {_LARGEST} pixels"
    raise UserError(f"--imgsz {shown}: {rule}; nearest: {advice}")
