"""The settings of export.py."""

from __future__ import annotations

from dataclasses import dataclass

from utils.config import CLASSES_HELP, NETWORK_HELP, RunConfig, WeightsConfig
from utils.errors import UserError
from utils.settings import check_settings, setting

_MOST_IMAGES = 1024  # of a fixed batch; the check runs as many at once


@dataclass(frozen=True)
class ExportConfig(RunConfig, WeightsConfig):
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
    half: bool = setting(False, "16-bit weights; the model takes and gives 32-bit values all the same")
    classes: str | None = setting(
        None, f"{CLASSES_HELP} (default: those of the weights)", group="network", metavar="FILE"
    )
    project: str = setting("runs/export", "folder of the exports", group="output", metavar="DIR")

    def __post_init__(self) -> None:
        check_settings(self)
        self.check_weights()
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

    @property
    def batch_size(self) -> int | None:
        """Return how many images a model takes at a time, None for any number."""
        return None if self.batch == "dynamic" else int(self.batch)
