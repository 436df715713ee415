"""Loading weights: from a `--weights` value to the content of the file, and to a network with its classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from torch import Tensor

from nets.attention import attention_name, same_attention
from nets.config import USUAL_ANCHORS, ModelConfig
from nets.yolo import YoloBody
from utils.cli.anchor_file import anchors_by_head, describe_anchors, read_anchors
from utils.cli.class_names import MODEL_DATA, choose_class_names, read_class_names
from utils.cli.console import plural
from utils.cli.errors import UserError
from utils.cli.inputs import locate_weights
from utils.weights.checkpoint import is_checkpoint, parse_checkpoint, read_content
from utils.weights.darknet import is_darknet, read_darknet
from utils.weights.darknet_cfg import find_beside, read_cfg
from utils.weights.fetch import ensure_coco_weights, is_official
from utils.weights.own_block import build_network
from utils.weights.published import read_published


@dataclass(frozen=True)
class WeightsFile:
    """The content of a weights file of any format."""

    path: Path
    config: ModelConfig  # defines the network of the tensors
    class_names: tuple[str, ...] | None  # None where the file has none
    state_dict: Mapping[str, Tensor]  # named as in `YoloBody(config)`; unknown tensors keep their names
    is_partial: bool = False  # the file holds the first layers only (Darknet's .conv.N)
    # The file that says the anchors: this one, a .cfg or an anchor file; None where the official are assumed.
    anchors_from: Path | None = None
    names_from: Path | None = None  # the .names file beside a Darknet file

    @property
    def anchors_origin(self) -> str:
        """Where the anchors come from, for a message."""
        if self.anchors_from is not None:
            return str(self.anchors_from)
        cfg = "put its .cfg beside it or " if is_darknet(self.path) else ""
        return f"official; {self.path.name} does not say its own: if it has others, {cfg}give --anchors FILE"


@dataclass(frozen=True)
class LoadedModel:
    """A network in eval mode on the CPU, its config, class names and file."""

    model: YoloBody
    config: ModelConfig
    class_names: tuple[str, ...]
    path: Path
    anchors_note: str = ""  # a line on the anchors in use, where the weights themselves do not say them
    names_from: Path | None = None  # the file that says the class names, where the weights themselves do not


@dataclass(frozen=True)
class Fit:
    """Comparison of a file's tensors with a network's, by name."""

    fitting: list[str]  # in both, with the same shape
    without_place: dict[str, str]  # in the file only, or with another shape; each with the reason
    missing: list[str]  # in the network only

    @property
    def is_exact(self) -> bool:
        """Tell whether file and network have the same tensors."""
        return not self.without_place and not self.missing

    def summary(self) -> str:
        """Return one line on what does not fit."""
        parts = []
        if self.without_place:
            shown = [f"{name} {reason}" for name, reason in self.without_place.items()]
            parts.append(f"{len(shown)} without a place ({_first(shown)})")
        if self.missing:
            parts.append(f"{len(self.missing)} missing ({_first(self.missing)})")
        return f"{len(self.fitting)} tensors fit, {', '.join(parts) or 'all'}"


def fit_tensors(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Fit:
    """Compare a network's tensors with a file's, by name and shape."""
    without_place = {}
    for name, value in theirs.items():
        if name not in ours:
            without_place[name] = "has no place in this network"
        elif ours[name].shape != value.shape:
            found, expected = tuple(value.shape), tuple(ours[name].shape)
            without_place[name] = f"has shape {found}, the network takes {expected}"
    fitting = [name for name in theirs if name not in without_place]
    return Fit(fitting, without_place, [name for name in ours if name not in theirs])


def read_weights(weights: str, cfg: Path | str | None = None) -> WeightsFile:
    """Read what `--weights` names: "coco", "voc", "last" (the newest best.pth of a run) or a file.

    A file is a `.pth` of ours or in the published layout, a Darknet `.weights` or a partial `.conv.N`. `cfg`
    describes a `.weights` file; without it, a .cfg beside the file does. A .names beside it has its
    class names.

    Raises:
        UserError: a file cannot be used; the message says what to do.
    """
    path = find_weights(weights)
    if is_darknet(path):
        official = weights == "coco" or is_official(path)
        return _read_darknet_weights(path, Path(cfg) if cfg else find_beside(path, ".cfg"), official)
    refuse_cfg(cfg, path)
    if path.suffix not in (".pth", ".pt"):
        raise UserError(
            f"{path}: unknown kind of weights; use coco, voc, last, or a .pth, .weights or .conv.N file"
        )
    content = read_content(path)
    if is_checkpoint(content):
        checkpoint = parse_checkpoint(path, content)
        names, state_dict = checkpoint.class_names, checkpoint.weights
        return WeightsFile(path, checkpoint.config, names, state_dict, anchors_from=path)
    if not _is_state_dict(content):
        keys = content if isinstance(content, dict) else ()
        inner = next((key for key in ("state_dict", "model", "ema") if key in keys), None)
        hint = f"; save only its {inner!r} with torch.save" if inner else ""
        reason = "not a checkpoint of this project (no format_version), nor a plain state_dict"
        raise UserError(f"{path}: {reason}{hint}")
    config, state_dict = read_published(path, content)
    return WeightsFile(path, config, None, state_dict)


def _read_darknet_weights(path: Path, cfg: Path | None, official: bool) -> WeightsFile:
    """Read a Darknet file as its cfg describes it, without one with the official anchors.

    The class names are those of the .names beside it, of an official file COCO's.
    """
    darknet = read_darknet(path)
    names_file = None if official else find_beside(path, ".names")
    names = usual_class_names(80) if official else read_class_names(names_file) if names_file else None
    if names and names_file and not darknet.is_partial and len(names) != darknet.num_classes:
        raise UserError(
            f"{names_file}: has {plural(len(names), 'name')}, but {path} has "
            f"{plural(darknet.num_classes, 'class', 'classes')}; correct the file or remove it"
        )
    if cfg is None:
        anchors, masks = USUAL_ANCHORS[darknet.num_heads]
        config = ModelConfig(max(darknet.num_classes, 1), anchors=anchors, anchor_masks=masks)
        source = path if official else None
    else:
        config, source = read_cfg(cfg), cfg
        own, described = (
            f"{counts.num_classes} classes and {counts.num_heads} heads" for counts in (darknet, config)
        )
        if not darknet.is_partial and own != described:
            raise UserError(
                f"{path}: has {own} by its length, but {cfg} describes {described}; use the .cfg that it was "
                "trained with"
            )
    return WeightsFile(path, config, names, darknet.state_dict, darknet.is_partial, source, names_file)


def refuse_cfg(cfg: Path | str | None, path: Path) -> None:
    """Raise a UserError for a cfg of weights that are not Darknet's."""
    if cfg is not None:
        raise UserError(f"--cfg {cfg}: describes a Darknet .weights file, which {path} is not; remove --cfg")


