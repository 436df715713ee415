"""Transfer of weights: tensors that fit are copied, attention blocks are inserted, everything is reported."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nets.attention import same_attention
from nets.config import PLACES, ModelConfig
from nets.yolo import HEADS, THIRD_HEAD, YoloBody
from utils.cli.class_names import match_class_names
from utils.cli.errors import UserError
from utils.weights.load import Fit, WeightsFile, fit_tensors

_COORDINATES = 5  # rows of an anchor before its classes: x, y, width, height, objectness


@torch.no_grad()
def transfer(
    model: YoloBody,
    class_names: Sequence[str],
    source: WeightsFile,
    *,
    insert: str = "preserve",
    partial: bool = False,
    new_heads: bool = False,
) -> list[str]:
    """Copy the tensors of a file that fit a network; classes and attention may differ.

    Backbone and neck are always copied, and so are the box and objectness rows of the heads, also for other
    anchors if a head has the same number of them. Class rows are copied by class name, attention blocks where
    the file has the same ones. A third head that the file lacks starts new.

    Args:
        model: the network; changed in place.
        class_names: the names of its classes.
        source: the weights; without class names, its class rows are skipped.
        insert: how a new block starts: "preserve" so that the network in eval mode computes what it did
            without it, if the block can start as a constant; "published" with the block's own initialization.
        partial: copy what fits and report the rest, instead of refusing a file that does not fit.
        new_heads: keep the heads' last layers as they are.

    Returns:
        Lines on what was loaded, skipped and new.

    Raises:
        UserError: the networks differ in more than classes and new attention, and `partial` is not set.
    """
    # What only one of the two networks has, because it has a head more.
    third = tuple(f"{module}." for module in THIRD_HEAD)
    third = () if model.config.num_heads == source.config.num_heads else third
    theirs = {name: value for name, value in source.state_dict.items() if not name.startswith(third)}
    ours = model.state_dict()
    inserted, replaced = _changed_places(model.config, source.config)
    if replaced and not partial:
        raise UserError(
            f"{source.path}: was made with attention={_describe(source.config)}, you asked for "
            f"{_describe(model.config)}; use weights without attention or with the same, or add --partial"
        )
    last_layers = [f"{head}.predict.{part}" for head in HEADS for part in ("weight", "bias")]
    heads = {name: theirs.pop(name) for name in last_layers if name in theirs}
    absent = (*third, *(f"attention.{place}." for place in (*inserted, *replaced)))
    expected = {name: ours[name] for name in ours if name not in heads and not name.startswith(absent)}
    heads, misshaped = _split_heads(ours, heads, source)
    heads, report = _heads_for_anchors(heads, model.config, source)
    if new_heads and heads:
        heads, report = {}, [f"weights: the last layers of {source.path.name} are skipped and start new"]
    fit = fit_tensors(expected, theirs)
    fit.without_place.update(misshaped)
    if not (partial or fit.is_exact or (source.is_partial and not fit.without_place)):
        raise UserError(f"{source.path}: does not fit: {fit.summary()}; --partial copies what fits")
    if not fit.fitting:
        raise UserError(f"{source.path}: nothing in it fits this network: {fit.summary()}")
    for name in fit.fitting:
        ours[name].copy_(theirs[name])
    report += _report_tensors(source, fit, ours, heads)
    if third:
        change = "new, not in the file" if model.config.num_heads == 3 else "skipped, not in this network"
        report.append(f"weights: third head ({', '.join(THIRD_HEAD)}): {change}")
    report += _copy_heads(ours, heads, class_names, source)
    return report + _insert_attention(model, inserted, replaced, insert)


def _changed_places(ours: ModelConfig, theirs: ModelConfig) -> tuple[list[str], list[str]]:
    """Return the places that get a new block, and those where the file has another block than the network."""
    our_places, their_places = (set(one.phi_at if one.phi != "none" else ()) for one in (ours, theirs))
    kept = our_places & their_places if same_attention(ours.phi, theirs.phi) else set()
    return sorted(our_places - their_places), sorted(their_places - kept)


def _describe(config: ModelConfig) -> str:
    """Return the attention of a network, with its places when it is not at all of them."""
    everywhere = config.phi == "none" or set(config.phi_at) == set(ModelConfig.phi_at)
    return config.phi if everywhere else f"{config.phi} at {' '.join(config.phi_at)}"


def _split_heads(
    ours: Mapping[str, Tensor], heads: Mapping[str, Tensor], source: WeightsFile
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Split the last layers into those that fit the file's own classes, and the others with the reason."""
    rows = len(source.config.anchor_masks[0]) * (_COORDINATES + source.config.num_classes)
    fitting, misshaped = {}, {}
    for name, value in heads.items():
        found, needed = tuple(value.shape), (rows, *ours[name].shape[1:])
        if found == needed:
            fitting[name] = value
        else:
            misshaped[name] = f"has shape {found}, {source.config.num_classes} classes need {needed}"
    return fitting, misshaped


