from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nets.assign import Assignment
from nets.config import ModelConfig
from nets.structures import Target
from tests.utils.data.conftest import Images, write_voc
from utils.cli.train_config import TrainConfig
from utils.data.voc_xml import VocObject
from utils.training.ema import ModelEma
from utils.training.engine import EpochMeter, Trainer, accumulated
from utils.training.optim import Schedule, build_optimizer

Batch = tuple[Tensor, list[Target]]
CAT = VocObject("cat", (5, 5, 35, 25))


class Net(nn.Module):
    """A backbone with a norm, and a head, as small as they come."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = ModelConfig(1, input_size=(32, 32))
        self.backbone = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Dropout(dropout))
        self.head = nn.Conv2d(2, 1, 1)
        self.attention, self.gains = nn.ModuleDict({"c4": nn.Identity()}), dict[str, float]()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


class Criterion(nn.Module):
    """A box loss of `factor` times the images' means of x + x^2; a positive is a truth.

    The class loss is the number of images, and one truth a batch is unassigned. `spoilt` says by the image's
    id whose loss is "nan" or "inf", whose "gradient" is infinite though the loss is finite, or whose "flat"
    loss is infinite though its gradient is 0.
    """

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.spoilt: dict[str, str] = {}
        self.types: set[torch.dtype] = set()  # of what the network gave

    def assign(self, targets: Sequence[Target], input_size: tuple[int, int]) -> Assignment:
        positives = torch.arange(sum(len(target) for target in targets))
        return Assignment(positives, positives, positives, unassigned=1)

    def divisor(self, assignment: Assignment, num_images: int) -> int:
        return len(assignment)

    def forward(
        self, raw: Tensor, targets: Sequence[Target], assignment: Assignment, divisor: float
    ) -> dict[str, Tensor]:
        self.types.add(raw.dtype)
        raw = raw.float()
        means = (raw + raw.square()).flatten(1).mean(dim=1)  # (B,)
        box = self.factor * means.sum()
        for mean, target in zip(means, targets, strict=True):
            kind = self.spoilt.get(target.image_id)
            if kind == "gradient":
                box = box + (mean - mean.detach()).sqrt()  # 0, and its derivative 1 / (2 sqrt 0)
            elif kind == "flat":
                box = box + math.inf
            elif kind is not None:
                box = box * float(kind)
        terms = {"box": box, "objectness": (raw * 0).sum(), "class": torch.tensor(float(len(targets)))}
        return {name: term / divisor for name, term in terms.items()}


def truths(count: int, image_id: str = "") -> Target:
    """Return a target of so many boxes, each another one."""
    shift = torch.arange(count)[:, None] * 9.0
    boxes = torch.tensor([[2.0, 4.0, 20.0, 29.0]]) + shift
    return Target(boxes, torch.arange(count) % 2, torch.zeros(count, dtype=torch.bool), image_id)


def make_batches(*counts: Sequence[int], side: int = 4, seed: int = 0) -> list[Batch]:
    """Return a batch for each sequence, with an image of so many truths for each number in it."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for place, numbers in enumerate(counts):
        images = torch.randint(0, 256, (len(numbers), 3, side, side), dtype=torch.uint8, generator=generator)
        batches.append((images, [truths(number, f"{place}_{i}") for i, number in enumerate(numbers)]))
    return batches


def merge(batches: Iterable[Batch]) -> Batch:
    """Return one batch of all images."""
    images, targets = zip(*batches, strict=True)
    return torch.cat(images), [target for part in targets for target in part]


def make_trainer(
    model: nn.Module | None = None,
    criterion: nn.Module | None = None,
    *,
    name: str = "sgd",
    lr: float = 0.1,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    total_steps: int = 8,
    warmup_steps: int = 0,
    with_ema: bool = False,
    seed: int = 0,
    **options: object,
) -> Trainer:
    """Build a trainer of a new network, or of the given one; --lr is for a batch of 16, which it has."""
    torch.manual_seed(seed)
    model = Net() if model is None else model
    config = TrainConfig(optimizer=name, lr=lr, momentum=momentum, weight_decay=weight_decay)
    optimizer = build_optimizer(model, config, 16)
    schedule = Schedule(optimizer, kind="cos", total_steps=total_steps, warmup_steps=warmup_steps)
    ema = ModelEma(model, steps_per_epoch=3) if with_ema else None
    return Trainer(model, criterion or Criterion(), optimizer, schedule, ema=ema, **options)


def train(
    trainer: Trainer, batches: Iterable[Batch], meter: EpochMeter | None = None, accumulate: int = 1
) -> EpochMeter:
    """Go through an epoch; returns its meter."""
    meter = EpochMeter() if meter is None else meter
    for _ in steps_of(trainer, batches, meter, accumulate):
        pass
    return meter


def steps_of(
    trainer: Trainer,
    batches: Iterable[Batch],
    meter: EpochMeter,
    accumulate: int = 1,
    label: str = "epoch 1/1",
) -> Iterator[EpochMeter]:
    """Go through an epoch; yields the meter after each step."""
    trainer.start_epoch(freeze_backbone=False)
    for group in accumulated(batches, accumulate, meter):
        assert trainer.step(group, meter, label)
        yield meter
    trainer.finish_step(meter, label)


def copy_of(module: nn.Module) -> dict[str, Tensor]:
    """Return a network's state as it is now."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    """Name what is not the same to the bit as before."""
    return {name for name, value in module.state_dict().items() if not torch.equal(before[name], value)}


MakeData = Callable[[Mapping[str, Images]], Path]


@pytest.fixture
def make_data(tmp_path: Path) -> MakeData:
    """Give a function that writes a folder in VOC layout: {split: {id: objects}}, images 40 x 30."""
    return lambda splits: write_voc(tmp_path / "voc", splits)
