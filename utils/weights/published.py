"""Published layout: the checkpoints of bubbliiiing/yolov4-tiny-pytorch.

A file is a plain state_dict without class names, attention name and input size. Class count and attention are
read from its names and shapes. Boxes are decoded with the plain sigmoid there, which is scale_x_y = 1.0 here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from nets.config import ModelConfig
from utils.cli.errors import UserError
from utils.weights.checkpoint import write_content

_NORM = {
    f"bn.{part}": f"norm.{part}"
    for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
}
_CONV_NORM = {"conv.weight": "conv.weight"} | _NORM
_CONV = {"weight": "weight", "bias": "bias"}

# Their module and ours: names of the tensors inside, theirs -> ours.
_MODULES = {
    ("backbone.conv1", "backbone.stem1"): _CONV_NORM,
    ("backbone.conv2", "backbone.stem2"): _CONV_NORM,
    **{
        (f"backbone.resblock_body{number}.conv{index}", f"backbone.stage{number + 1}.{ours}"): _CONV_NORM
        for number in (1, 2, 3)
        for index, ours in enumerate(("route", "first", "second", "merge"), start=1)
    },
    ("backbone.conv3", "backbone.last"): _CONV_NORM,
    ("conv_for_P5", "neck_p5"): _CONV_NORM,
    ("yolo_headP5.0", "head_p5.conv"): _CONV_NORM,
    ("yolo_headP5.1", "head_p5.predict"): _CONV,
    ("upsample.upsample.0", "neck_up"): _CONV_NORM,
    ("yolo_headP4.0", "head_p4.conv"): _CONV_NORM,
    ("yolo_headP4.1", "head_p4.predict"): _CONV,
}
_PLACES = {"feat1_att": "c4", "feat2_att": "c5", "upsample_att": "up"}
_BLOCKS = {
    "se": {"fc.0.weight": "fc.0.weight", "fc.2.weight": "fc.2.weight"},
    "cbam": {
        "channelattention.fc1.weight": "channel.fc1.weight",
        "channelattention.fc2.weight": "channel.fc2.weight",
        "spatialattention.conv1.weight": "spatial.conv.weight",
    },
    "eca": {"conv.weight": "conv.weight"},
    "ca": _NORM
    | {"conv_1x1.weight": "squeeze.weight", "F_h.weight": "rows.weight", "F_w.weight": "columns.weight"},
}
_HEADS = ("yolo_headP5.1.weight", "yolo_headP4.1.weight")
_ANCHORS = 3  # of each head


def read_published(path: Path | str, content: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Translate a state_dict in the published layout.

    Args:
        path: of the file, for messages.
        content: the state_dict, of any floating type; the prefix `module.` of DataParallel is removed.

    Returns:
        The config of the network, and its tensors in float32 under our names. A tensor that the layout does
        not have keeps its name, so that the loader can report it.

    Raises:
        UserError: it is not in the published layout, or its class count cannot be read.
    """
    theirs = {name.removeprefix("module."): value for name, value in content.items()}
    table = _table("none")
    if not any(name in table for name in theirs):
        shown = ", ".join([*theirs][:3])
        raise UserError(f"{path}: weights of another network: none of its tensors is known ({shown}, …)")
    for name, value in theirs.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f"{path}: {name} has values that are not finite; the file is damaged")
    num_classes = _solve_num_classes(path, theirs)
    phi = _find_phi(theirs)
    table |= _table(phi)
    single = {name: value.float() if value.is_floating_point() else value for name, value in theirs.items()}
    weights = {table.get(name, name): value for name, value in single.items()}
    return ModelConfig(num_classes, phi, scale_x_y=1.0), weights


def write_published(path: Path | str, config: ModelConfig, weights: Mapping[str, Tensor]) -> None:
    """Write a network in the published layout, which has no scale_x_y, no anchors and no class names.

    Raises:
        ValueError: see `check_published`.
        UserError: the file cannot be written.
    """
    check_published(config)
    ours = {ours: theirs for theirs, ours in _table(config.phi).items()}
    write_content(path, {ours[name]: value.detach().cpu() for name, value in weights.items()})


def check_published(config: ModelConfig) -> None:
    """Check that the layout can hold a network.

    Raises:
        ValueError: it cannot; says why.
    """
    if config.phi not in ("none", *_BLOCKS):
        raise ValueError(f"the published layout has no attention {config.phi}")
    if config.phi != "none" and set(config.phi_at) != set(_PLACES.values()):
        raise ValueError(f"the published layout has attention at {', '.join(_PLACES.values())}, all or none")
    if config.num_heads != len(_HEADS):
        raise ValueError(
            f"the published layout has {len(_HEADS)} heads, these weights have {config.num_heads}"
        )
    if len(config.anchor_masks[0]) != _ANCHORS:
        raise ValueError(f"the published layout has {_ANCHORS} anchors a head")


def _table(phi: str) -> dict[str, str]:
    """Return the names of all tensors of a network, theirs -> ours."""
    blocks = {(theirs, f"attention.{ours}"): _BLOCKS.get(phi, {}) for theirs, ours in _PLACES.items()}
    return {
        f"{theirs}.{name}": f"{ours}.{our_name}"
        for (theirs, ours), names in {**_MODULES, **blocks}.items()
        for name, our_name in names.items()
    }


def _find_phi(theirs: Mapping[str, Tensor]) -> str:
    """Return the attention whose tensors the file has; "none" also for unknown names."""
    for phi in _BLOCKS:
        if any(name in theirs for name in _table(phi).keys() - _table("none").keys()):
            return phi
    return "none"


def _solve_num_classes(path: Path | str, theirs: Mapping[str, Tensor]) -> int:
    rows = {name: theirs[name].shape[0] if theirs[name].dim() else 0 for name in _HEADS if name in theirs}
    if not rows:
        raise UserError(f"{path}: no number of classes: it has neither {_HEADS[0]} nor {_HEADS[1]}")
    num_classes, rest = divmod(next(iter(rows.values())) - 5 * _ANCHORS, _ANCHORS)
    if rest or num_classes < 1 or len(set(rows.values())) > 1:
        found = ", ".join(f"{name}: {count} rows" for name, count in rows.items())
        raise UserError(f"{path}: its heads do not fit {_ANCHORS} anchors and one class count ({found})")
    return num_classes
