"""Checkpoints (`.pth`): plain dicts of tensors, numbers and strings that load with `weights_only=True`.

`best.pth` is the file to share: the weights (of the EMA), the model config, the class names, the metrics.
`last.pth` also holds what resuming needs.
"""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import struct
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from nets.config import ModelConfig
from utils.cli.class_names import normalize_name
from utils.cli.errors import UserError
from utils.cli.files import atomic_write

FORMAT_VERSION = 1
# What torch and zipfile raise for a damaged file.
_DAMAGE = (
    *(RuntimeError, EOFError, zipfile.BadZipFile, struct.error),
    *(ValueError, LookupError, TypeError, AttributeError, AssertionError),
)


@dataclass(frozen=True)
class Checkpoint:
    """The content of a `.pth` file."""

    config: ModelConfig
    class_names: tuple[str, ...]  # in the order of the labels
    weights: dict[str, Tensor]  # state_dict of `YoloBody(config)`; the EMA's where there is one
    metrics: dict[str, Any] = field(default_factory=dict)  # on the selection split, plain numbers by name
    run_config: dict[str, Any] = field(default_factory=dict)  # the resolved settings of the training run
    # What resuming needs (raw weights, optimizer, epoch, ...); empty in a shareable file.
    training: dict[str, Any] = field(default_factory=dict)

    def shareable(self) -> Checkpoint:
        """Return the checkpoint without the training state."""
        return dataclasses.replace(self, training={})


def save_checkpoint(path: Path | str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    content = {
        "format_version": FORMAT_VERSION,
        "model_config": _plain(dataclasses.asdict(checkpoint.config)),
        "class_names": list(checkpoint.class_names),
        "weights": checkpoint.weights,
        "metrics": checkpoint.metrics,
        "run_config": _plain(checkpoint.run_config),
        **checkpoint.training,
    }
    write_content(path, content)


def write_content(path: Path | str, content: object) -> None:
    """Write a `.pth` file that `read_content` reads, whole or not at all; its tensors are on the CPU.

    Raises:
        UserError: the file cannot be written.
    """
    buffer = io.BytesIO()  # on a full disk, torch's own writer would raise no OSError
    torch.save(_on_cpu(content), buffer)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint onto the CPU without running any code in it.

    Raises:
        UserError: the file is missing, damaged, or not a checkpoint of this project.
    """
    return parse_checkpoint(path, read_content(path))


def is_checkpoint(content: object) -> TypeGuard[dict[str, Any]]:
    """Tell whether the content of a `.pth` file is a checkpoint of this project."""
    return isinstance(content, dict) and "format_version" in content


def parse_checkpoint(path: Path | str, content: object) -> Checkpoint:
    """Build the checkpoint from what `read_content` returned.

    Raises:
        UserError: it is no checkpoint of this project, or not complete.
    """
    if not is_checkpoint(content):
        raise UserError(f"{path}: not a checkpoint of this project (it has no format_version)")
    version = content.pop("format_version")
    if not isinstance(version, int):
        raise UserError(f"{path}: its format version is no number; use another file")
    if version > FORMAT_VERSION:
        raise UserError(f"{path}: format version {version}, newer than {FORMAT_VERSION}; update the program")
    try:
        config = ModelConfig(**{name: _frozen(value) for name, value in content.pop("model_config").items()})
        names, weights = tuple(map(_checked_name, content.pop("class_names"))), content.pop("weights")
        metrics, run_config = (_checked_dict(content.pop(name)) for name in ("metrics", "run_config"))
        broken = [name for name, value in weights.items() if not value.isfinite().all()]
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # of odd tensors, too
        (reason, *_) = str(error).splitlines() or [type(error).__name__]
        raise UserError(f"{path}: incomplete checkpoint: {reason}") from None
    if len(names) != config.num_classes:
        raise UserError(f"{path}: {len(names)} class names for {config.num_classes} classes")
    if broken:
        raise UserError(f"{path}: {broken[0]} has values that are not finite; use another file")
    return Checkpoint(config, names, weights, metrics, run_config, training=content)


def read_content(path: Path | str) -> object:
    """Read any `.pth` file onto the CPU without running any code in it.

    Raises:
        UserError: the file is missing, damaged, or not made of plain values and tensors.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:  # torch.load does not compare the checksums
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise UserError(
                        f"{path}: is compressed, unlike files of torch.save; zip it again with -0"
                    )
                if damaged := archive.testzip():
                    raise UserError(f"{path}: damaged (checksum of {damaged}); download or copy it again")
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror or error}") from None
    except pickle.UnpicklingError:
        raise UserError(f"{path}: refused: not a plain file of tensors; reading it could run code") from None
    except _DAMAGE as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise UserError(f"{path}: damaged or no checkpoint ({reason}); download or copy it again") from None


def _on_cpu(value: Any) -> Any:
    """Move the tensors in dicts, lists and tuples to the CPU, so that a file loads on any machine."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_on_cpu, value))
    return value


def _plain(value: Any) -> Any:
    """Convert tuples to lists and paths to strings."""
    return json.loads(json.dumps(value, default=str))


def _checked_dict(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"a {type(value).__name__} instead of settings or metrics")
    return value


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a {type(name).__name__} in class_names")
    return normalize_name(name)


def _frozen(value: Any) -> Any:
    """Convert lists back to the tuples of a frozen config; a TypeError for what no setting is."""
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if not isinstance(value, str | int | float | None):
        raise TypeError(f"a {type(value).__name__} in model_config")
    return value
