"""How long a training step takes on this CPU, beside the plain PyTorch way of writing it.

`python benchmarks/train_step.py` prints the table and writes it to benchmarks/results/train_step.md. Each way
runs in a process of its own, since the memory settings hold for a whole process, and the processes take
turns, a step each, so that all of them see the same machine. The ratios are those of the time by the clock;
processor time, all threads together, stands beside it.
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
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.loop_loss import LoopLoss
from nets.loss import YoloLoss
from nets.structures import Target
from nets.yolo import ModelConfig, YoloBody
from utils.training.ema import ModelEma
from utils.training.memory import keep_freed_memory
from utils.training.optim import build_optimizer

CONFIG = ModelConfig(num_classes=20)
BATCH_SIZE, OBJECTS, WARM_UP, ATTEMPTS = 8, 4, 2, 3
TRUSTED = (0.95, 1.05)  # what the ratio of a way to itself must lie in
Times = list[list[tuple[float, float]]]
RESULT = ROOT / "benchmarks/results/train_step.md"


@dataclass(frozen=True)
class Way:
    """A way to do a training step; the network, the data and the optimizer are the same in all of them."""

    name: str
    loops: bool  # the loss and the average with Python loops, or ours
    tuned: bool  # channels last, and freed memory kept


WAYS = (
    Way("A: NCHW, loops over boxes and weights", loops=True, tuned=False),
    Way("A again", loops=True, tuned=False),
    Way("B: NCHW, our loss and average", loops=False, tuned=False),
    Way("C: ours", loops=False, tuned=True),
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
        centres = torch.rand(OBJECTS, 2, generator=generator) * CONFIG.input_size[0]
        halves = torch.rand(OBJECTS, 2, generator=generator) * 100 + 8
        labels = torch.randint(0, CONFIG.num_classes, (OBJECTS,), generator=generator)
        boxes = torch.cat((centres - halves, centres + halves), dim=1)
        targets.append(Target(boxes, labels, torch.zeros(OBJECTS, dtype=torch.bool)))
    return images, targets


def serve(way: Way, pipe: Connection) -> None:
    """Do a step and send its milliseconds (processor, clock) whenever something arrives, until None does."""
    if way.tuned:
        keep_freed_memory()
    layout = torch.channels_last if way.tuned else torch.contiguous_format
    torch.manual_seed(0)
    model = YoloBody(CONFIG).to(memory_format=layout).train()
    criterion = YoloLoss(
        num_classes=CONFIG.num_classes,
        anchors=CONFIG.anchors,
        anchor_masks=CONFIG.anchor_masks,
        scale_x_y=CONFIG.scale_x_y,
    )
    optimizer = build_optimizer(model, lr=1e-3, momentum=0.9, weight_decay=5e-4, batch_size=BATCH_SIZE)
    loop_loss, ema = LoopLoss(CONFIG), LoopEma(model) if way.loops else ModelEma(model, steps_per_epoch=1000)
    images, targets = make_batch()
    while pipe.recv() is not None:
        started, worked = time.perf_counter(), time.process_time()
        raw_maps = model(images.to(memory_format=layout).float().div_(255))
        losses = loop_loss(raw_maps, targets) if way.loops else criterion(raw_maps, targets)
        total = losses if way.loops else torch.stack(list(losses.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        ema.update(model)
        pipe.send((1000 * (time.process_time() - worked), 1000 * (time.perf_counter() - started)))


def measure(rounds: int) -> Times:
    """Return the milliseconds (processor, clock) of every step of every way."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for way in WAYS:
        pipe, other = context.Pipe()
        processes.append(context.Process(target=serve, args=(way, other), daemon=True))
        processes[-1].start()
        pipes.append(pipe)
    times: Times = [[] for _ in WAYS]
    for round_number in range(WARM_UP + rounds):
        for pipe, spent in zip(pipes, times, strict=True):
            pipe.send("step")
            step = pipe.recv()
            if round_number >= WARM_UP:
                spent.append(step)
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(None)
        process.join()
    return times


def clock_median(spent: list[tuple[float, float]]) -> float:
    """Return the median milliseconds by the clock."""
    return statistics.median(step[1] for step in spent)


def describe(times: Times) -> list[str]:
    """Return the lines of the table."""
    medians = [clock_median(spent) for spent in times]
    lines = [
        "| | median ms | processor ms | times A's speed | times B's speed |",
        "|---|---|---|---|---|",
    ]
    for way, spent, median in zip(WAYS, times, medians, strict=True):
        processor = statistics.median(step[0] for step in spent)
        ratios = f"{medians[0] / median:.2f} | {medians[2] / median:.2f}"
        lines.append(f"| {way.name} | {median:.0f} | {processor:.0f} | {ratios} |")
    return lines


def main() -> None:
    """Measure, again where A differs from itself, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="counted steps of each way")
    rounds = parser.parse_args().rounds
    for _ in range(ATTEMPTS):
        times = measure(rounds)
        same = clock_median(times[1]) / clock_median(times[0])
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
        *describe(times),
    ]
    print("\n".join(lines))
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
