"""One way from whatever `--weights` names to a network with its classes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from nets.attention import attention_name, same_attention
from nets.yolo import ModelConfig, YoloBody
from utils.classes import MODEL_DATA, read_class_names
from utils.errors import UserError
from utils.weights.checkpoint import load_checkpoint
from utils.weights.darknet import read_darknet
from utils.weights.fetch import ensure_coco_weights

RUNS = Path("runs/train")


@dataclass(frozen=True)
class LoadedModel:
    """A network in eval mode on the CPU, what defines it, the names of its classes and its file."""

    model: YoloBody
    config: ModelConfig
    class_names: tuple[str, ...]
    path: Path


def load_model(
    weights: str, *, classes: tuple[str, ...] | None = None, phi: str | None = None
) -> LoadedModel:
    """Load a network.

    Args:
        weights: "coco" (the official weights, fetched when missing), "last" (the newest best.pth under
            runs/train), a `.pth` of ours, or a Darknet `.weights`.
        classes: names for a file that holds none; must be as many as it has classes.
        phi: confirms the attention block of the file; required when it is a block of the user's own, since
            loading imports code only when the caller names it.

    Raises:
        UserError: the file cannot be used; the message says what to do.
    """
    path = find_weights(weights)
    if path.suffix == ".weights":
        loaded = _load_darknet(path, classes)
    elif path.suffix in (".pth", ".pt"):
        loaded = _load_own(path, classes, phi)
    else:
        raise UserError(
            f"{path}: unknown kind of weights; give coco, last, a .pth of ours or a Darknet .weights file"
        )
    if phi is not None and not same_attention(phi, loaded.config.phi):
        raise UserError(
            f"{path}: was made with attention={loaded.config.phi}, you asked for {attention_name(phi)}"
        )
    return loaded


def find_newest(name: str) -> Path | None:
    """Return the newest weights file of that name among the runs under runs/train, or None."""
    return max(RUNS.glob(f"*/weights/{name}"), key=lambda path: path.stat().st_mtime, default=None)


def find_weights(weights: str) -> Path:
    """Return the file that `--weights` names, fetching the official one when it is missing."""
    if weights == "coco":
        return ensure_coco_weights()
    if weights == "last":
        newest = find_newest("best.pth")
        if newest is None:
            raise UserError(
                f"--weights last: no run with weights/best.pth in {RUNS}; train first, or name a file"
            )
        return newest
    path = Path(weights)
    if not path.is_file():
        raise UserError(f"{path}: no such weights file; --weights takes coco, last or a file")
    return path


def _load_darknet(path: Path, classes: tuple[str, ...] | None) -> LoadedModel:
    darknet = read_darknet(path)
    known = {80: "coco_classes.txt", 20: "voc_classes.txt"}.get(darknet.num_classes)
    if classes is None and known is None:
        raise UserError(
            f"{path}: has {darknet.num_classes} classes without names; name them with --classes FILE"
        )
    names = classes or read_class_names(MODEL_DATA / str(known))
    _check_count(path, darknet.num_classes, names)
    model = YoloBody(ModelConfig(darknet.num_classes))
    model.load_state_dict(darknet.state_dict)
    return LoadedModel(model.eval(), model.config, names, path)


def _load_own(path: Path, classes: tuple[str, ...] | None, phi: str | None) -> LoadedModel:
    checkpoint = load_checkpoint(path)
    config = checkpoint.config
    if ":" in config.phi:
        if phi is None or not same_attention(phi, config.phi):
            raise UserError(
                f"{path}: has a block of your own; to let its code be imported add --phi {config.phi}"
            )
        config = dataclasses.replace(config, phi=phi)  # the file may lie elsewhere now
    _check_count(path, config.num_classes, classes or checkpoint.class_names)
    try:
        model = YoloBody(config)
        model.load_state_dict(checkpoint.weights)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: its weights do not fit its own description: {reason}") from None
    return LoadedModel(model.eval(), config, classes or checkpoint.class_names, path)


def _check_count(path: Path, num_classes: int, names: tuple[str, ...]) -> None:
    if len(names) != num_classes:
        raise UserError(f"{path}: has {num_classes} classes, but {len(names)} names were given")