def check_anchors(config: ModelConfig, path: Path, given: Path | str) -> None:
    """Check that an anchor file agrees with the config that another file has.

    Raises:
        UserError: it does not, or it cannot be read.
    """
    if anchors_by_head(*read_anchors(given)) != anchors_by_head(config.anchors, config.anchor_masks):
        own = describe_anchors(config.anchors, config.anchor_masks)
        raise UserError(f"--anchors {given}: {path} has other anchors, {own}; remove --anchors")


def _use_anchors(file: WeightsFile, given: Path | str) -> WeightsFile:
    """Return weights with the anchors of a file; a UserError if they have others, or other heads."""
    if file.anchors_from is not None:
        check_anchors(file.config, file.anchors_from, given)
        return file
    anchors, masks = read_anchors(given)
    ours, theirs = ([len(mask) for mask in one] for one in (file.config.anchor_masks, masks))
    if ours != theirs:
        raise UserError(
            f"--anchors {given}: has {len(theirs)} heads of {theirs[0]} anchors, but {file.path} has "
            f"{len(ours)} of {ours[0]}"
        )
    config = dataclasses.replace(file.config, anchors=anchors, anchor_masks=masks)
    return dataclasses.replace(file, config=config, anchors_from=Path(given))


def load_model(
    weights: str,
    *,
    classes: tuple[str, ...] | None = None,
    phi: str | None = None,
    cfg: Path | str | None = None,
    anchors: Path | str | None = None,
) -> LoadedModel:
    """Load a network, every tensor of it.

    Args:
        weights: see `read_weights`.
        classes: its class names; where None and neither the file nor a .names beside it has any: COCO's for
            80 classes, VOC's for 20.
        phi: confirms the attention block of the file; required for a block of the user's own, whose code is
            imported only when the caller names it.
        cfg: describes a Darknet `.weights` file; None takes the one beside it.
        anchors: an anchor file, for weights that do not say their anchors.

    Raises:
        UserError: the file cannot be used; the message says what to do.
    """
    file = read_weights(weights, cfg)
    if file.is_partial:
        raise UserError(f"{file.path}: has the first layers only; train from it with --weights {file.path}")
    if anchors is not None:
        file = _use_anchors(file, anchors)
    count = file.config.num_classes
    names = choose_class_names(file.path, file.class_names, classes) or usual_class_names(count)
    if names is None:
        raise UserError(f"{file.path}: has {count} classes without names; name them with --classes FILE")
    if len(names) != count:
        raise UserError(f"{file.path}: has {count} classes, but {len(names)} names were given")
    config = dataclasses.replace(file.config, phi=confirm_phi(file.path, file.config.phi, phi))
    try:
        model = build_network(config)
    except ValueError as error:
        raise UserError(f"{file.path}: {error}") from None
    fit = fit_tensors(model.state_dict(), file.state_dict)
    if not fit.is_exact:
        raise UserError(f"{file.path}: its weights do not fit its own config: {fit.summary()}")
    model.load_state_dict(file.state_dict)
    names_from = file.names_from if classes is None else None
    used = f"anchors: {describe_anchors(config.anchors, config.anchor_masks)} ({file.anchors_origin})"
    note = "" if file.anchors_from == file.path else used
    return LoadedModel(model.eval(), config, names, file.path, note, names_from)


