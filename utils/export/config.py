"""The settings of export.py."""

from __future__ import annotations

from dataclasses import dataclass

from utils.config import check_imgsz, phi_name
from utils.errors import UserError
from utils.settings import check_settings, setting

_MOST_IMAGES = 1024  # of a fixed batch; the check runs as many at once


@dataclass(frozen=True)
class ExportConfig:
    """Settings of export.py; each field's help says what it is.

    Raises:
        UserError: a value makes no sense; the message names the flag.
    """

    weights: str = setting(
        "coco",
        "coco (the official Darknet weights), last (the newest best.pth), or a .pth or .weights file",
        metavar="FILE",
    )
    format: tuple[str, ...] = setting(
        ("onnx",),
        "onnx, darknet (.weights and .cfg), published (the reference's .pth) or pth (ours, without the "
        "training state); several may be given",
        choices=("onnx", "darknet", "published", "pth"),
        nargs="+",
    )
    imgsz: tuple[int, int] | None = setting(
        None,
        "side of the network's input in pixels, or height and width (default: the weights' own)",
        nargs="+",
        metavar="N",
    )
    batch: str = setting("1", "images at a time of the ONNX model, or dynamic for any number", metavar="N")
    half: bool = setting(False, "16-bit weights; ONNX takes and gives 32-bit values all the same")
    classes: str | None = setting(
        None,
        "file with the class names, one a line, in the order of the labels (default: those of the weights)",
        group="network",
        metavar="FILE",
    )
    phi: str | None = setting(
        None,
        "confirm the attention block of your own that the weights have, as path/to/file.py:Class",
        group="network",
        aliases=("--attention",),
    )
    project: str = setting("runs/export", "folder of the exports", group="output", metavar="DIR")
    name: str = setting(
        "exp", "name of the export's folder; exp2, exp3 ... where it is taken", group="output"
    )
    exist_ok: bool = setting(False, "write into PROJECT/NAME even when it exists", group="output")

    def __post_init__(self) -> None:
        check_settings(self)
        check_imgsz(self.imgsz)
        object.__setattr__(self, "phi", phi_name(self.phi))
        if len(set(self.format)) < len(self.format):
            raise UserError(f"--format {' '.join(self.format)}: names a format twice")
        number = int(self.batch) if self.batch.isdecimal() else 0
        if self.batch != "dynamic" and not 1 <= number <= _MOST_IMAGES:
            raise UserError(f"--batch {self.batch}: needs a number from 1 to {_MOST_IMAGES}, or dynamic")
        if self.batch != "1" and "onnx" not in self.format:
            raise UserError(f"--batch {self.batch}: only ONNX has it, which --format does not name")
        if self.half and "darknet" in self.format:
            raise UserError("--half: Darknet's format holds 32-bit values only; leave one of the two out")

    @property
    def batch_size(self) -> int | None:
        """Return how many images the ONNX model takes at a time, None for any number."""
        return None if self.batch == "dynamic" else int(self.batch)
