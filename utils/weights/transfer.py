"""Starting a network from the weights of another one: what fits is copied, and all of it is reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nets.attention import same_attention
from nets.yolo import ModelConfig, YoloBody
from utils.classes import match_class_names
from utils.errors import UserError
from utils.weights.fit import Fit, fit_tensors
from utils.weights.load import WeightsFile

_HEADS = ("head_p5", "head_p4")
_COORDINATES = 5  # rows of an anchor before its classes: x, y, width, height, objectness


@torch.no_grad()
def transfer(
    model: YoloBody,
    class_names: Sequence[str],
    source: WeightsFile,
    *,
    insert: str = "preserve",
    partial: bool = False,
) -> list[str]:
    """Copy into a network what fits of a file, which may know other classes and have no attention.

    Backbone, neck, and the box and objectness rows of the heads are copied always, class rows where a class
    has the same name; attention blocks where the file has the same ones.

    Args:
        model: the network to fill; changed in place.
        class_names: the names of its classes.
        source: where the weights come from; without class names, its class rows are left.
        insert: how a block that the source lacks starts: "preserve" so that the network in eval mode computes
            what it did without it, if the block can start as a constant; "published" as the block initialises
            itself.
        partial: take what fits and report the rest, instead of refusing a file that does not fit.

    Returns:
        Lines that say what was loaded, skipped and new.

    Raises:
        UserError: the networks differ in more than classes and new attention, and `partial` is not set.
    """
    theirs, ours = dict(source.state_dict), model.state_dict()
    inserted, replaced = _changed_places(model.config, source.config)
    if replaced and not partial:
        raise UserError(
            f"{source.path}: was made with attention={_describe(source.config)}, you asked for "
            f"{_describe(model.config)}; start from weights without, with the same, or add --partial"
        )
    if source.config.anchor_masks != model.config.anchor_masks:
        raise UserError(f"{source.path}: has other anchor masks than this network")
    last_layers = [f"{head}.predict.{part}" for head in _HEADS for part in ("weight", "bias")]
    heads = {name: theirs.pop(name) for name in last_layers if name in theirs}
    blocks = tuple(f"attention.{place}." for place in (*inserted, *replaced))
    expected = {
        name: value for name, value in ours.items() if name not in heads and not name.startswith(blocks)
    }
    fit = fit_tensors(expected, theirs)
    if not (partial or fit.is_exact or (source.is_partial and not fit.without_place)):
        raise UserError(f"{source.path}: does not fit: {fit.summary()}; --partial takes what fits")
    if not fit.fitting:
        raise UserError(f"{source.path}: nothing in it fits this network: {fit.summary()}")
    for name in fit.fitting:
        ours[name].copy_(theirs[name])
    report = _report_tensors(source, fit, heads)
    report += _copy_heads(ours, heads, class_names, source)
    return report + _insert_attention(model, inserted, replaced, insert)


def _changed_places(ours: ModelConfig, theirs: ModelConfig) -> tuple[list[str], list[str]]:
    """Return the places that take a block anew, and those where the file has one that ours is not."""
    our_places = set(ours.phi_at if ours.phi != "none" else ())
    their_places = set(theirs.phi_at if theirs.phi != "none" else ())
    kept = our_places & their_places if same_attention(ours.phi, theirs.phi) else set()
    return sorted(our_places - their_places), sorted(their_places - kept)


def _describe(config: ModelConfig) -> str:
    """Name the attention of a network, and where it stands when it is not everywhere."""
    everywhere = config.phi == "none" or len(config.phi_at) == len(ModelConfig.phi_at)
    return config.phi if everywhere else f"{config.phi} at {' '.join(config.phi_at)}"


def _report_tensors(source: WeightsFile, fit: Fit, heads: Mapping[str, Tensor]) -> list[str]:
    left = f", skipped {len(fit.without_place)}, missing {len(fit.missing)}" if not fit.is_exact else ""
    both = ", and both heads' box and objectness rows" if len(heads) == 2 * len(_HEADS) else ""
    lines = [f"weights: {source.path.name}: loaded {len(fit.fitting)} tensors{both}{left}"]
    lines += [f"weights: skipped {name}: {reason}" for name, reason in fit.without_place.items()]
    if fit.missing:
        modules = dict.fromkeys(name.rpartition(".")[0] for name in fit.missing)
        lines.append(f"weights: not in the file, so new: {', '.join(modules)}")
    return lines


def _copy_heads(
    ours: Mapping[str, Tensor], heads: Mapping[str, Tensor], class_names: Sequence[str], source: WeightsFile
) -> list[str]:
    """Copy the rows of the heads' last layers: box and objectness always, classes by name."""
    if not heads:
        return []
    matches = match_class_names(source.class_names or (), class_names)
    num_anchors = len(source.config.anchor_masks[0])
    rows = num_anchors * (_COORDINATES + source.config.num_classes)
    for name, theirs in heads.items():
        if len(theirs) != rows or theirs.shape[1:] != ours[name].shape[1:]:
            raise UserError(
                f"{source.path}: {name} has shape {tuple(theirs.shape)}, which is not {rows} rows "
                f"of {tuple(ours[name].shape[1:])}"
            )
        our_rows = ours[name].unflatten(0, (num_anchors, -1))  # (A, 5+K, ...)
        their_rows = theirs.unflatten(0, (num_anchors, -1))
        our_rows[:, :_COORDINATES] = their_rows[:, :_COORDINATES]
        for label, match in enumerate(matches):
            if match is not None:
                our_rows[:, _COORDINATES + label] = their_rows[:, _COORDINATES + match]
    lines = []
    if source.class_names is None:
        lines.append(
            f"weights: the file's {source.config.num_classes} classes have no names: their rows are left"
        )
    known = [name for name, match in zip(class_names, matches, strict=True) if match is not None]
    new = [name for name, match in zip(class_names, matches, strict=True) if match is None]
    lines += [f"weights: classes loaded by name: {', '.join(known)}"] if known else []
    return lines + ([f"weights: classes that start new: {', '.join(new)}"] if new else [])


def _insert_attention(model: YoloBody, inserted: list[str], replaced: list[str], insert: str) -> list[str]:
    """Start each new block; to preserve, as x -> c x with 1/c in the convolution behind it."""
    lines = []
    for place in (*inserted, *replaced):
        block = model.attention[place]
        start_constant = getattr(block, "start_constant", None)
        if isinstance(block, nn.Identity):
            effect = "not in this network; not function-preserving"
        elif insert == "published":
            effect = "new; starts as it initialises itself (--insert published)"
        elif start_constant is None:
            effect = f"new; not function-preserving ({type(block).__name__} has no start_constant)"
        else:
            constant = start_constant()
            _input_weights(model, place).div_(constant)
            effect = f"new; starts as a gain of {constant:g}, which is folded away"
            if place in replaced:
                effect += "; not function-preserving, since the file had another block there"
        lines.append(f"weights: attention at {place}: {effect}")
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
