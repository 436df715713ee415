"""What all runtimes of exported models share: one call, and what a model says of itself."""

from __future__ import annotations

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
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
DETECTIONS = "detections"  # the output in place of the maps of a model that ends in NMS
THRESHOLDS = ("conf", "nms_iou", "max_det")  # its further inputs, which have default values
_TEXTS = ("phi", "channels")  # what metadata of strings hold as it is; the rest is JSON


@dataclass(frozen=True)
class Description:
    """What an exported model says of itself: what defines its network, and the names of its classes."""

    config: ModelConfig
    class_names: tuple[str, ...]


class Backend(nn.Module, ABC):
    """An exported model in a runtime; called like the network that it came from.

    Attributes:
        name: of the runtime, with its version.
        description: what the model says of itself.
        batch: how many images it takes at a time, None for any number.
        ends_in_nms: whether it gives detections, by `find`, and no raw maps.
        device: where decoding goes on; the maps are put there.
    """

    name: str
    description: Description
    batch: int | None
    ends_in_nms = False
    device: torch.device

    @abstractmethod
    def run(self, images: np.ndarray, **thresholds: float) -> list[np.ndarray]:
        """Map float32 images (batch, 3, H, W), contiguous, to the two raw maps in float32, coarse first.

        A model that ends in NMS gives one array (batch, D, 6) instead and takes `THRESHOLDS`.
        """

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) in [0, 1] to the two raw maps; a fixed batch is filled up with black."""
        return [torch.from_numpy(raw).to(images.device) for raw in self._run_all(images)]

    def find(self, images: Tensor, *, conf: float, nms_iou: float, max_det: int) -> list[Detections]:
        """Map images (B, 3, H, W) in [0, 1] to the detections of each, as `postprocess` gives them.

        Only for a model that ends in NMS; a score that equals `conf` is not found.
        """
        (found,) = self._run_all(images, conf=conf, nms_iou=nms_iou, max_det=max_det)
        rows = [torch.from_numpy(one[one[:, 4] > 0]) for one in found]  # (N, 6) each
        return [Detections(one[:, :4], one[:, 4], one[:, 5].long()) for one in rows]

    def _run_all(self, images: Tensor, **thresholds: float) -> list[np.ndarray]:
        pixels = np.ascontiguousarray(images.cpu().numpy())
        size = self.batch or len(pixels)
        starts = range(0, len(pixels), size)
        parts = [self.run(_fill(pixels[at : at + size], size), **thresholds) for at in starts]
        return [np.concatenate(output)[: len(pixels)] for output in zip(*parts, strict=True)]


def as_texts(described: Mapping[str, Any]) -> dict[str, str]:
    """Write a description as metadata of strings."""
    return {
        key: value if key in _TEXTS else json.dumps(value, ensure_ascii=False)
        for key, value in described.items()
    }


def from_texts(path: Path, texts: Mapping[str, str]) -> dict[str, Any]:
    """Read what `as_texts` wrote; other people's metadata become an empty description.

    Raises:
        UserError: the metadata are damaged.
    """
    if "format_version" not in texts:
        return {}
    try:
        return {key: value if key in _TEXTS else json.loads(value) for key, value in texts.items()}
    except ValueError as error:
        raise UserError(f"{path}: its metadata are damaged ({error}); export it again") from None


def parse_description(path: Path, described: object) -> Description:
    """Understand what `ExportJob.describe` told.

    Args:
        path: the model, for the messages.
        described: plain values by name.

    Raises:
        UserError: it tells nothing, not all, or the tale of a newer version.
    """
    version = described.get("format_version") if isinstance(described, Mapping) else None
    if not isinstance(described, Mapping) or version is None:
        raise UserError(
            f"{path}: does not say what its classes and anchors are, as models made by export.py do "
            "(no format_version); export the weights with export.py"
        )
    if not isinstance(version, int) or version > DESCRIPTION_VERSION:
        raise UserError(
            f"{path}: format version {version}, this program reads up to {DESCRIPTION_VERSION}; update it"
        )
    try:
        names = tuple(str(name) for name in described["class_names"])
        config = ModelConfig(
            len(names),
            phi=described["phi"],
            input_size=tuple(described["input_size"]),
            anchors=tuple(tuple(anchor) for anchor in described["anchors"]),
            anchor_masks=tuple(tuple(mask) for mask in described["anchor_masks"]),
            scale_x_y=described["scale_x_y"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: its description is not whole ({error!r}); export it again") from None
    return Description(config, names)


def import_runtime(package: str, path: Path) -> Any:
    """Import the package that runs a model.

    Raises:
        UserError: it is not there; says how to get it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"{path}: is run by {package}, which cannot be imported ({error}); "
            "pip install -r requirements-export.txt"
        ) from None


def choose_runtime_device(device: str, runtime: str, present: tuple[str, ...] = ("cpu",)) -> torch.device:
    """Turn the value of `--device` into a device that the runtime can use.

    Args:
        device: see `choose_device`; "auto" is the CPU where the runtime has nothing better.
        runtime: its name, for the message.
        present: the kinds of device that it can use.

    Raises:
        UserError: there is no such device here, or the runtime cannot use it.
    """
    place = choose_device(device)
    if place.type in present:
        return place
    if device == "auto":
        return torch.device("cpu")
    raise UserError(f"--device {device}: {runtime} runs on {', '.join(present)} only here; take --device cpu")


def _fill(images: np.ndarray, size: int) -> np.ndarray:
    missing = size - len(images)
    return (
        np.concatenate([images, np.zeros_like(images, shape=(missing, *images.shape[1:]))])
        if missing
        else images
    )


def reason_of(error: BaseException) -> str:
    """Return the first line of what a runtime says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip()
