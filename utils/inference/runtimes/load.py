"""From the file of an exported model to something that is called like the network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from nets.attention import attention_name, same_attention
from nets.config import ModelConfig
from utils.cli.class_names import choose_class_names
from utils.cli.errors import UserError
from utils.inference.runtimes.ncnn_net import NcnnBackend
from utils.inference.runtimes.onnx_runtime import OnnxRuntimeBackend
from utils.inference.runtimes.open_vino import OpenVinoBackend
from utils.inference.runtimes.runtime import Backend
from utils.weights.load import find_weights

_BACKENDS: dict[str, Callable[[Path, str], Backend]] = {
    ".onnx": OnnxRuntimeBackend,
    ".xml": OpenVinoBackend,
    ".param": NcnnBackend,
}


@dataclasses.dataclass(frozen=True)
class ExportedModel:
    """A model in its runtime, what defines its network, the names of its classes and its file."""

    model: Backend
    config: ModelConfig
    class_names: tuple[str, ...]
    path: Path


def is_exported(path: str | Path) -> bool:
    """Tell by its ending whether a file is run by another runtime than PyTorch."""
    return Path(path).suffix.lower() in _BACKENDS


def load_exported(
    path: str | Path,
    *,
    classes: tuple[str, ...] | None = None,
    phi: str | None = None,
    input_size: tuple[int, int] | None = None,
    device: str = "auto",
) -> ExportedModel:
    """Load a model that export.py wrote.

    Args:
        path: the model's file.
        classes: other names for its classes.
        phi: confirms its attention block; no code is imported for it.
        input_size: (height, width) that is wanted; a model takes only its own.
        device: "auto", or what `choose_device` takes.

    Raises:
        UserError: it cannot be used so; the message says what to do.
    """
    path = find_weights(str(path))
    backend = _BACKENDS[path.suffix.lower()](path, device)
    config, own = backend.description.config, backend.description.class_names
    names = choose_class_names(path, own, classes) or own
    if len(names) != config.num_classes:
        raise UserError(f"{path}: has {config.num_classes} classes, but {len(names)} names were given")
    if phi is not None and not same_attention(phi, config.phi):
        raise UserError(f"{path}: was made with attention={config.phi}, you asked for {attention_name(phi)}")
    if input_size not in (None, config.input_size):
        wanted, usual = (" ".join(map(str, size)) for size in (input_size, config.input_size))
        raise UserError(
            f"--imgsz {wanted}: {path} takes {usual} only; leave --imgsz out, or export the weights with it"
        )
    return ExportedModel(backend, config, names, path)
