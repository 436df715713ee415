"""What a comparison says of itself: how long it will take, and on what it was made."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping, Sequence

import torch

from nets.config import ModelConfig
from utils.cli.console import log
from utils.cli.train_config import TrainConfig
from utils.compare.grid import GridRun
from utils.inference.device import choose_device
from utils.training.estimate import estimate_seconds, in_words
from utils.training.setup import build_criterion
from utils.weights.own_block import build_network


def log_estimate(runs: Sequence[GridRun], networks: Mapping[str, ModelConfig], num_images: int) -> None:
    """Say before the first run how long what is left will take, from a few steps of each kind of run."""
    seconds, left = 0.0, {run: run.epochs_left() for run in runs}
    for kind, one in {run.kind: run for run in runs if left[run]}.items():
        config = TrainConfig(**one.settings, phi=one.phi)
        model = build_network(networks[kind]).to(choose_device(config.device))
        whole = estimate_seconds(config, model, build_criterion(config, model), num_images)
        seconds += whole * sum(left[run] / run.epochs for run in runs if run.kind == kind)
    count = sum(epochs > 0 for epochs in left.values())
    needed = in_words(seconds)
    log(f"{count} of {len(runs)} runs of {num_images} images are left: about {needed} without evaluation")


def describe_machine() -> list[str]:
    """Return lines with the date, the machine and the versions."""
    processor = platform.processor() or platform.machine()
    with_gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return [
        f"{datetime.date.today()}, {platform.system()}, {processor}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads{with_gpu}",
        f"Python {platform.python_version()}, torch {torch.__version__}",
    ]
