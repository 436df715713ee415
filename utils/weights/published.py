"""The layout of the published checkpoints of bubbliiiing/yolov4-tiny-pytorch.

A file is a bare state_dict: no class names, no attention switch, no input size. What defines the network is
read from its names and shapes; boxes are decoded with the plain sigmoid there, which is scale_x_y = 1.0 here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from nets.config import PLACES, ModelConfig
from utils.cli.errors import UserError
from utils.weights.checkpoint import write_content

_NORM = {
    f"bn.{part}": f"norm.{part}"
    for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
}
_CONV_NORM = {"conv.weight": "conv.weight"} | _NORM
_CONV = {"weight": "weight", "bias": "bias"}

# Their module -> ours, and the names inside them.
_MODULES = {
    ("backbone.conv1", "backbone.stem1"): _CONV_NORM,
    ("backbone.conv2", "backbone.stem2"): _CONV_NORM,
    ("backbone.resblock_body1.conv1", "backbone.stage2.route"): _CONV_NORM,
    ("backbone.resblock_body1.conv2", "backbone.stage2.first"): _CONV_NORM,
    ("backbone.resblock_body1.conv3", "backbone.stage2.second"): _CONV_NORM,
    ("backbone.resblock_body1.conv4", "backbone.stage2.merge"): _CONV_NORM,
    ("backbone.resblock_body2.conv1", "backbone.stage3.route"): _CONV_NORM,
    ("backbone.resblock_body2.conv2", "backbone.stage3.first"): _CONV_NORM,
    ("backbone.resblock_body2.conv3", "backbone.stage3.second"): _CONV_NORM,
    ("backbone.resblock_body2.conv4", "backbone.stage3.merge"): _CONV_NORM,
    ("backbone.resblock_body3.conv1", "backbone.stage4.route"): _CONV_NORM,
    ("backbone.resblock_body3.conv2", "backbone.stage4.first"): _CONV_NORM,
    ("backbone.resblock_body3.conv3", "backbone.stage4.second"): _CONV_NORM,
    ("backbone.resblock_body3.conv4", "backbone.stage4.merge"): _CONV_NORM,
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
    "ca": {
        "conv_1x1.weight": "squeeze.weight",
        "F_h.weight": "rows.weight",
        "F_w.weight": "columns.weight",
        **_NORM,
    },
}
_HEADS = ("yolo_headP5.1.weight", "yolo_headP4.1.weight")
_ANCHORS = 3  # of each head


def read_published(path: Path | str, content: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Translate a state_dict in the published layout.

    Args:
        path: the file that it comes from, for messages.
        content: the state_dict, of any floating type; the prefix `module.` of DataParallel is taken off.

    Returns:
        What defines the network, and its tensors in float32 under our names. A tensor that the layout
        does not know keeps its name, so that whoever loads it can say that it has no place.

    Raises:
        UserError: it is not in the published layout, or it does not say its number of classes.
    """
    theirs = {name.removeprefix("module."): value for name, value in content.items()}
    table = _table("none")
    if not any(name in table for name in theirs):
        shown = ", ".join(list(theirs)[:3])
        raise UserError(
            f"{path}: another network's weights: none of its {len(theirs)} tensors is known here ({shown}, …)"
        )
    for name, value in theirs.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f"{path}: {name} holds values that are not finite; the file is damaged")
    num_classes = _solve_num_classes(path, theirs)
    phi = _find_phi(theirs)
    table |= _table(phi)
    weights = {
        table.get(name, name): value.float() if value.is_floating_point() else value
        for name, value in theirs.items()
    }
    return ModelConfig(num_classes, phi, scale_x_y=1.0), weights


def write_published(path: Path | str, config: ModelConfig, weights: Mapping[str, Tensor]) -> None:
    """Write a network in the published layout.

    That layout has no scale_x_y: where the config's is not 1, the reference implementation shifts the centers
    of boxes by up to (scale_x_y - 1) / 2 of a cell.

    Raises:
        UserError: the layout has no name for its attention block, or the file cannot be written.
    """
    try:
        check_published(config)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    ours = {ours: theirs for theirs, ours in _table(config.phi).items()}
    write_content(path, {ours[name]: value.detach().cpu() for name, value in weights.items()})


def check_published(config: ModelConfig) -> None:
    """Hold that the layout can say what a network is.

    Raises:
        ValueError: it cannot; says why.
    """
    if config.phi not in ("none", *_BLOCKS):
        raise ValueError(f"the published layout has no attention {config.phi}")
    if config.phi != "none" and set(config.phi_at) != set(PLACES):
        raise ValueError(f"the published layout has attention at {', '.join(PLACES)}, all or none")
    if len(config.anchor_masks[0]) != _ANCHORS:
        raise ValueError(f"the published layout has {_ANCHORS} anchors a head")


def _table(phi: str) -> dict[str, str]:
    """Return their name -> our name of every tensor of a network."""
    inner = {
        f"{theirs}.{name}": f"{ours}.{our_name}"
        for (theirs, ours), names in _MODULES.items()
        for name, our_name in names.items()
    }
    blocks = {
        f"{theirs}.{name}": f"attention.{place}.{our_name}"
        for theirs, place in _PLACES.items()
        for name, our_name in _BLOCKS.get(phi, {}).items()
    }
    return inner | blocks


def _find_phi(theirs: Mapping[str, Tensor]) -> str:
    """Return the attention whose names the file holds; "none" also for names that no block has."""
    for phi in _BLOCKS:
        if any(name in theirs for name in _table(phi).keys() - _table("none").keys()):
            return phi
    return "none"


def _solve_num_classes(path: Path | str, theirs: Mapping[str, Tensor]) -> int:
    rows = {name: theirs[name].shape[0] if theirs[name].dim() else 0 for name in _HEADS if name in theirs}
    if not rows:
        raise UserError(
            f"{path}: has neither {_HEADS[0]} nor {_HEADS[1]}, so that it tells no number of classes"
        )
    num_classes, rest = divmod(next(iter(rows.values())) - 5 * _ANCHORS, _ANCHORS)
    if rest or num_classes < 1 or len(set(rows.values())) > 1:
        found = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise UserError(
            f"{path}: its heads are not those of {_ANCHORS} anchors and one class count (rows: {found})"
        )
    return num_classes
