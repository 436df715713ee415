"""Time of a training step on this CPU, beside the plain PyTorch way of writing it.

    python benchmarks/train_step.py

Each way runs in a process of its own, since memory settings hold for a whole process. The processes take
turns, a step each, so that all of them see the same machine. The table is also written to
benchmarks/results/train_step.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from nets.config import ModelConfig
from nets.structures import Target
from nets.yolo import YoloBody
from utils.cli.train_config import TrainConfig
from utils.compare.cost import describe_machine
from utils.training.builders import build_criterion, build_trainer
from utils.training.engine import EpochMeter, set_train_mode

CONFIG = ModelConfig(num_classes=20)
BATCH_SIZE, OBJECTS, WARM_UP, ATTEMPTS = 8, 4, 2, 3
TRUSTED = (0.95, 1.05)  # of the A/A ratio
WAYS = {
    "A": "plain PyTorch step, NCHW",
    "A again": "plain PyTorch step, NCHW",
    "B": "step of train.py, from random weights",
    "C": "step of train.py, from pretrained weights with frozen batch statistics",
}


def make_batch() -> tuple[Tensor, list[Target]]:
    """Return random images, uint8 (B, 3, 416, 416), with random boxes."""
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


def build_step(way: str) -> Callable[[], object]:
    """Return a function that does one step of a way; network, data and optimizer are the same in all."""
    images, targets = make_batch()
    torch.manual_seed(0)
    model = YoloBody(CONFIG).train()
    if way == "C":
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.running_mean, 0.01)  # no longer the initial one
    if way in ("B", "C"):
        trainer = build_trainer(TrainConfig(batch_size=BATCH_SIZE), model, 1000, 8000, torch.device("cpu"))
        set_train_mode(model, False, trainer.frozen_bn)
        return lambda: list(trainer.epoch([(images, targets)], EpochMeter(), "step"))
    criterion = build_criterion(TrainConfig(), model)
    optimizer = SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, nesterov=True)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)

    def step() -> None:
        losses = criterion(model(images.float().div_(255)), targets)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        ema.update_parameters(model)

    return step


def serve(way: str, pipe: Connection) -> None:
    """Do a step and send its milliseconds for each message, until None arrives."""
    step = build_step(way)
    while pipe.recv() is not None:
        started = time.perf_counter()
        step()
        pipe.send(1000 * (time.perf_counter() - started))


def measure(rounds: int) -> dict[str, float]:
    """Return the median milliseconds of a step of each way."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for way in WAYS:
        pipes[way], other = context.Pipe()
        processes.append(context.Process(target=serve, args=(way, other), daemon=True))
        processes[-1].start()
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(WARM_UP + rounds):
        for way, pipe in pipes.items():
            pipe.send("step")
            times[way].append(pipe.recv())
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(None)
        process.join()
    return {way: statistics.median(spent[WARM_UP:]) for way, spent in times.items()}


def main() -> None:
    """Measure, again while A differs from itself, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20, help="steps of each way that count")
    rounds = parser.parse_args().rounds
    for _ in range(ATTEMPTS):
        medians = measure(rounds)
        ratio = medians["A again"] / medians["A"]
        print(f"A/A ratio {ratio:.3f}", flush=True)
        if TRUSTED[0] <= ratio <= TRUSTED[1]:
            break
    verdict = "" if TRUSTED[0] <= ratio <= TRUSTED[1] else f", outside {TRUSTED}: do not trust this table"
    lines = [
        f"# Training step on the CPU\n\n`python benchmarks/train_step.py --rounds {rounds}`\n",
        *describe_machine(),
        f"416 x 416, batch {BATCH_SIZE}, {OBJECTS} objects an image, {CONFIG.num_classes} classes, phi none.",
        "Forward, loss, backward, clipping, SGD with Nesterov momentum and moving average.",
        f"A/A ratio {ratio:.3f}{verdict}; load average at the end {os.getloadavg()[0]:.1f}.\n",
        "| | | median ms | speed relative to A |\n|---|---|---|---|",
        *(f"| {w} | {WAYS[w]} | {ms:.0f} | {medians['A'] / ms:.2f} |" for w, ms in medians.items()),
    ]
    print("\n".join(lines))
    (ROOT / "benchmarks/results/train_step.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
