"""The settings of export.py."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from utils.cli.errors import UserError
from utils.cli.parser import setting
from utils.cli.shared_config import (
    CLASSES_HELP,
    DATA_HELP,
    NETWORK_HELP,
    DataConfig,
    RunConfig,
    WeightsConfig,
)

MADE_PICTURES = "demo"  # what --data stands for when it is not given
_MOST_IMAGES = 1024  # of a fixed batch; the check runs as many at once


@dataclass(frozen=True)
class ExportConfig(RunConfig, DataConfig, WeightsConfig):
    """Settings of export.py; each field's help says what it is.

    Raises:
        UserError: a value makes no sense; the message names the flag.
    """

    weights: str = setting("coco", NETWORK_HELP, metavar="FILE")
    format: tuple[str, ...] = setting(
        ("onnx",),
        "onnx, openvino (.xml and .bin), ncnn (.param and .bin), darknet (.weights and .cfg), published "
        "(the reference's .pth) or pth (ours, without the training state); several may be given",
        choices=("onnx", "openvino", "ncnn", "darknet", "published", "pth"),
        nargs="+",
    )
    batch: str = setting(
        "1", "images at a time of the ONNX or OpenVINO model, or dynamic for any number", metavar="N"
    )
    nms: bool = setting(False, "let the ONNX model end in non-maximum suppression: boxes come out")
    half: bool = setting(False, "16-bit weights; the model takes and gives 32-bit values all the same")
    int8: bool = setting(
        False, "8-bit ONNX model, calibrated on the training split of --data and judged by mAP50 on --split"
    )
    data: str = setting(
        MADE_PICTURES,
        f"exports are compared with PyTorch on its pictures: demo (made ones), or {DATA_HELP}",
        group="data",
        metavar="DIR",
    )
    split: tuple[str, ...] | None = setting(
        None, "splits of --data (default: test, else val)", group="data", nargs="+", metavar="SPLIT"
    )
    classes: str | None = setting(
        None, f"{CLASSES_HELP} (default: those of the weights)", group="network", metavar="FILE"
    )
    project: str = setting("runs/export", "folder of the exports", group="output", metavar="DIR")

    def __post_init__(self) -> None:
        self.check_data()
        self.check_weights()
        self._check_needs()
        if len(set(self.format)) < len(self.format):
            raise UserError(f"--format {' '.join(self.format)}: names a format twice")
        number = int(self.batch) if self.batch.isdecimal() else 0
        if self.batch != "dynamic" and not 1 <= number <= _MOST_IMAGES:
            raise UserError(f"--batch {self.batch}: needs a number from 1 to {_MOST_IMAGES}, or dynamic")
        if self.batch != "1" and not {"onnx", "openvino"} & set(self.format):
            raise UserError(
                f"--batch {self.batch}: only ONNX and OpenVINO have it, neither of which --format names"
            )
        if self.half and "darknet" in self.format:
            raise UserError("--half: Darknet's format holds 32-bit values only; leave one of the two out")

    def _check_needs(self) -> None:
        """Refuse flags that need others; the UserError names them."""
        for flag, wanted in {"--nms": self.nms, "--int8": self.int8}.items():
            if wanted and "onnx" not in self.format:
                raise UserError(f"{flag}: only ONNX has it, which --format does not name")
        if self.int8 and self.half:
            raise UserError("--int8 and --half: are two sizes of the same weights; leave one of them out")
        if self.data != MADE_PICTURES:
            return
        if self.int8:
            raise UserError("--int8: is calibrated and judged on pictures; add --data DIR")
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        for name in ("split", "rename", "skip_bad", "unlabelled"):
            if getattr(self, name) != usual[name]:
                raise UserError(f"--{name.replace('_', '-')}: says how --data is read; add --data DIR")

    @property
    def batch_size(self) -> int | None:
        """Return how many images a model takes at a time, None for any number."""
        return None if self.batch == "dynamic" else int(self.batch)
