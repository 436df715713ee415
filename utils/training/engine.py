"""One epoch of training."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nets.loss import YoloLoss
from nets.structures import Target
from nets.yolo import YoloBody
from utils.console import progress
from utils.errors import UserError
from utils.training.ema import ModelEma

Batch = tuple[Tensor, list[Target]]
_LARGEST_GRADIENT = 10.0  # norm over all parameters; a single odd batch must not undo what was learnt


@dataclass(frozen=True)
class EpochResult:
    """Means over the steps of an epoch, the time it took, and the truths that no slot was left for."""

    losses: dict[str, float]
    seconds: float
    images: int
    unassigned: int

    def as_row(self) -> dict[str, float]:
        """Return the values by the names of the columns of results.csv."""
        speed = {"images_per_second": self.images / self.seconds, "seconds": self.seconds}
        return {**self.losses, **speed, "unassigned": self.unassigned}


class _RunningMeans:
    """Means of named losses, and a line that shows them."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, losses: dict[str, Tensor]) -> None:
        self.count += 1
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value.detach()

    def values(self) -> dict[str, float]:
        return {name: value.item() / self.count for name, value in self.sums.items()}

    def line(self) -> str:
        return "  ".join(f"{name} {value:.3f}" for name, value in self.values().items())


def set_frozen(model: YoloBody, frozen: bool) -> None:
    """Set train mode, with the backbone's weights and normalization statistics held still if it is frozen."""
    model.train()
    model.backbone.requires_grad_(not frozen)
    model.backbone.train(not frozen)


def train_one_epoch(
    model: nn.Module,
    criterion: YoloLoss,
    batches: Iterable[Batch],
    optimizer: Optimizer,
    schedule: LRScheduler,
    ema: ModelEma | None,
    device: torch.device,
    label: str,
) -> EpochResult:
    """Go once through the batches, a step each.

    Raises:
        UserError: the loss is no finite number; nothing was written, and the message names the images.
    """
    started, images_seen, unassigned, means = time.perf_counter(), 0, 0, _RunningMeans()
    for step, (images, targets) in enumerate(
        progress(batches, label, unit="step", status=means.line), start=1
    ):
        sums = criterion.sums(model(images.to(device, non_blocking=True).float().div_(255)), targets)
        losses = {name: part / sums.positives.clamp(min=1) for name, part in sums.parts.items()}
        total = torch.stack(list(losses.values())).sum()
        if not math.isfinite(total.item()):
            names = ", ".join(target.image_id for target in targets)
            raise UserError(
                f"loss is {total.item()} at {label} step {step}, images {names}; try a lower --lr", 1
            )
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), _LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        if ema is not None:
            ema.update(model)
        means.add(losses)
        images_seen += len(images)
        unassigned += int(sums.unassigned)
    return EpochResult(means.values(), time.perf_counter() - started, images_seen, unassigned)
