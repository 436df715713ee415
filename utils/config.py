"""The settings of each command; flags, help text and YAML keys are derived from these fields."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from nets.attention import attention_name
from utils.classes import parse_renames
from utils.errors import UserError
from utils.flags import (
    as_arguments,
    as_plain,
    config_as_dict,
    config_from_dict,
    given_settings,
    parse_config,
    save_args_yaml,
)
from utils.settings import check_settings, setting

__all__ = [
    "DataConfig",
    "EvaluateConfig",
    "PredictConfig",
    "RunConfig",
    "WeightsConfig",
    "as_arguments",
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
OWN_PHI_HELP = (
    "confirm the attention block of your own that the weights were trained with, as path/to/file.py:Class"
)
NAMED_WEIGHTS = "coco (the official Darknet weights), voc (ours for Pascal VOC), last (the newest best.pth)"
NETWORK_HELP = f"{NAMED_WEIGHTS}, or a .pth or .weights file"
WEIGHTS_HELP = f"{NETWORK_HELP}, or an .onnx, .xml or .param that export.py wrote"
DATA_HELP = "a VOCdevkit, a folder in VOC layout, or a folder of images with their XML"
SKIP_BAD_HELP = "leave out broken files (counted and named) instead of stopping"
UNLABELLED_HELP = "images without XML: skip (an error where a VOC list names them) or take as background"
EXIST_OK_HELP = "write into PROJECT/NAME even when it exists"
NAME_HELP = "name of the run's folder; exp2, exp3 ... where it is taken"
DEVICE_HELP = "auto (CUDA when there is one, else CPU), cpu, cuda, cuda:1 or mps"
ALL_CLASSES = "all"  # what --heatmap without a value stands for
CLASSES_HELP = "file with the class names, one a line, in the order of the labels"


@dataclass(frozen=True)
class DataConfig:
    """The settings of every command that reads labelled data."""

    data: str = setting("VOCdevkit", DATA_HELP, metavar="DIR")
    classes: str | None = setting(
        None, f"{CLASSES_HELP} (default: those of the data)", group="data", metavar="FILE"
    )
    rename: tuple[str, ...] | None = setting(
        None,
        "read classes of the annotations under other names, which merges them: Cat=cat kitten=cat",
        group="data",
        nargs="+",
        metavar="OLD=NEW",
    )
    unlabelled: str = setting("skip", UNLABELLED_HELP, group="data", choices=("skip", "background"))
    skip_bad: bool = setting(False, SKIP_BAD_HELP, group="data")

    @property
    def renames(self) -> dict[str, str]:
        """The new name of each class that has one."""
        return parse_renames(self.rename or ())

    def reading(self) -> dict[str, Any]:
        """Return how data are read, as `prepare_training` and `prepare_evaluation` take it."""
        return {
            "classes": self.classes,
            "renames": self.renames,
            "unlabelled": self.unlabelled,
            "skip_bad": self.skip_bad,
        }

    def data_arguments(self) -> list[str]:
        """Return the arguments that name these data to another command."""
        usual = {field.name: field.default for field in dataclasses.fields(DataConfig)}
        told = {name: getattr(self, name) for name, value in usual.items() if getattr(self, name) != value}
        return as_arguments(DataConfig, {"data": self.data} | told)

    def check_data(self) -> None:
        """Refuse nonsense; the UserError names the flag."""
        check_settings(self)
        parse_renames(self.rename or ())


@dataclass(frozen=True)
class WeightsConfig:
    """The settings of every command that takes a trained network."""

    weights: str = setting("coco", WEIGHTS_HELP, metavar="FILE")
    imgsz: tuple[int, int] | None = setting(
        None,
        "side of the network's input in pixels, or height and width (default: the weights' own)",
        nargs="+",
        metavar="N",
    )
    phi: str | None = setting(None, OWN_PHI_HELP, group="network", aliases=("--attention",))

    def check_weights(self) -> None:
        """Refuse nonsense; the UserError names the flag."""
        check_imgsz(self.imgsz)
        object.__setattr__(self, "phi", phi_name(self.phi))


@dataclass(frozen=True)
class RunConfig:
    """The settings of every command that makes a folder for what it writes."""

    project: str = setting("runs", "folder of the runs", group="output", metavar="DIR")
    name: str = setting("exp", NAME_HELP, group="output")
    exist_ok: bool = setting(False, EXIST_OK_HELP, group="output")


@dataclass(frozen=True)
class EvaluateConfig(RunConfig, DataConfig, WeightsConfig):
    """Settings of evaluate.py; each field's help says what it is.

    Raises:
        UserError: a value makes no sense; the message names the flag.
    """

    split: tuple[str, ...] | None = setting(
        None, "splits to evaluate, such as VOC2007/test (default: test, else val)", nargs="+", metavar="SPLIT"
    )
    batch_size: int = setting(8, "images at a time", metavar="N", within="[1, 65536]")
    device: str = setting("auto", DEVICE_HELP)
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
    report_conf: float = setting(
        0.25,
        "score at which precision, recall, F1 and the confusion matrix are reported",
        group="detection",
        metavar="X",
        within="[0, 1]",
    )
    classes: str | None = setting(
        None, f"{CLASSES_HELP} (default: those of the weights)", group="data", metavar="FILE"
    )
    project: str = setting("runs/evaluate", "folder of the runs", group="output", metavar="DIR")

    def __post_init__(self) -> None:
        self.check_data()
        self.check_weights()


@dataclass(frozen=True)
class PredictConfig(RunConfig, WeightsConfig):
    """Settings of predict.py; each field's help says what it is.

    Raises:
        UserError: a value makes no sense; the message names the flag.
    """

    weights: str = setting("voc", WEIGHTS_HELP, metavar="FILE")
    sources: tuple[str, ...] = setting(
        (),
        "image, video, folder, glob, camera number or stream URL; several may be given",
        positional=True,
        nargs="*",
        metavar="SOURCE",
    )
    conf: float = setting(0.25, "lowest score shown", metavar="X", within="[0, 1]")
    nms_iou: float = setting(
        0.5, "overlap from which the weaker box of a class goes", metavar="X", within="[0, 1]"
    )
    max_det: int = setting(100, "most detections an image", metavar="N", within="[1, 100000]")
    only: tuple[str, ...] | None = setting(None, "keep these classes", nargs="+", metavar="NAME")
    batch_size: int = setting(1, "images at a time", metavar="N", within="[1, 65536]")
    device: str = setting("auto", DEVICE_HELP)
    json: str | None = setting(None, "write the detections here, a JSON object a line", metavar="FILE")
    xml: str | None = setting(
        None,
        "write VOC XML here, which labelImg opens and train.py reads; may be the images' folder",
        metavar="DIR",
    )
    txt: str | None = setting(
        None, "write YOLO's label files here: class cx cy w h a line, and classes.txt", metavar="DIR"
    )
    crop: bool = setting(False, "a picture more an object: crops/CLASS/IMAGE_N.jpg in the run's folder")
    count: bool = setting(False, "print how many objects of each class there are in all")
    heatmap: str | None = setting(
        None,
        "a picture more an image: what raises the scores of the detections, or of CLASS alone",
        nargs="?",
        bare=ALL_CLASSES,
        metavar="[CLASS]",
    )
    attention_maps: bool = setting(False, "a picture more an image: the gates of the attention blocks")
    view: bool = setting(False, "show the pictures in a window; q ends")
    fps: int | None = setting(
        None, "measure N runs on the first picture and write nothing", metavar="N", within="[1, 1000000]"
    )
    save: bool = setting(True, "write no pictures")

    classes: str | None = setting(
        None, f"{CLASSES_HELP} (default: those of the weights)", group="detection", metavar="FILE"
    )
    txt_scores: bool = setting(False, "end the lines of --txt with the score", group="output")
    project: str = setting("runs/predict", "folder of the runs", group="output", metavar="DIR")

    def __post_init__(self) -> None:
        check_settings(self)
        self.check_weights()
        self._check_outputs()
        if not self.sources and self.heatmap not in (None, ALL_CLASSES):
            raise UserError(
                f"SOURCE: nothing to look at; --heatmap took {self.heatmap} for its class, so write the "
                f"sources first: python predict.py {self.heatmap} --heatmap"
            )
        if not self.sources and self.only:
            raise UserError(
                f"SOURCE: nothing to look at; --only took {' '.join(self.only)}, so write the sources first: "
                f"python predict.py photo.jpg --only {self.only[0]}"
            )
        if not self.sources:
            raise UserError(
                "SOURCE: nothing to look at; name an image, a video or a folder: python predict.py photo.jpg"
            )
        if "" in self.sources:
            raise UserError("SOURCE '': is empty")

    def _check_outputs(self) -> None:
        """Refuse outputs that exclude each other; the UserError names the flags."""
        asked = {"--heatmap": self.heatmap is not None, "--attention-maps": self.attention_maps}
        pictures = [flag for flag, wanted in {**asked, "--crop": self.crop}.items() if wanted]
        if not self.save and pictures:
            raise UserError(
                f"--no-save: writes no pictures, and {pictures[0]} asks for one; leave one of them out"
            )
        written = {"--json": self.json, "--xml": self.xml, "--txt": self.txt, "--crop": self.crop or None}
        files = [flag for flag, place in written.items() if place is not None]
        shown = {**asked, "--view": self.view, "--count": self.count}
        unmeasured = [*files, *(flag for flag, wanted in shown.items() if wanted)]
        if self.fps is not None and unmeasured:
            raise UserError(f"--fps: measures and shows nothing; leave {unmeasured[0]} out")
        if self.txt_scores and self.txt is None:
            raise UserError("--txt-scores: there is nothing to write them into; add --txt DIR")


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
