"""Time of a training step on this CPU, beside the plain PyTorch way of writing it.

The ways take turns, a step each, so that all of them see the same machine: python benchmarks/train_step.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from nets.config import ModelConfig
from nets.structures import Target
from nets.yolo import YoloBody
from utils.cli.train_config import TrainConfig
from utils.compare.cost import describe_machine, interleaved_medians
from utils.inference.device import has_fast_bfloat16
from utils.training.builders import build_criterion, build_trainer
from utils.training.engine import EpochMeter

CONFIG = ModelConfig(num_classes=20)
BATCH_SIZE, OBJECTS = 8, 4
WAYS = {
    "A": "plain PyTorch step, NCHW, float32",
    "B": "step of train.py, from random weights, --no-amp",
    "C": "step of train.py, from pretrained weights with frozen batch statistics, --no-amp",
    "D": "step of train.py, from random weights, --amp (bfloat16)",
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
    if way != "A":
        config = TrainConfig(batch_size=BATCH_SIZE, amp=way == "D")
        trainer = build_trainer(config, model, 1000, 8000, torch.device("cpu"))
        trainer.start_epoch(freeze_backbone=False)
        return lambda: trainer.step([(images, targets)], EpochMeter())
    criterion = build_criterion(TrainConfig(), model)
    optimizer = SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, nesterov=True)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)

    def step() -> None:
        raw_maps = model(images.float().div_(255))
        assignment = criterion.assign(targets, CONFIG.input_size)
        losses = criterion(raw_maps, targets, assignment, max(len(assignment), 1))
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        ema.update_parameters(model)

    return step


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="steps of each way that count")
    rounds = parser.parse_args().rounds
    is_fast = has_fast_bfloat16(torch.device("cpu"))
    ways = {way: text for way, text in WAYS.items() if way != "D" or is_fast}  # else it takes minutes a step
    medians, aa_ratio = interleaved_medians([build_step(way) for way in ways], rounds)
    print(*describe_machine(), sep="\n")
    print(f"bfloat16 instructions: {'yes' if is_fast else 'no: way D is left out'}.")
    print(
        f"416 x 416, batch {BATCH_SIZE}, {OBJECTS} objects an image, {CONFIG.num_classes} classes, phi none."
    )
    print("Forward, loss, backward, clipping, SGD with Nesterov momentum and moving average.")
    print(f"A/A ratio {aa_ratio:.3f}; outside 0.95 to 1.05 do not trust this table.\n")
    print("| | | median ms | speed relative to A |\n|---|---|---|---|")
    for (way, text), median in zip(ways.items(), medians, strict=True):
        print(f"| {way} | {text} | {median:.0f} | {medians[0] / median:.2f} |")


if __name__ == "__main__":
    main()
