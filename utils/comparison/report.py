"""What a comparison says of itself: how long it will take, and on what it was made."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence

import torch

from nets.yolo import ModelConfig, YoloBody
from utils.config import TrainConfig
from utils.console import log
from utils.device import choose_device
from utils.training.report import estimate_seconds, in_words
from utils.training.start import build_criterion


def log_estimate(
    runs: Sequence[TrainConfig], networks: Sequence[ModelConfig], num_images: int, num_seeds: int
) -> None:
    """Say before the first run how long all of them will take, from a few steps of each block."""
    seconds = 0.0
    for config, network in zip(runs, networks, strict=True):
        model = YoloBody(network).to(choose_device(config.device))
        seconds += estimate_seconds(config, model, build_criterion(config, model), num_images)
    count, needed = len(runs) * num_seeds, in_words(num_seeds * seconds)
    log(f"{count} runs of {num_images} images: about {needed} without evaluation, less what is done")


def describe_machine() -> list[str]:
    """Return lines with the date, the machine and the versions."""
    processor = platform.processor() or platform.machine()
    with_gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return [
        f"{datetime.date.today()}, {platform.system()}, {processor}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads{with_gpu}",
        f"Python {platform.python_version()}, torch {torch.__version__}",
    ]
