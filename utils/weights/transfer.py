"""Starting a network from the weights of another one: what fits is copied, and all of it is reported."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nets.attention import same_attention
from nets.yolo import YoloBody
from utils.classes import match_class_names
from utils.errors import UserError
from utils.weights.load import LoadedModel

_HEADS = ("head_p5", "head_p4")
_COORDINATES = 5  # rows of an anchor before its classes: x, y, width, height, objectness


@torch.no_grad()
def transfer(
    model: YoloBody, class_names: Sequence[str], source: LoadedModel, insert: str = "preserve"
) -> list[str]:
    """Copy into a network what fits of another one, which may know other classes and have no attention.

    Backbone, neck, and the box and objectness rows of the heads are copied always, class rows where a class
    has the same name; attention blocks are copied where the source has the same ones.

    Args:
        model: the network to fill; changed in place.
        class_names: the names of its classes.
        source: where the weights come from.
        insert: how a block that the source lacks starts: "preserve" so that the network in eval mode computes
            what it did without it, if the block can start as a constant; "published" as the block initialises
            itself.

    Returns:
        Lines that say what was loaded, skipped and new.

    Raises:
        UserError: the networks differ in more than classes and attention.
    """
    theirs, ours = source.model.state_dict(), model.state_dict()
    last_layers = {f"{head}.predict.{part}" for head in _HEADS for part in ("weight", "bias")}
    inserted = model.config.phi != "none" and source.config.phi == "none"
    is_same = (
        same_attention(source.config.phi, model.config.phi) and source.config.phi_at == model.config.phi_at
    )
    if not inserted and not is_same:
        raise UserError(
            f"{source.path}: was made with attention={source.config.phi}, you asked for {model.config.phi}; "
            "train from weights without attention, or with the same"
        )
    if source.config.anchor_masks != model.config.anchor_masks:
        raise UserError(f"{source.path}: has other anchor masks than this network")
    copied = [name for name in ours if name in theirs and name not in last_layers]
    for name in copied:
        ours[name].copy_(theirs[name])
    matches = match_class_names(source.class_names, class_names)
    for name in sorted(last_layers):
        _copy_head_rows(ours[name], theirs[name], matches)
    report = [
        f"weights: {source.path.name}: loaded {len(copied)} tensors, and both heads' box and objectness rows",
        *_report_classes(class_names, matches),
    ]
    return report + (_insert_attention(model, insert) if inserted else [])


def _copy_head_rows(ours: Tensor, theirs: Tensor, matches: Sequence[int | None]) -> None:
    """Copy rows of a head's last layer, (A*(5+K), ...): box and objectness always, the matched classes."""
    our_rows = ours.unflatten(0, (-1, _COORDINATES + len(matches)))  # (A, 5+K, ...)
    their_rows = theirs.unflatten(0, (len(our_rows), -1))
    our_rows[:, :_COORDINATES] = their_rows[:, :_COORDINATES]
    for label, match in enumerate(matches):
        if match is not None:
            our_rows[:, _COORDINATES + label] = their_rows[:, _COORDINATES + match]


def _report_classes(class_names: Sequence[str], matches: Sequence[int | None]) -> list[str]:
    known = [name for name, match in zip(class_names, matches, strict=True) if match is not None]
    new = [name for name, match in zip(class_names, matches, strict=True) if match is None]
    lines = [f"weights: classes loaded by name: {', '.join(known)}"] if known else []
    return lines + ([f"weights: classes that start new: {', '.join(new)}"] if new else [])


def _insert_attention(model: YoloBody, insert: str) -> list[str]:
    """Start each new block; to preserve, as x -> c x with 1/c in the convolution behind it."""
    lines = []
    for place, block in model.attention.items():
        if isinstance(block, nn.Identity):
            continue
        start_constant = getattr(block, "start_constant", None)
        if insert == "published":
            effect = "starts as it initialises itself (--insert published)"
        elif start_constant is None:
            effect = f"not function-preserving ({type(block).__name__})"
        else:
            constant = start_constant()
            _input_weights(model, place).div_(constant)
            effect = f"starts as a gain of {constant:g}, which is folded away"
        lines.append(f"weights: attention at {place} is new; {effect}")
    return lines


def _input_weights(model: YoloBody, place: str) -> Tensor:
    """Return the weights, a view (out, in, kh, kw), that the features of a place go into."""
    p4_inputs = model.head_p4.conv.conv.weight
    up_channels = model.neck_up.conv.out_channels
    return {
        "c5": model.neck_p5.conv.weight,
        "up": p4_inputs[:, :up_channels],
        "c4": p4_inputs[:, up_channels:],
    }[place]
