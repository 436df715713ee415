"""Settings that several commands share: data, weights, and the folder of a run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from nets.attention import attention_name
from nets.config import LARGEST_SIDE
from utils.cli.anchor_file import read_anchors
from utils.cli.class_names import parse_renames
from utils.cli.errors import UserError
from utils.cli.inputs import check_data_folder, locate_weights
from utils.cli.parser import as_arguments, check_settings, setting

_SMALLEST, _STEP = 32, 32  # of an input side in pixels; the network's largest stride
_FIXED_PRECISION = (".onnx", ".param")  # run by ONNX Runtime and ncnn
OWN_PHI_HELP = "your own attention block that the weights were trained with: path/to/file.py:Class"
NAMED_WEIGHTS = "coco (the official Darknet weights), voc (ours for Pascal VOC), last (the newest best.pth)"
NETWORK_HELP = f"{NAMED_WEIGHTS}, or a .pth or .weights file"
WEIGHTS_HELP = f"{NETWORK_HELP}, or an .onnx, .xml or .param that export.py wrote"
DATA_HELP = "a VOCdevkit, a VOC folder, images/ with annotations/, or images with XML beside them"
UNLABELLED_HELP = "images without XML: skip (an error if a VOC list names them), or background (no objects)"
SKIP_UNREVIEWED_HELP = (
    "skip objects with a score, as labeling tools write predictions that nobody has reviewed"
)
DEVICE_HELP = "auto (CUDA if available, else CPU), cpu, cuda, cuda:1 or mps"
AMP_HELP = (
    "mixed precision: the network in bfloat16 (float16 on a GPU without it); faster on a GPU, and on a CPU "
    "with fast bfloat16"
)
FLOAT_BOXES_HELP = "write exact boxes to the XML instead of whole pixels, which every program can read"
AUGMENT_LEVELS = ("light", "default", "reference")
AUGMENT_HELP = (
    f"augmentation: {', '.join(AUGMENT_LEVELS)}, a YAML or JSON file of albumentations, or a function that "
    "returns transforms: path/to/file.py:function"
)
CLASSES_HELP = "file of class names, one per line, in label order"


@dataclass(frozen=True)
class DataConfig:
    """Settings of every command that reads annotated data."""

    data: str = setting("VOCdevkit", DATA_HELP, metavar="DIR")
    classes: str | None = setting(
        None, f"{CLASSES_HELP} (default: from the data)", group="data", metavar="FILE"
    )
    rename: tuple[str, ...] | None = setting(
        None,
        "rename or merge classes of the annotations: Cat=cat kitten=cat",
        group="data",
        metavar="OLD=NEW",
    )
    unlabelled: str = setting("skip", UNLABELLED_HELP, group="data", choices=("skip", "background"))
    skip_bad: bool = setting(False, "skip broken files, named and counted, instead of stopping", group="data")
    skip_unreviewed: bool = setting(False, SKIP_UNREVIEWED_HELP, group="data")

    @property
    def renames(self) -> dict[str, str]:
        """The renamed classes: old name to new."""
        return parse_renames(self.rename or ())

    def data_arguments(self) -> list[str]:
        """Return the arguments with which another command reads the same data."""
        changed = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(DataConfig)
            if field.name == "data" or getattr(self, field.name) != field.default
        }
        return as_arguments(DataConfig, changed)

    def check_inputs(self) -> None:
        """Refuse a --data folder that does not exist, before anything slow is imported."""
        check_data_folder(self.data)

    def check_data(self) -> None:
        """Check the values; raises a UserError that names the flag."""
        check_settings(self)
        parse_renames(self.rename or ())


@dataclass(frozen=True)
class WeightsConfig:
    """Settings of every command that loads trained weights."""

    weights: str = setting("coco", WEIGHTS_HELP, metavar="FILE")
    imgsz: tuple[int, int] | None = setting(
        None, "input side in pixels, or height and width (default: from the weights)"
    )
    phi: str | None = setting(None, OWN_PHI_HELP, group="network", aliases=("--attention",))
    cfg: str | None = setting(
        None,
        "Darknet .cfg of a .weights file: classes, anchors, masks, input size (default: the one beside it)",
        group="network",
        metavar="FILE",
    )
    anchors: str | None = setting(
        None,
        "anchor file, as of train.py --anchors, for weights that do not say their anchors: a .weights file "
        "without a .cfg, or a published .pth",
        group="network",
        metavar="FILE",
    )

    def check_weight_files(self) -> None:
        """Check that weights, .cfg and anchor file can be read, before anything slow is imported."""
        locate_weights(self.weights)
        if self.cfg is not None and not Path(self.cfg).is_file():
            raise UserError(f"--cfg {self.cfg}: no such file")
        if self.anchors is not None:
            read_anchors(self.anchors)

    def check_weights(self) -> None:
        """Check the values; raises a UserError that names the flag."""
        check_imgsz(self.imgsz)
        object.__setattr__(self, "phi", phi_name(self.phi))


@dataclass(frozen=True)
class ViewsConfig:
    """Settings of every command that detects: how often it looks at an image."""

    tile: int | None = setting(
        None,
        "for small objects: a larger image also in overlapping squares of N pixels (default: the input size)",
        bare="0",
        metavar="[N]",
    )
    tile_overlap: float = setting(
        0.2, "share of a tile's side that neighbors have in common", group="detection", within="[0, 0.9]"
    )
    flip_test: bool = setting(
        False, "detect in the mirrored image too; takes twice the time", group="detection"
    )

    def check_views(self) -> None:
        """Check the values; raises a UserError that names the flag."""
        if self.tile is not None and self.tile != 0 and not _SMALLEST <= self.tile <= LARGEST_SIDE:
            rule = f"must be from {_SMALLEST} to {LARGEST_SIDE} pixels, or 0 for the input size"
            raise UserError(f"--tile {self.tile}: {rule}")
        if self.tile is None and self.tile_overlap != ViewsConfig.tile_overlap:
            raise UserError("--tile-overlap: needs --tile")


@dataclass(frozen=True)
class RunConfig:
    """Settings of every command that writes a run folder."""

    project: str = setting("runs", "parent folder of the runs", group="output", metavar="DIR")
    name: str = setting("exp", "name of the run's folder; exp2, exp3 ... if it exists", group="output")
    exist_ok: bool = setting(False, "write into PROJECT/NAME even if it exists", group="output")


def phi_name(phi: str | None) -> str | None:
    """Return the name of the block that --phi gives; raises a UserError for an unknown one."""
    try:
        return None if phi is None else attention_name(phi)
    except ValueError as error:
        raise UserError(f"--phi {phi}: {error}") from None


def is_pipeline_file(augment: str) -> bool:
    """Tell whether --augment names a file of albumentations, not a level or the user's code."""
    return Path(augment).suffix.lower() in (".yaml", ".yml", ".json")


