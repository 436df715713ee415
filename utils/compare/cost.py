"""What an attention block costs: parameters, arithmetic and time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
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
_TRUSTED = (0.95, 1.05)  # what the ratio of a network to itself must lie in


@dataclass(frozen=True)
class Cost:
    """Attributes of a network.

    Attributes:
        parameters: learned numbers.
        gflops: 1e9 floating point operations an image, a multiply-add counted as two (convolutions and matrix
            products; the rest is left out).
        milliseconds: median time of the network alone on one image on the CPU.
        ratio: that time over the first network's.
    """

    parameters: int
    gflops: float
    milliseconds: float
    ratio: float


def measure_costs(configs: Sequence[ModelConfig]) -> tuple[list[Cost], float]:
    """Measure networks side by side on the CPU: one image each in turn, so that all see the same machine.

    Returns:
        The cost of each, and the A/A ratio: the first network's time over its own, measured as if it were
        another one. It says how far a ratio can be trusted; where it is not within 0.95 and 1.05 the
        measurement is repeated, at most twice.

    Raises:
        UserError: a block cannot be built.
    """
    models = [_build(config) for config in configs]
    images = [_noise(config) for config in configs]
    for _ in range(_ATTEMPTS):
        milliseconds = _interleaved_medians([*models, models[0]], [*images, images[0]])
        same = milliseconds.pop() / milliseconds[0]
        if _TRUSTED[0] <= same <= _TRUSTED[1]:
            break
    costs = [
        Cost(
            sum(p.numel() for p in model.parameters()), _gflops(model, image), spent, spent / milliseconds[0]
        )
        for model, image, spent in zip(models, images, milliseconds, strict=True)
    ]
    return costs, same


def _build(config: ModelConfig) -> YoloBody:
    try:
        return build_network(config).eval()
    except ValueError as error:
        raise UserError(f"--phi {config.phi}: {error}") from None


def _noise(config: ModelConfig) -> torch.Tensor:
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