def _heads_for_anchors(
    heads: dict[str, Tensor], ours: ModelConfig, source: WeightsFile
) -> tuple[dict[str, Tensor], list[str]]:
    """Keep the last layers where the file has the same number of anchors a head; report other anchors."""
    theirs = source.config
    if not heads or (theirs.anchors, theirs.anchor_masks) == (ours.anchors, ours.anchor_masks):
        return heads, []
    begin = f"weights: {source.path.name} was trained with other anchors, which are skipped"
    counts = [len(config.anchor_masks[0]) for config in (theirs, ours)]
    if counts[0] == counts[1] and source.anchors_from is None:
        return heads, []  # the file's own are not known, those of the network may be they
    if counts[0] == counts[1]:
        return heads, [f"{begin}; its box and objectness rows are copied"]
    return {}, [f"{begin}; it has {counts[0]} a head, the network has {counts[1]}: the last layers start new"]


def _report_tensors(
    source: WeightsFile, fit: Fit, ours: Mapping[str, Tensor], heads: Mapping[str, Tensor]
) -> list[str]:
    left = f", skipped {len(fit.without_place)}, missing {len(fit.missing)}" if not fit.is_exact else ""
    rows = (
        f", and the box and objectness rows of {', '.join(_whole_modules([*heads], ours))}" if heads else ""
    )
    lines = [f"weights: {source.path.name}: loaded {len(fit.fitting)} tensors{rows}{left}"]
    lines += [f"weights: skipped {name}: {reason}" for name, reason in fit.without_place.items()]
    if fit.missing:
        lines.append(f"weights: not in the file, so new: {', '.join(_whole_modules(fit.missing, ours))}")
    return lines


def _whole_modules(missing: Sequence[str], ours: Mapping[str, Tensor]) -> list[str]:
    """Replace the names of tensors by that of their layer where all of the layer is missing."""
    names = []
    for name in missing:
        layer = name.rpartition(".")[0]
        is_whole = all(other in missing for other in ours if other.startswith(f"{layer}."))
        names.append(layer if is_whole else name)
    return list(dict.fromkeys(names))


def _copy_heads(
    ours: Mapping[str, Tensor], heads: Mapping[str, Tensor], class_names: Sequence[str], source: WeightsFile
) -> list[str]:
    """Copy rows of the heads' last layers: box and objectness always, classes by name."""
    if not heads:
        return []
    matches = match_class_names(source.class_names or (), class_names)
    num_anchors = len(source.config.anchor_masks[0])
    for name, theirs in heads.items():
        our_rows = ours[name].unflatten(0, (num_anchors, -1))  # (A, 5+K, ...)
        their_rows = theirs.unflatten(0, (num_anchors, -1))
        our_rows[:, :_COORDINATES] = their_rows[:, :_COORDINATES]
        for label, match in enumerate(matches):
            if match is not None:
                our_rows[:, _COORDINATES + label] = their_rows[:, _COORDINATES + match]
    known = [name for name, match in zip(class_names, matches, strict=True) if match is not None]
    new = [name for name, match in zip(class_names, matches, strict=True) if match is None]
    skipped = source.config.num_classes - len({*matches} - {None})
    lines = [f"weights: classes loaded by name: {', '.join(known)}"] if known else []
    lines += [f"weights: classes that start new: {', '.join(new)}"] if new else []
    unnamed = "" if source.class_names else ", since they have no names"
    return lines + ([f"weights: classes of the file skipped: {skipped}{unnamed}"] if skipped else [])


def _insert_attention(model: YoloBody, inserted: list[str], replaced: list[str], insert: str) -> list[str]:
    """Initialize each new block; to preserve, as x -> c x with the gain 1/c behind it."""
    lines = []
    for place in (*inserted, *replaced):
        if model.config.phi == "none" or place not in model.config.phi_at:
            effect = "not in this network; not function-preserving"
        elif insert == "published":
            effect = "new; starts with its own initialization (--insert published)"
        elif not hasattr(block := model.attention[place], "start_constant"):
            effect = f"new; not function-preserving ({type(block).__name__} has no start_constant)"
        else:
            constant = _start_as_constant(block, PLACES[place])
            effect = f"new; starts as a gain of {constant:g}"
            if constant != 1:
                model.gains[place] = 1 / constant
                effect += f", undone by a factor of {1 / constant:g} behind it"
            if place in replaced:
                effect += "; not function-preserving, since the file had another block there"
        lines.append(f"weights: attention at {place}: {effect}")
    return lines


def _start_as_constant(block: nn.Module, channels: int) -> float:
    """Turn a block into a constant gain and return it.

    Raises:
        UserError: its method fails, or returns another gain than the block has.
    """
    features = torch.rand(1, channels, 4, 4, generator=torch.Generator().manual_seed(0))
    was_training = block.training
    try:
        constant = float(block.start_constant())  # type: ignore[operator]
        is_constant = torch.allclose(block.eval()(features), constant * features, rtol=1e-4, atol=1e-6)
    except Exception as error:  # the user's code may fail in any way
        reason = " ".join(str(error).split())
        raise UserError(f"{type(block).__name__}.start_constant: {type(error).__name__}: {reason}") from None
    block.train(was_training)
    if not (is_constant and math.isfinite(constant) and constant != 0):
        raise UserError(
            f"{type(block).__name__}.start_constant: returns {constant:g}, but the block does not compute "
            f"{constant:g} * x; "
            "fix it, or use --insert published"
        )
    return constant
