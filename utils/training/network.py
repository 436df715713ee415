"""The network that a run trains: the weights it starts from, and how gently they are trained."""

from __future__ import annotations

import dataclasses

from nets.config import ModelConfig
from nets.yolo import YoloBody
from utils.cli.class_names import match_class_names, read_class_names
from utils.cli.console import log
from utils.cli.errors import UserError
from utils.cli.train_config import DEFAULT_LR, FINE_TUNING_FACTOR, TrainConfig
from utils.data.anchor_boxes import Anchors, Masks, read_anchors
from utils.weights.checkpoint import Checkpoint
from utils.weights.load import WeightsFile, read_weights, usual_class_names
from utils.weights.own_block import build_network
from utils.weights.transfer import transfer


def build_model(config: TrainConfig, class_names: tuple[str, ...], resumed: Checkpoint | None) -> YoloBody:
    """Build the network; unless the run is resumed it starts from --weights, which is printed."""
    if resumed is not None:
        if resumed.class_names != class_names:
            known, found = ", ".join(resumed.class_names), ", ".join(class_names)
            raise UserError(
                f"--resume: the run has the classes {known}, the data now {found}; start a new run"
            )
        return build_network(dataclasses.replace(resumed.config, phi=config.phi))
    shape = shape_of(config, len(class_names))
    if config.anchors is not None:
        log(f"anchors: {_describe_anchors(shape.anchors, shape.anchor_masks)} ({config.anchors})")
    if config.weights == "none":
        return build_network(shape)
    source = _read_source(config)
    names = {"scale_x_y"} | (set() if config.anchors else {"anchors", "anchor_masks"})
    model = build_network(
        dataclasses.replace(shape, **{name: getattr(source.config, name) for name in names})
    )
    lines = transfer(
        model, class_names, source, insert=config.insert, partial=config.partial, new_heads=config.new_heads
    )
    for line in lines:
        log(line)
    return model


def shape_of(config: TrainConfig, num_classes: int) -> ModelConfig:
    """Return the network that the settings describe; --weights may bring other anchors."""
    shape = ModelConfig(num_classes, config.phi, config.phi_at, config.imgsz)
    if config.anchors is None:
        return shape
    anchors, anchor_masks = read_anchors(config.anchors)
    return dataclasses.replace(shape, anchors=anchors, anchor_masks=anchor_masks)


def settle(config: TrainConfig, class_names: tuple[str, ...]) -> TrainConfig:
    """Choose the learning rate and the average's memory where none is given, by what the weights know."""
    if None not in (config.lr, config.ema_memory):
        return config
    knows_all = _knows_all(config, class_names)
    settled = settled_by(config, knows_all)
    if knows_all:
        gentle = [f"lr {settled.lr:g}"] if config.lr is None else []
        gentle += ["average over the run"] if config.ema and config.ema_memory is None else []
        if gentle:
            log(f"{config.weights} knows every class: {', '.join(gentle)}")
    return settled


def settled_by(config: TrainConfig, knows_all: bool) -> TrainConfig:
    """Return the settings of a run; weights that know every class are only refined."""
    usual = DEFAULT_LR[config.optimizer]
    lr = usual * FINE_TUNING_FACTOR if knows_all else usual
    memory = "run" if knows_all else "recent"
    return dataclasses.replace(
        config, lr=lr if config.lr is None else config.lr, ema_memory=config.ema_memory or memory
    )


def _knows_all(config: TrainConfig, class_names: tuple[str, ...]) -> bool:
    starts_new = config.weights == "none" or config.anchors is not None or config.new_heads
    if starts_new or config.overfit is not None:  # to learn by heart takes the full rate
        return False
    source = _read_source(config)
    known = source.class_names if "head_p5.predict.weight" in source.state_dict else None
    return None not in match_class_names(known or (), class_names)


def _read_source(config: TrainConfig) -> WeightsFile:
    """Read what --weights names, with names for its classes where they can be told."""
    source = read_weights(config.weights)
    if source.class_names is not None:
        return source
    return dataclasses.replace(source, class_names=_names_of(source, config.classes))


def _describe_anchors(anchors: Anchors, anchor_masks: Masks) -> str:
    """Say which anchors each head owns, coarse first."""
    shapes = [f"{width:g}x{height:g}" for width, height in anchors]
    return "; ".join(" ".join(shapes[index] for index in mask) for mask in anchor_masks)


def _names_of(source: WeightsFile, classes: str | None) -> tuple[str, ...] | None:
    """Name the classes of weights without names: by --classes where they are as many, else the usual ones."""
    num_classes = source.config.num_classes
    named = read_class_names(classes) if classes else ()
    return named if len(named) == num_classes else usual_class_names(num_classes)