def check_augment(augment: str) -> None:
    """Check the form of --augment; raises a UserError that lists what it takes."""
    if augment not in AUGMENT_LEVELS and ":" not in augment and not is_pipeline_file(augment):
        raise UserError(
            f"--augment {augment}: choose from {', '.join(AUGMENT_LEVELS)}, or give your own: FILE.yaml, "
            "FILE.json, path/to/file.py:function or package.module:function"
        )


def check_augment_file(augment: str | None) -> None:
    """Refuse a file of --augment that does not exist, before anything slow is imported."""
    if augment is not None and is_pipeline_file(augment) and not Path(augment).is_file():
        raise UserError(f"--augment {augment}: no such file; check the path")


def check_amp(amp: bool, weights: Path | str) -> None:
    """Check that --amp has an effect on a file of weights; raises a UserError for other exported models."""
    if amp and Path(weights).suffix.lower() in _FIXED_PRECISION:
        raise UserError(
            f"--amp: {weights} computes in the number type that it was exported with; leave --amp out"
        )


def check_imgsz(imgsz: tuple[int, int] | None) -> None:
    """Check that the network can take an --imgsz; the UserError names the nearest sizes."""
    if imgsz is None or all(_SMALLEST <= side <= LARGEST_SIDE and side % _STEP == 0 for side in imgsz):
        return
    nearest = []
    for side in imgsz:
        below = min(max(side // _STEP * _STEP, _SMALLEST), LARGEST_SIDE)
        nearest.append(
            f"{below} or {below + _STEP}" if below < side < LARGEST_SIDE and side % _STEP else str(below)
        )
    shown, advice = " ".join(map(str, dict.fromkeys(imgsz))), ", ".join(dict.fromkeys(nearest))
    rule = f"sides are multiples of {_STEP} from {_SMALLEST} to {LARGEST_SIDE} pixels"
    raise UserError(f"--imgsz {shown}: {rule}; nearest: {advice}")
