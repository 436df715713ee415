"""What a run starts from: its settings, data, network and optimizer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from nets.attention import same_attention
from nets.loss import YoloLoss
from nets.yolo import ModelConfig, YoloBody
from utils.classes import read_class_names
from utils.config import TrainConfig, config_from_dict
from utils.console import log
from utils.data.dataset import VocDataset
from utils.data.loaders import EpochSampler, build_train_loader
from utils.data.prepare import TrainingData, prepare_training
from utils.data.train_set import AugmentSettings, TrainDataset
from utils.errors import UserError
from utils.training.optim import build_optimizer, build_schedule
from utils.training.run import load_resumable
from utils.weights.checkpoint import Checkpoint
from utils.weights.load import WeightsFile, read_weights, usual_class_names
from utils.weights.transfer import transfer

# What --demo changes, unless the command line says otherwise: three minutes on two CPU cores.
_DEMO = {
    "data": "runs/demo",
    "epochs": 8,
    "batch_size": 8,
    "imgsz": (288, 288),
    "freeze_epochs": 1,
    "close_mosaic": 2,
}


def resolve_settings(given: dict[str, Any]) -> tuple[TrainConfig, Path | None, Checkpoint | None]:
    """Turn what the command line gave into the run's settings.

    Args:
        given: settings by name, only those that were given.

    Returns:
        The settings; for --resume also the folder of the run and the checkpoint that they come from.

    Raises:
        UserError: a value makes no sense, or there is nothing to resume.
    """
    if given.get("resume") is None:
        return TrainConfig(**((_DEMO | given) if given.get("demo") else given)), None, None
    path, checkpoint = load_resumable(given["resume"])
    phi, done = checkpoint.config.phi, checkpoint.training["epoch"]
    if ":" in phi and "phi" not in given:
        raise UserError(
            f"--resume {path}: has a block of your own; to let its code be imported add --phi {phi}"
        )
    if "phi" in given and not same_attention(given["phi"], phi):
        raise UserError(f"--resume {path}: was made with attention={phi}, you asked for {given['phi']}")
    stored = config_from_dict(TrainConfig, checkpoint.run_config, source=str(path))
    config = dataclasses.replace(stored, **{name: given[name] for name in given if name != "resume"})
    if config.epochs <= done:
        raise UserError(f"--resume {path}: {done} epochs are done; to go on give --epochs above that")
    log(f"resuming {path} after {done} of {config.epochs} epochs")
    return config, path.parent.parent, checkpoint


def load_data(config: TrainConfig) -> TrainingData:
    """Read and check what the run trains and selects on."""
    return prepare_training(
        config.data,
        train=config.train,
        val=config.val,
        classes=config.classes,
        unlabelled=config.unlabelled,
        skip_bad=config.skip_bad,
        seed=config.seed,
    )


def build_loader(config: TrainConfig, dataset: VocDataset) -> tuple[DataLoader[Any], EpochSampler]:
    """Build the loader of augmented batches, and the sampler that is told the epoch."""
    settings = AugmentSettings(config.mosaic, config.mixup)
    close_epoch = config.epochs - config.close_mosaic
    samples = TrainDataset(dataset, config.imgsz, settings, config.seed, close_epoch=close_epoch)
    return build_train_loader(samples, batch_size=config.batch_size, workers=config.workers)


def build_optimization(
    config: TrainConfig, model: YoloBody, steps_per_epoch: int
) -> tuple[Optimizer, LRScheduler]:
    """Build the optimizer and the learning rate of each of its steps."""
    optimizer = build_optimizer(
        model,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        batch_size=config.batch_size,
    )
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    schedule = build_schedule(
        optimizer, total_steps=config.epochs * steps_per_epoch, warmup_steps=warmup_steps
    )
    return optimizer, schedule


def build_model(config: TrainConfig, class_names: tuple[str, ...], resumed: Checkpoint | None) -> YoloBody:
    """Build the network; unless the run is resumed it starts from --weights, which is printed."""
    if resumed is not None:
        if resumed.class_names != class_names:
            known, found = ", ".join(resumed.class_names), ", ".join(class_names)
            raise UserError(
                f"--resume: the run has the classes {known}, the data now {found}; start a new run"
            )
        return YoloBody(dataclasses.replace(resumed.config, phi=config.phi))
    shape = ModelConfig(len(class_names), config.phi, config.phi_at, config.imgsz)
    if config.weights == "none":
        return YoloBody(shape)
    source = read_weights(config.weights)
    if source.class_names is None:
        source = dataclasses.replace(source, class_names=_names_of(source, config.classes))
    meaning = {name: getattr(source.config, name) for name in ("anchors", "anchor_masks", "scale_x_y")}
    model = YoloBody(dataclasses.replace(shape, **meaning))
    lines = transfer(model, class_names, source, insert=config.insert, partial=config.partial)
    for line in lines:
        log(line)
    return model


def _names_of(source: WeightsFile, classes: str | None) -> tuple[str, ...] | None:
    """Name the classes of weights without names: by --classes where they are as many, else the usual ones."""
    num_classes = source.config.num_classes
    named = read_class_names(classes) if classes else ()
    return named if len(named) == num_classes else usual_class_names(num_classes)


def build_criterion(config: TrainConfig, model: YoloBody) -> YoloLoss:
    """Build the loss that belongs to a network."""
    return YoloLoss(
        num_classes=model.config.num_classes,
        anchors=model.config.anchors,
        anchor_masks=model.config.anchor_masks,
        scale_x_y=model.config.scale_x_y,
        label_smoothing=config.label_smoothing,
    )
