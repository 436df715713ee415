"""How long a training step takes on this CPU, beside the plain PyTorch way of writing it.

`python benchmarks/train_step.py` prints the table and writes it to benchmarks/results/train_step.md. Each way
runs in a process of its own, since the memory settings hold for a whole process, and the processes take
turns, a step each, so that all of them see the same machine.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torch.optim import SGD

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.loop_loss import LoopLoss
from nets.config import ModelConfig
from nets.structures import Target
from nets.yolo import YoloBody
from utils.cli.train_config import TrainConfig
from utils.training.builders import build_criterion, build_trainer
from utils.training.engine import EpochMeter, set_train_mode

CONFIG = ModelConfig(num_classes=20)
BATCH_SIZE, OBJECTS, WARM_UP, ATTEMPTS = 8, 4, 2, 3
TRUSTED = (0.95, 1.05)  # what the ratio of a way to itself must lie in
RESULT = ROOT / "benchmarks/results/train_step.md"


@dataclass(frozen=True)
class Way:
    """A way to do a training step; the network, the data and the kind of optimizer are the same in all."""

    name: str
    our_loss: bool = False
    ours: bool = False  # the step of train.py
    held: bool = False  # with normalization statistics that came with weights


WAYS = (
    Way("A: plain NCHW step, loss with loops over images and boxes"),
    Way("A again"),
    Way("B: plain NCHW step, our loss", our_loss=True),
    Way("C: the step of train.py from random weights", ours=True),
    Way("D: the step of train.py from trained weights, whose statistics it holds", ours=True, held=True),
)


class LoopEma:
    """The moving average as a loop over the weights."""

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).eval()

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move every weight a little."""
        state = model.state_dict()
        for name, average in self.model.state_dict().items():
            if average.dtype.is_floating_point:
                average *= 0.999
                average += 0.001 * state[name].detach()


def make_batch() -> tuple[Tensor, list[Target]]:
    """Make uint8 noise (B, 3, 416, 416) and as many random boxes in each image."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        0, 256, (BATCH_SIZE, 3, *CONFIG.input_size), dtype=torch.uint8, generator=generator
    )
    targets = []
    for _ in range(BATCH_SIZE):
        centers = torch.rand(OBJECTS, 2, generator=generator) * CONFIG.input_size[0]
        halves = torch.rand(OBJECTS, 2, generator=generator) * 100 + 8
        labels = torch.randint(0, CONFIG.num_classes, (OBJECTS,), generator=generator)
        boxes = torch.cat((centers - halves, centers + halves), dim=1)
        targets.append(Target(boxes, labels, torch.zeros(OBJECTS, dtype=torch.bool)))
    return images, targets


def build_step(way: Way) -> Callable[[], object]:
    """Set a way up; returns what does one step."""
    images, targets = make_batch()
    torch.manual_seed(0)
    model = YoloBody(CONFIG).train()
    criterion = build_criterion(TrainConfig(), model)
    if way.held:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.running_mean, 0.01)  # no longer that of a new one
    if way.ours:
        trainer = build_trainer(TrainConfig(batch_size=BATCH_SIZE), model, 1000, 8000, torch.device("cpu"))
        set_train_mode(model, False, trainer.frozen_bn)
        return lambda: list(trainer.epoch([(images, targets)], EpochMeter(), "step"))
    optimizer = SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, nesterov=True)
    loop_loss, ema = LoopLoss(CONFIG), LoopEma(model)

    def step() -> None:
        raw_maps = model(images.float().div_(255))
        parts = criterion(raw_maps, targets) if way.our_loss else {"all": loop_loss(raw_maps, targets)}
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        ema.update(model)

    return step


def serve(way: Way, pipe: Connection) -> None:
    """Do a step and send its milliseconds whenever something arrives, until None does."""
    step = build_step(way)
    while pipe.recv() is not None:
        started = time.perf_counter()
        step()
        pipe.send(1000 * (time.perf_counter() - started))


def measure(rounds: int) -> list[float]:
    """Return the median milliseconds of a step of every way."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for way in WAYS:
        pipe, other = context.Pipe()
        processes.append(context.Process(target=serve, args=(way, other), daemon=True))
        processes[-1].start()
        pipes.append(pipe)
    times: list[list[float]] = [[] for _ in WAYS]
    for round_number in range(WARM_UP + rounds):
        for pipe, spent in zip(pipes, times, strict=True):
            pipe.send("step")
            step = pipe.recv()
            if round_number >= WARM_UP:
                spent.append(step)
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(None)
        process.join()
    return [statistics.median(spent) for spent in times]


def describe(medians: Sequence[float]) -> list[str]:
    """Return the lines of the table."""
    lines = ["| | median ms | times as fast as A | as B |", "|---|---|---|---|"]
    for way, median in zip(WAYS, medians, strict=True):
        lines.append(f"| {way.name} | {median:.0f} | {medians[0] / median:.2f} | {medians[2] / median:.2f} |")
    return lines


def main() -> None:
    """Measure, again where A differs from itself, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="counted steps of each way")
    rounds = parser.parse_args().rounds
    for _ in range(ATTEMPTS):
        medians = measure(rounds)
        same = medians[1] / medians[0]
        print(f"A/A ratio {same:.3f}", flush=True)
        if TRUSTED[0] <= same <= TRUSTED[1]:
            break
    verdict = "" if TRUSTED[0] <= same <= TRUSTED[1] else f", outside {TRUSTED}: do not trust this table"
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    lines = [
        "# A training step on the CPU",
        "",
        f"`python benchmarks/train_step.py --rounds {rounds}`",
        "",
        f"{datetime.date.today()}, {machine}, {torch.get_num_threads()} threads. Python",
        f"{platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}.",
        f"416 x 416, batch {BATCH_SIZE}, {OBJECTS} objects an image, {CONFIG.num_classes} classes, phi none.",
        "Forward, loss, backward, clipping, SGD with Nesterov momentum and moving average, in turn.",
        f"A/A ratio {same:.3f}{verdict}; load average at the end {os.getloadavg()[0]:.1f}.",
        "",
        *describe(medians),
    ]
    print("\n".join(lines))
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
