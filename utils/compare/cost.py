"""Cost of a network: parameters, arithmetic and latency."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from nets.config import ModelConfig
from nets.yolo import YoloBody
from utils.cli.errors import UserError
from utils.weights.own_block import build_network

_ROUNDS = 30
_WARM_UP = 5
_ATTEMPTS = 3
_TRUSTED = (0.95, 1.05)  # of the A/A ratio


@dataclass(frozen=True)
class Cost:
    """Cost of a network.

    Attributes:
        parameters: number of learned values.
        gflops: 1e9 floating point operations an image, a multiply-add counted as two; convolutions and matrix
            products only.
        milliseconds: median latency of the network alone on one image on the CPU.
        ratio: that latency over the first network's.
    """

    parameters: int
    gflops: float
    milliseconds: float
    ratio: float


def measure_costs(networks: Mapping[str, ModelConfig]) -> tuple[dict[str, Cost], float]:
    """Measure networks on the CPU, one image each in turn, so that all of them see the same machine.

    Args:
        networks: by label; equal ones are measured once.

    Returns:
        The cost of each label, and the A/A ratio: the first network's latency over its own, measured as if it
        were another one. Outside 0.95 to 1.05 the measurement is repeated, at most twice.

    Raises:
        UserError: a block cannot be built.
    """
    configs = list(dict.fromkeys(networks.values()))
    models = [_build(config) for config in configs]
    images = [_random_image(config) for config in configs]
    for _ in range(_ATTEMPTS):
        milliseconds = _interleaved_medians([*models, models[0]], [*images, images[0]])
        aa_ratio = milliseconds.pop() / milliseconds[0]
        if _TRUSTED[0] <= aa_ratio <= _TRUSTED[1]:
            break
    costs = {
        config: Cost(
            sum(p.numel() for p in model.parameters()), _gflops(model, image), spent, spent / milliseconds[0]
        )
        for config, model, image, spent in zip(configs, models, images, milliseconds, strict=True)
    }
    return {label: costs[config] for label, config in networks.items()}, aa_ratio


def describe_machine() -> list[str]:
    """Return two lines: date and machine, and versions."""
    processor = platform.processor() or platform.machine()
    with_gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return [
        f"{datetime.date.today()}, {platform.system()}, {processor}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads{with_gpu}",
        f"Python {platform.python_version()}, torch {torch.__version__}",
    ]


def _build(config: ModelConfig) -> YoloBody:
    try:
        return build_network(config).eval()
    except ValueError as error:
        raise UserError(f"--phi {config.phi}: {error}") from None


def _random_image(config: ModelConfig) -> torch.Tensor:
    return torch.rand(1, 3, *config.input_size, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def _interleaved_medians(models: Sequence[YoloBody], images: Sequence[torch.Tensor]) -> list[float]:
    """Return the median milliseconds of each network over rounds in which all of them run once."""
    times: list[list[float]] = [[] for _ in models]
    for round_number in range(_WARM_UP + _ROUNDS):
        for model, image, spent in zip(models, images, times, strict=True):
            started = time.perf_counter()
            model(image)
            if round_number >= _WARM_UP:
                spent.append(1000 * (time.perf_counter() - started))
    return [statistics.median(spent) for spent in times]


@torch.inference_mode()
def _gflops(model: YoloBody, image: torch.Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops() / 1e9
