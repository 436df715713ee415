"""Cost of a network: parameters, arithmetic and latency."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from nets.config import ModelConfig
from nets.yolo import YoloBody
from utils.cli.console import log, plural
from utils.cli.errors import UserError
from utils.weights.own_block import build_network

_ROUNDS = 30
_WARM_UP = 5
_ATTEMPTS = 3
_TRUSTED = (0.95, 1.05)  # of the A/A ratio


@dataclass(frozen=True)
class Cost:
    """Cost of a network."""

    parameters: int  # number of learned values
    # 1e9 floating point operations an image, of convolutions and matrix products; a multiply-add is two.
    gflops: float
    milliseconds: float  # median latency of the network alone on one image on the CPU
    ratio: float  # that latency over the first network's


def measure_costs(networks: Mapping[str, ModelConfig]) -> tuple[dict[str, Cost], float]:
    """Measure networks on the CPU, one image each in turn.

    Args:
        networks: by label; equal ones are measured once.

    Returns:
        The cost of each label, and the A/A ratio of `interleaved_medians`.

    Raises:
        UserError: a block cannot be built.
    """
    configs = list(dict.fromkeys(networks.values()))
    log(f"measuring the latency of {plural(len(configs), 'network')} on the CPU")
    models = [_build(config) for config in configs]
    images = [
        torch.rand(1, 3, *config.input_size, generator=torch.Generator().manual_seed(0)) for config in configs
    ]
    costs = {}
    with torch.inference_mode():
        latencies, aa_ratio = interleaved_medians(list(map(partial, models, images)), _ROUNDS)
        for config, model, image, latency in zip(configs, models, images, latencies, strict=True):
            with FlopCounterMode(display=False) as counter:
                model(image)
            parameters = sum(parameter.numel() for parameter in model.parameters())
            gflops = counter.get_total_flops() / 1e9
            costs[config] = Cost(parameters, gflops, latency, latency / latencies[0])
    return {label: costs[config] for label, config in networks.items()}, aa_ratio


def interleaved_medians(functions: Sequence[Callable[[], object]], rounds: int) -> tuple[list[float], float]:
    """Time functions in rounds in which all of them run once, so that they see the same machine.

    Returns:
        The median milliseconds of each, and the A/A ratio: the first function's over its own, measured as if
        it were another one. Outside 0.95 to 1.05 the measurement is repeated, at most twice.
    """
    for _ in range(_ATTEMPTS):
        times: list[list[float]] = [[] for _ in range(len(functions) + 1)]
        for round_number in range(_WARM_UP + rounds):
            for function, spent in zip([*functions, functions[0]], times, strict=True):
                started = time.perf_counter()
                function()
                if round_number >= _WARM_UP:
                    spent.append(1000 * (time.perf_counter() - started))
        *medians, again = map(statistics.median, times)
        aa_ratio = again / medians[0]
        if _TRUSTED[0] <= aa_ratio <= _TRUSTED[1]:
            break
    return medians, aa_ratio


def describe_latency(aa_ratio: float) -> str:
    """Return a line: what the times of `measure_costs` are, and whether they can be trusted."""
    low, high = _TRUSTED
    doubt = "" if low <= aa_ratio <= high else f", outside {low} to {high}: too noisy to compare times"
    return (
        "GFLOPs count a multiply-add as two; CPU ms is the latency of the network alone on one image, the "
        "median of interleaved rounds; the first network against itself (A/A) has the ratio "
        f"{aa_ratio:.3f}{doubt}"
    )


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
