"""Our own `.pth` files: plain dicts of tensors, numbers and strings that load with `weights_only=True`.

`best.pth` is what one shares: the weights (of the EMA), the model config, the class names, the metrics.
`last.pth` holds beside that all that is needed to go on training.
"""

from __future__ import annotations

import dataclasses
import io
import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nets.config import ModelConfig
from utils.cli.errors import UserError
from utils.cli.files import atomic_write

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """The content of a `.pth` file.

    Attributes:
        config: defines the network.
        class_names: the name of each class, in the order of the labels.
        weights: state_dict of `YoloBody(config)`; the EMA's where there is one.
        metrics: what the weights reached on the selection split, plain numbers by name.
        run_config: the resolved settings of the run that made it.
        training: what resuming needs (raw weights, optimizer, epoch, ...); empty in a shareable file.
    """

    config: ModelConfig
    class_names: tuple[str, ...]
    weights: dict[str, Tensor]
    metrics: dict[str, Any] = field(default_factory=dict)
    run_config: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    def shareable(self) -> Checkpoint:
        """Return the same without what only resuming needs."""
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
    """Write a `.pth` file that `read_content` reads, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    buffer = io.BytesIO()  # a full disk is then an OSError of ours, not torch's complaint about its archive
    torch.save(content, buffer)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint onto the CPU without running any code that it may hold.

    Raises:
        UserError: the file is missing, damaged, or not one of ours.
    """
    return parse_checkpoint(path, read_content(path))


def parse_checkpoint(path: Path | str, content: object) -> Checkpoint:
    """Understand what `read_content` returned as one of our checkpoints.

    Raises:
        UserError: it is none, or not a whole one.
    """
    if not isinstance(content, dict) or "format_version" not in content:
        raise UserError(f"{path}: not a checkpoint of this project (it holds no format_version)")
    version = content.pop("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise UserError(
            f"{path}: format version {version}, this program reads up to {FORMAT_VERSION}; update it"
        )
    try:
        config = ModelConfig(**{name: _frozen(value) for name, value in content.pop("model_config").items()})
        names, weights = tuple(content.pop("class_names")), content.pop("weights")
        metrics, run_config = content.pop("metrics"), content.pop("run_config")
        broken = [name for name, value in weights.items() if not value.isfinite().all()]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not a whole checkpoint: {error}") from None
    if len(names) != config.num_classes:
        raise UserError(f"{path}: {len(names)} class names for {config.num_classes} classes")
    if broken:
        raise UserError(f"{path}: {broken[0]} holds values that are not finite; take another file")
    return Checkpoint(config, names, weights, metrics, run_config, training=content)


def read_content(path: Path | str) -> object:
    """Read any `.pth` file onto the CPU without running any code that it may hold.

    Raises:
        UserError: the file is missing, damaged, or holds more than plain values and tensors.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:  # torch.load does not compare the checksums
                if (damaged := archive.testzip()) is not None:
                    raise UserError(
                        f"{path}: damaged (checksum of {damaged} is wrong); fetch or copy it again"
                    )
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror or error}") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: refused: it is not a plain file of tensors and could run code when read"
        ) from None
    except (
        RuntimeError,
        EOFError,
        zipfile.BadZipFile,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
    ) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise UserError(f"{path}: damaged or not a checkpoint ({reason}); fetch or copy it again") from None


def _plain(value: Any) -> Any:
    """Turn tuples and paths into what a plain file holds."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _frozen(value: Any) -> Any:
    """Turn lists back into the tuples of a frozen config."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
