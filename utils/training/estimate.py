"""How long a run will take, measured on a few steps before it starts."""

from __future__ import annotations

import copy
import time

import torch

from nets.loss import YoloLoss
from nets.structures import Target
from nets.yolo import YoloBody
from utils.cli.console import log
from utils.cli.train_config import TrainConfig


def log_estimate(
    config: TrainConfig, model: YoloBody, criterion: YoloLoss, num_images: int, done: int
) -> None:
    """Say before the first epoch how long the run will take, and on a CPU which flags shorten it."""
    device = next(model.parameters()).device
    seconds = estimate_seconds(config, model, criterion, num_images, done)
    epochs, needed = config.epochs - done, in_words(seconds)
    log(f"{num_images} images, {epochs} epochs on {device}: about {needed} without evaluation")
    if device.type == "cpu" and seconds > 600:
        smaller = " ".join(map(str, smaller_size(config.imgsz)))
        half = config.epochs // 2
        log(f"shorter: --imgsz {smaller} takes about half of it, --freeze-epochs {half} three quarters")
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


def estimate_seconds_per_image(model: YoloBody, criterion: YoloLoss, freeze: bool) -> float:
    """Measure the seconds that training takes an image, on a copy of the network and images of noise."""
    trial, device, batch = copy.deepcopy(model).train(), next(model.parameters()).device, 4
    trial.backbone.requires_grad_(not freeze)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, *model.config.input_size, generator=generator).to(
        device, memory_format=torch.channels_last
    )
    target = Target(torch.tensor([[8.0, 8.0, 120.0, 90.0]]), torch.tensor([0]), torch.tensor([False]))
    with torch.random.fork_rng():  # a block that draws numbers shall draw the same in the run
        for _ in range(2):  # the first time pays for what is set up once
            started = time.perf_counter()
            torch.stack(list(criterion(trial(images), [target] * batch).values())).sum().backward()
            if device.type == "cuda":
                torch.cuda.synchronize()
    return (time.perf_counter() - started) / batch


def smaller_size(imgsz: tuple[int, int]) -> tuple[int, int]:
    """Return three quarters of a network input's (height, width), in steps of 32: half of the work."""
    height, width = (max(32, side * 3 // 4 // 32 * 32) for side in imgsz)
    return height, width


def in_words(seconds: float) -> str:
    """Write a time in its two largest units: '1 h 05 min', '3 min 20 s', '12 s'."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
