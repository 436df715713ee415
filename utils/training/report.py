"""What a training run says on the console: how long it will take, how an epoch went, what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import torch

from nets.loss import YoloLoss
from nets.yolo import YoloBody
from utils.config import TrainConfig
from utils.console import log
from utils.data.layout import choose_evaluation_splits
from utils.data.prepare import TrainingData
from utils.errors import UserError
from utils.training.run import estimate_seconds_per_image


def log_estimate(
    config: TrainConfig, model: YoloBody, criterion: YoloLoss, num_images: int, done: int
) -> None:
    """Say before the first epoch how long the run will take, and on a CPU which flags shorten it."""
    device = next(model.parameters()).device
    seconds = estimate_seconds(config, model, criterion, num_images, done)
    epochs, needed = config.epochs - done, in_words(seconds)
    log(f"{num_images} images, {epochs} epochs on {device}: about {needed} without evaluation")
    if device.type == "cpu" and seconds > 600:
        smaller = " ".join(str(max(32, side * 3 // 4 // 32 * 32)) for side in config.imgsz)
        half = config.epochs // 2
        log(f"shorter: --imgsz {smaller} takes about half of it, --freeze-epochs {half} two thirds")
    elif device.type == "cpu" and torch.cuda.is_available():
        log("there is a GPU: --device cuda uses it")


def estimate_seconds(
    config: TrainConfig, model: YoloBody, criterion: YoloLoss, num_images: int, done: int = 0
) -> float:
    """Estimate from a few steps how long a run will take without its evaluations, after `done` epochs."""
    frozen_epochs = max(min(config.freeze_epochs, config.epochs) - done, 0)
    free_epochs = config.epochs - done - frozen_epochs
    return sum(
        epochs * num_images * estimate_seconds_per_image(model, criterion, freeze)
        for epochs, freeze in ((frozen_epochs, True), (free_epochs, False))
        if epochs
    )


def describe_epoch(label: str, row: Mapping[str, float | int]) -> str:
    """Write an epoch's row of results.csv as a line."""
    parts = [label, *(f"{name} {row[name]:.3f}" for name in ("box", "objectness", "class"))]
    parts += [f"{name} {row[name]:.4f}" for name in ("map50", "map50_95") if row.get(name) is not None]
    parts += [f"lr {row['lr']:.2g}", f"{row['images_per_second']:.1f} images/s", in_words(row["seconds"])]
    if row["unassigned"]:
        parts.append(f"{row['unassigned']} objects without a free anchor")
    return "  ".join(parts)


def log_next_commands(config: TrainConfig, best: Path, data: TrainingData) -> None:
    """Say what to type after training; the commands run as they are printed."""
    known = ["--weights", str(best), *(["--phi", config.phi] if ":" in config.phi else [])]
    measure = ["python", "evaluate.py", *known, "--data", config.data]
    try:
        choose_evaluation_splits(config.data)
    except UserError:
        measure += ["--split", *data.train_splits]
        log("no test or val split: what evaluate shows below is of the training images, and flatters")
    log(f"best weights: {best}")
    log(f"evaluate: {shlex.join(measure)}")
    log(f"predict:  {shlex.join(['python', 'predict.py', str(data.train.records[0].image_path), *known])}")
    log(f"export:   {shlex.join(['python', 'export.py', *known])}")


def in_words(seconds: float) -> str:
    """Write a time in its two largest units: '1 h 05 min', '3 min 20 s', '12 s'."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
