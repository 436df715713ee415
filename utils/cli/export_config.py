"""Settings of export.py."""

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

DEMO_IMAGES = "demo"  # the default of --data
FORMAT_NAMES = ("onnx", "openvino", "ncnn", "darknet", "published", "pth")
_MAX_BATCH = 1024  # the check runs as many at once


@dataclass(frozen=True)
class ExportConfig(RunConfig, DataConfig, WeightsConfig):
    """Settings of export.py; raises a UserError that names the flag of an invalid value."""

    weights: str = setting("coco", NETWORK_HELP, metavar="FILE")
    format: tuple[str, ...] | None = setting(
        None,
        "onnx, openvino (.xml and .bin), ncnn (.param and .bin), darknet (.weights and .cfg), published "
        "(the reference's .pth) or pth (ours, without the training state) (default: onnx)",
        choices=FORMAT_NAMES,
    )
    compare: bool = setting(
        False,
        "also measure size, milliseconds and (with --data) mAP of each format; without --format of all that "
        "can be exported here",
    )
    batch: str = setting("1", "batch size of the ONNX or OpenVINO model: a number, or dynamic", metavar="N")
    opset: int | None = setting(
        None, "opset of the ONNX model, for an older runtime (default: the lowest that the network needs)"
    )
    nms: bool = setting(False, "append decoding and non-maximum suppression to the ONNX model")
    half: bool = setting(False, "16-bit weights; inputs and outputs stay 32-bit")
    int8: bool = setting(
        False, "8-bit ONNX model, calibrated on the training split of --data, checked by mAP50 on --split"
    )
    data: str = setting(
        DEMO_IMAGES,
        f"images on which exports are compared with PyTorch: demo (drawn ones), or {DATA_HELP}",
        group="data",
        metavar="DIR",
    )
    split: tuple[str, ...] | None = setting(
        None, "splits of --data (default: test, else val)", group="data", metavar="SPLIT"
    )
    classes: str | None = setting(
        None, f"{CLASSES_HELP} (default: from the weights)", group="network", metavar="FILE"
    )
    project: str = setting("runs/export", "parent folder of the exports", group="output", metavar="DIR")

    def __post_init__(self) -> None:
        self.check_data()
        self.check_weights()
        self._check_needs()
        if len(set(self.formats)) < len(self.formats):
            raise UserError(f"--format {' '.join(self.formats)}: names a format twice")
        number = int(self.batch) if self.batch.isdecimal() and len(self.batch) <= 4 else 0
        if self.batch != "dynamic" and not 1 <= number <= _MAX_BATCH:
            raise UserError(f"--batch {self.batch}: needs a number from 1 to {_MAX_BATCH}, or dynamic")
        if self.batch != "1" and not {"onnx", "openvino"} & set(self.formats):
            raise UserError(f"--batch {self.batch}: only for ONNX and OpenVINO; add one of them to --format")
        if self.compare and self.batch_size not in (1, None):
            raise UserError(
                f"--batch {self.batch}: --compare measures one image at a time; remove one of them"
            )

    def _check_needs(self) -> None:
        """Check for flags that need others; the UserError names them."""
        flags = {"--nms": self.nms, "--int8": self.int8, "--opset": self.opset is not None}
        for flag, wanted in flags.items():
            if wanted and "onnx" not in self.formats:
                raise UserError(f"{flag}: only for ONNX; add onnx to --format")
        if self.int8 and self.half:
            raise UserError("--int8 and --half exclude each other; remove one of them")
        if self.data != DEMO_IMAGES:
            return
        if self.int8:
            raise UserError("--int8: needs images for calibration and evaluation; add --data DIR")
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        for name in ("split", "rename", "skip_bad", "skip_unreviewed", "unlabelled"):
            if getattr(self, name) != usual[name]:
                raise UserError(f"--{name.replace('_', '-')}: needs --data DIR")

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats to export to."""
        return self.format or (FORMAT_NAMES if self.compare else ("onnx",))

    @property
    def skips_formats(self) -> bool:
        """Whether a format that cannot be exported is skipped, as nobody has named it."""
        return self.format is None and self.compare

    @property
    def batch_size(self) -> int | None:
        """The model's batch size, None for any."""
        return None if self.batch == "dynamic" else int(self.batch)
