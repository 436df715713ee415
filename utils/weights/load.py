"""One way from whatever `--weights` names to what is in it, and to a network with its classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from torch import Tensor

from nets.attention import attention_name, same_attention
from nets.config import ModelConfig
from nets.yolo import YoloBody
from utils.cli.class_names import MODEL_DATA, choose_class_names, read_class_names
from utils.cli.errors import UserError
from utils.cli.inputs import locate_weights
from utils.weights.checkpoint import parse_checkpoint, read_content
from utils.weights.darknet import is_darknet, read_darknet
from utils.weights.fetch import ensure_coco_weights, is_official
from utils.weights.fit import fit_tensors
from utils.weights.own_block import build_network
from utils.weights.published import read_published


@dataclass(frozen=True)
class WeightsFile:
    """What a file of weights holds, of whichever kind it is.

    Attributes:
        path: the file.
        config: defines the network that the tensors belong to.
        class_names: the names of its classes, None where the file has none.
        state_dict: tensors under the names of `YoloBody(config)`, and under others what has no place there.
        is_partial: the file is one of a network's first layers (Darknet's .conv.N).
    """

    path: Path
    config: ModelConfig
    class_names: tuple[str, ...] | None
    state_dict: Mapping[str, Tensor]
    is_partial: bool = False


@dataclass(frozen=True)
class LoadedModel:
    """A network in eval mode on the CPU, what defines it, the names of its classes and its file."""

    model: YoloBody
    config: ModelConfig
    class_names: tuple[str, ...]
    path: Path


def read_weights(weights: str) -> WeightsFile:
    """Read what `--weights` names: "coco", "voc", "last" (the newest best.pth under runs/train) or a file.

    A file is a `.pth` of ours or in the published layout, a Darknet `.weights` or a partial `.conv.N`.

    Raises:
        UserError: the file cannot be used; the message says what to do.
    """
    path = find_weights(weights)
    if is_darknet(path):
        darknet = read_darknet(path)
        config = ModelConfig(max(darknet.num_classes, 1))
        names = usual_class_names(80) if weights == "coco" or is_official(path) else None
        return WeightsFile(path, config, names, darknet.state_dict, darknet.is_partial)
    if path.suffix not in (".pth", ".pt"):
        raise UserError(
            f"{path}: unknown kind of weights; give coco, voc, last, a .pth file or a Darknet .weights or "
            ".conv.N"
        )
    content = read_content(path)
    if isinstance(content, dict) and "format_version" in content:
        checkpoint = parse_checkpoint(path, content)
        return WeightsFile(path, checkpoint.config, checkpoint.class_names, checkpoint.weights)
    if not _is_state_dict(content):
        inner = [
            key for key in ("state_dict", "model", "ema") if isinstance(content, dict) and key in content
        ]
        hint = f"; save what is under its {inner[0]!r} alone with torch.save" if inner else ""
        raise UserError(
            f"{path}: not a checkpoint of this project (no format_version), nor a plain state_dict{hint}"
        )
    config, state_dict = read_published(path, content)
    return WeightsFile(path, config, None, state_dict)


def load_model(
    weights: str, *, classes: tuple[str, ...] | None = None, phi: str | None = None
) -> LoadedModel:
    """Load a network, every tensor of it.

    Args:
        weights: what `read_weights` takes.
        classes: its class names; where None and the file has none: COCO's for 80 classes, VOC's for 20.
        phi: confirms the attention block of the file; required when it is a block of the user's own, since
            loading imports code only when the caller names it.

    Raises:
        UserError: the file cannot be used; the message says what to do.
    """
    file = read_weights(weights)
    if file.is_partial:
        raise UserError(
            f"{file.path}: holds the first layers only; train from it: train.py --weights {file.path}"
        )
    names = choose_class_names(file.path, file.class_names, classes)
    names = names or usual_class_names(file.config.num_classes)
    if names is None:
        raise UserError(
            f"{file.path}: has {file.config.num_classes} classes without names; name them with --classes FILE"
        )
    if len(names) != file.config.num_classes:
        raise UserError(
            f"{file.path}: has {file.config.num_classes} classes, but {len(names)} names were given"
        )
    config = dataclasses.replace(file.config, phi=confirm_phi(file, phi))
    model = _build(config, file.path)
    fit = fit_tensors(model.state_dict(), file.state_dict)
    if not fit.is_exact:
        raise UserError(f"{file.path}: its weights do not fit its own description: {fit.summary()}")
    model.load_state_dict(file.state_dict)
    return LoadedModel(model.eval(), config, names, file.path)


def confirm_phi(file: WeightsFile, phi: str | None) -> str:
    """Return the spec to build the attention from: the file's, or the caller's for a block of their own.

    Raises:
        UserError: the caller did not name the file's own block, or names another one.
    """
    own = file.config.phi
    if ":" in own and (phi is None or not same_attention(phi, own)):
        raise UserError(f"{file.path}: has a block of your own; to let its code be imported add --phi {own}")
    if phi is not None and not same_attention(phi, own):
        raise UserError(f"{file.path}: was made with attention={own}, you asked for {attention_name(phi)}")
    return phi if phi is not None and ":" in own else own  # the file of the block may lie elsewhere now


def usual_class_names(num_classes: int) -> tuple[str, ...] | None:
    """Return COCO's names for 80 classes, VOC's for 20, else None."""
    known = {80: "coco_classes.txt", 20: "voc_classes.txt"}.get(num_classes)
    return read_class_names(MODEL_DATA / known) if known else None


def find_weights(weights: str) -> Path:
    """Return the file that `--weights` names, fetching the official one when it is missing.

    Raises:
        UserError: there is no such file, or it cannot be fetched.
    """
    return ensure_coco_weights() if weights == "coco" else locate_weights(weights)


def _is_state_dict(content: object) -> TypeGuard[dict[str, Tensor]]:
    return (
        isinstance(content, dict)
        and len(content) > 0
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
    )


def _build(config: ModelConfig, path: Path) -> YoloBody:
    try:
        return build_network(config)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
