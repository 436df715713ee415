"""What is exported, and what every exported model says of itself."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nets.config import ModelConfig
from nets.yolo import YoloBody
from utils.cli.errors import UserError
from utils.cli.predict_config import PredictConfig
from utils.inference.exported_model import DESCRIPTION_VERSION
from utils.vision.image_reader import Pixels
from utils.vision.letterbox import FILL

LABELS = "labels.txt"


@dataclass(frozen=True)
class Quantization:
    """What an 8-bit model needs.

    Attributes:
        pictures: what the ranges of the values are measured on, Tensor[1, 3, H, W] in [0, 1] each.
        judge: returns the mAP50 of a network on the split that decides.
    """

    pictures: Iterable[Tensor]
    judge: Callable[[nn.Module], float]


@dataclass(frozen=True)
class ExportJob:
    """A network on its way out.

    Attributes:
        model: in eval mode on the CPU, float32: what every export is compared with.
        config: defines it, with the input size of the export.
        class_names: the names behind the labels.
        source: the file that the weights came from; exports take its stem.
        batch: images at a time of a format that fixes it, None for any number.
        half: whether weights become 16-bit.
        ends_in_nms: whether an ONNX model gives detections, not raw heads.
        pictures: uint8 (H, W, 3) RGB each, in which every export has to find what the network finds.
        quantization: what makes an ONNX model 8-bit, None for a model of floats.
    """

    model: YoloBody
    config: ModelConfig
    class_names: tuple[str, ...]
    source: Path
    batch: int | None = 1
    half: bool = False
    ends_in_nms: bool = False
    pictures: tuple[Pixels, ...] = ()
    quantization: Quantization | None = None

    def for_format(self, name: str) -> ExportJob:
        """Return the job as a format takes it: only ONNX ends in NMS or holds 8 bits."""
        return self if name == "onnx" else dataclasses.replace(self, ends_in_nms=False, quantization=None)

    def notes(self, name: str) -> list[str]:
        """Return what of the settings a format does not take."""
        taken = self.for_format(name)
        lost = ["--nms"] if self.ends_in_nms != taken.ends_in_nms else []
        lost += ["--int8"] if self.quantization is not taken.quantization else []
        return [f"{name}: is exported without {flag}, which only ONNX takes" for flag in lost]

    def named(self, ending: str) -> str:
        """Return a file name: the stem of the weights with that ending."""
        return self.source.stem + ending

    def weights(self) -> dict[str, Tensor]:
        """Return the tensors of the network, the floating ones in 16 bits where that was asked for."""
        tensors = self.model.state_dict()
        if not self.half:
            return tensors
        return {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}

    def shared_config(self) -> ModelConfig:
        """Return the config without the folders of this machine: a block's own file is known by its name."""
        return dataclasses.replace(self.config, phi=Path(self.config.phi).name)

    def describe(self) -> dict[str, Any]:
        """Return what whoever runs the model must know, as plain values."""
        return {
            "format_version": DESCRIPTION_VERSION,
            "class_names": list(self.class_names),
            "input_size": list(self.config.input_size),  # height, width
            "anchors": [list(anchor) for anchor in self.config.anchors],
            "anchor_masks": [list(mask) for mask in self.config.anchor_masks],
            "scale_x_y": self.config.scale_x_y,
            "phi": self.shared_config().phi,
            "channels": "RGB",
            "range": [0, 1],
            "letterbox": {"fill": FILL, "keeps_aspect": True, "centerd": True, "interpolation": "bilinear"},
            "conf": PredictConfig.conf,
            "nms_iou": PredictConfig.nms_iou,
            "max_det": PredictConfig.max_det,
        }

    def has_usual_anchors(self) -> bool:
        """Tell whether anchors and masks are those that a file without them stands for."""
        usual = ModelConfig(1)
        return (self.config.anchors, self.config.anchor_masks) == (usual.anchors, usual.anchor_masks)

    def is_official(self) -> bool:
        """Tell whether boxes are decoded as in yolov4-tiny.cfg."""
        return self.has_usual_anchors() and self.config.scale_x_y == ModelConfig(1).scale_x_y

    def predict_command(self, folder: Path, ending: str, *, has_config: bool) -> list[str]:
        """Return the command that finds objects with an export of ours.

        Args:
            folder: where the export lies.
            ending: of the model's file.
            has_config: whether the file itself holds class names, input size and attention.
        """
        command = ["python", "predict.py", "photo.jpg", "--weights", str(folder / self.named(ending))]
        if has_config:
            return command + (["--phi", self.config.phi] if ":" in self.config.phi else [])
        command += ["--classes", str(folder / LABELS)]
        if self.config.input_size != ModelConfig(1).input_size:
            command += ["--imgsz", *map(str, self.config.input_size)]
        return command


def hold_packages(name: str, packages: Iterable[str]) -> None:
    """Hold that the packages that a format needs can be imported; a UserError says how to get them."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(
                f"--format {name}: cannot import {package} ({error}); pip install -r requirements-export.txt"
            ) from None
