"""An exported model that is called like the network it came from, and the description in its file."""

from __future__ import annotations

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nets.config import ModelConfig
from nets.structures import Detections
from utils.cli.errors import UserError
from utils.inference.device import choose_device

DESCRIPTION_VERSION = 1
IMAGES, HEADS = "images", ("p5", "p4")  # names of the input and of the raw maps in the model
DETECTIONS = "detections"  # the output of a model that ends in NMS, in place of the raw maps
THRESHOLDS = ("conf", "nms_iou", "max_det")  # its other inputs, which have default values
_TEXTS = ("phi", "channels")  # stored as plain text in metadata; the rest is JSON


class ExportedModel(nn.Module, ABC):
    """An exported model, run by its runtime; called like the network that it came from.

    Attributes:
        name: the runtime and its version.
        path: the model's file.
        config: defines its network.
        class_names: the names of its classes.
        batch: how many images it takes at a time, None for any number.
        ends_in_nms: whether it returns detections, by `detect`, in place of raw maps.
        device: where the raw maps are decoded.
    """

    name: str
    path: Path
    config: ModelConfig
    class_names: tuple[str, ...]
    batch: int | None
    ends_in_nms = False
    device: torch.device

    @abstractmethod
    def run(self, images: np.ndarray, **thresholds: float) -> list[np.ndarray]:
        """Map float32 images (batch, 3, H, W), contiguous, to the two raw maps in float32, coarse first.

        A model that ends in NMS returns one array (batch, D, 6) instead and takes `THRESHOLDS`.
        """

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) in [0, 1] to the two raw maps; a fixed batch is padded with zeros."""
        return [torch.from_numpy(raw).to(images.device) for raw in self._run_batches(images)]

    def detect(self, images: Tensor, *, conf: float, nms_iou: float, max_det: int) -> list[Detections]:
        """Map images (B, 3, H, W) in [0, 1] to the detections of each, as `postprocess` returns them.

        Only for a model that ends in NMS; unlike elsewhere, a score must exceed `conf`.
        """
        (output,) = self._run_batches(images, conf=conf, nms_iou=nms_iou, max_det=max_det)
        rows = [torch.from_numpy(one[one[:, 4] > 0]) for one in output]  # (N, 6) each
        return [Detections(one[:, :4], one[:, 4], one[:, 5].long()) for one in rows]

    def _run_batches(self, images: Tensor, **thresholds: float) -> list[np.ndarray]:
        pixels = images.cpu().numpy()
        size = self.batch or len(pixels)
        padded = np.pad(pixels, ((0, -len(pixels) % size), (0, 0), (0, 0), (0, 0)))
        batches = np.ascontiguousarray(padded).reshape(-1, size, *pixels.shape[1:])
        parts = [self.run(batch, **thresholds) for batch in batches]
        return [np.concatenate(output)[: len(pixels)] for output in zip(*parts, strict=True)]

    def read_description(self, described: object) -> None:
        """Set `config` and `class_names` from what `ExportJob.describe` wrote.

        Args:
            described: plain values by name.

        Raises:
            UserError: there is no description, or it is incomplete or of a newer version.
        """
        version = described.get("format_version") if isinstance(described, Mapping) else None
        if not isinstance(described, Mapping) or version is None:
            raise UserError(
                f"{self.path}: does not say its classes and anchors (no format_version), so it was not made "
                "by export.py; export the weights with export.py"
            )
        if not isinstance(version, int) or version > DESCRIPTION_VERSION:
            raise UserError(
                f"{self.path}: format version {version}, this program reads up to {DESCRIPTION_VERSION}; "
                "update it"
            )
        try:
            self.class_names = tuple(str(name) for name in described["class_names"])
            self.config = ModelConfig(
                len(self.class_names),
                phi=described["phi"],
                input_size=tuple(described["input_size"]),
                anchors=tuple(tuple(anchor) for anchor in described["anchors"]),
                anchor_masks=tuple(tuple(mask) for mask in described["anchor_masks"]),
                scale_x_y=described["scale_x_y"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{self.path}: its description is incomplete ({error!r}); export it again"
            ) from None


def as_texts(described: Mapping[str, Any]) -> dict[str, str]:
    """Encode a description as metadata strings."""
    return {
        key: value if key in _TEXTS else json.dumps(value, ensure_ascii=False)
        for key, value in described.items()
    }


def from_texts(path: Path, texts: Mapping[str, str]) -> dict[str, Any]:
    """Decode what `as_texts` encoded; foreign metadata become an empty description.

    Raises:
        UserError: the metadata are damaged.
    """
    if "format_version" not in texts:
        return {}
    try:
        return {key: value if key in _TEXTS else json.loads(value) for key, value in texts.items()}
    except ValueError as error:
        raise UserError(f"{path}: its metadata are damaged ({error}); export it again") from None


def import_runtime(package: str, path: Path) -> Any:
    """Import the package that runs a model.

    Raises:
        UserError: it is missing; says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"{path}: needs {package}, which cannot be imported ({error}); "
            "pip install -r requirements-export.txt"
        ) from None


def choose_runtime_device(device: str, runtime: str, supported: tuple[str, ...] = ("cpu",)) -> torch.device:
    """Turn the value of `--device` into a device that the runtime supports; "auto" falls back to the CPU.

    Raises:
        UserError: there is no such device here, or the runtime does not support it.
    """
    chosen = choose_device(device)
    if chosen.type in supported:
        return chosen
    if device == "auto":
        return torch.device("cpu")
    raise UserError(
        f"--device {device}: {runtime} here supports only {', '.join(supported)}; use --device cpu"
    )