def confirm_phi(path: Path, own: str, phi: str | None) -> str:
    """Return the attention to build: `own`, the file's, or the caller's for a block of the user's own.

    Raises:
        UserError: the file has a block of the user's own that the caller did not name, or the names differ.
    """
    if ":" in own and (phi is None or not same_attention(phi, own)):
        raise UserError(f"{path}: has an attention block of your own; to import its code add --phi {own}")
    if phi is not None and not same_attention(phi, own):
        raise UserError(f"{path}: was made with attention={own}, you asked for {attention_name(phi)}")
    return phi if phi is not None and ":" in own else own  # the file of the block may lie elsewhere now


def usual_class_names(num_classes: int) -> tuple[str, ...] | None:
    """Return COCO's names for 80 classes, VOC's for 20, else None."""
    known = {80: "coco_classes.txt", 20: "voc_classes.txt"}.get(num_classes)
    return read_class_names(MODEL_DATA / known) if known else None


def find_weights(weights: str) -> Path:
    """Return the file that `--weights` names, downloading the official one when it is missing.

    Raises:
        UserError: there is no such file, or the download fails.
    """
    return ensure_coco_weights() if weights == "coco" else locate_weights(weights)


def _is_state_dict(content: object) -> TypeGuard[dict[str, Tensor]]:
    return (
        isinstance(content, dict)
        and len(content) > 0
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
    )


def _first(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:3])
    return f"{shown}, …" if len(names) > 3 else shown
