"""Training engine: one step, one epoch, and the state that a step changes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nets.loss import YoloLoss
from nets.structures import Target
from nets.yolo import YoloBody
from utils.cli.console import progress, warn
from utils.cli.errors import UserError
from utils.training.distributed import all_reduce_sum
from utils.training.ema import ModelEma
from utils.training.optim import Schedule

Batch = tuple[Tensor, list[Target]]
PARTS = ("box", "objectness", "class")
MAX_SKIPPED = 5  # steps in a row with a loss or gradient that is not finite, before the run stops


@dataclass
class EpochMeter:
    """Running totals of an epoch; part of a checkpoint, so that a resumed epoch ends in the same row.

    Attributes:
        batches: loader batches done, skipped steps included: the position in the epoch.
        steps: optimizer steps.
        skipped: steps that were skipped because their loss or gradient was not finite.
        images: images of the steps, over all processes.
        unassigned: ground truths without a free anchor.
        losses: sums of the steps' losses, by part.
        seconds: time spent training.
        waited: seconds of it spent waiting for data.
        lr: learning rate of the last step.
    """

    batches: int = 0
    steps: int = 0
    skipped: int = 0
    images: int = 0
    unassigned: int = 0
    losses: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    seconds: float = 0.0
    waited: float = 0.0
    lr: float = 0.0

    def means(self) -> dict[str, float]:
        """Return the mean loss a step, by part."""
        return {name: total / max(self.steps - self.skipped, 1) for name, total in self.losses.items()}

    def line(self) -> str:
        """Return the mean losses as text for a progress line."""
        return "  ".join(f"{name} {value:.3f}" for name, value in self.means().items())

    def as_row(self) -> dict[str, float]:
        """Return the values by column of results.csv."""
        return {
            "lr": self.lr,
            **self.means(),
            "images_per_second": self.images / max(self.seconds, 1e-9),
            "seconds": self.seconds,
            "waiting": self.waited / max(self.seconds, 1e-9),
            "unassigned": self.unassigned,
            "skipped": self.skipped,
        }


def set_train_mode(model: YoloBody, freeze_backbone: bool, frozen_bn: Iterable[str] = ()) -> None:
    """Set train mode, with frozen weights and batch statistics where wanted.

    Args:
        model: the network.
        freeze_backbone: freeze the backbone's weights and batch statistics.
        frozen_bn: names of the BatchNorm layers whose statistics are always frozen.
    """
    model.train()
    model.backbone.requires_grad_(not freeze_backbone)
    model.backbone.train(not freeze_backbone)
    for name in frozen_bn:
        model.get_submodule(name).eval()


def pretrained_bn(model: nn.Module) -> list[str]:
    """Return the names of the BatchNorm layers whose statistics are not the initial ones."""
    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    return [
        name
        for name, norm in norms.items()
        if norm.running_mean is not None
        and norm.running_var is not None
        and not (bool((norm.running_mean == 0).all()) and bool((norm.running_var == 1).all()))
    ]


class Trainer:
    """A network with everything that a training step changes; its state resumes bit for bit.

    A step takes `accumulate` batches. Its gradient is that of the sum of their losses, divided by the
    positives of all of them on all ranks. This is the gradient of one large batch, but batch normalization
    sees each batch alone.
    """

    def __init__(
        self,
        model: YoloBody,
        criterion: YoloLoss,
        optimizer: Optimizer,
        schedule: Schedule,
        *,
        ema: ModelEma | None = None,
        frozen_bn: Sequence[str] = (),
        accumulate: int = 1,
        clip_grad: float = 0.0,
        autocast: torch.dtype | None = None,
        compiled: bool = False,
    ) -> None:
        """Store the parts of the training.

        Args:
            model: the network, on the training device.
            criterion: the loss.
            optimizer: over the model's parameters.
            schedule: over the optimizer.
            ema: the model's moving average, None for none.
            frozen_bn: names of the BatchNorm layers with frozen statistics.
            accumulate: batches a step.
            clip_grad: maximum norm of the gradient over all parameters, 0 for no limit.
            autocast: torch.bfloat16 or torch.float16 for mixed precision, None for float32.
            compiled: run the network through torch.compile.
        """
        self.model, self.criterion, self.ema = model, criterion, ema
        self.frozen_bn = list(frozen_bn)
        self.optimizer, self.schedule = optimizer, schedule
        self.accumulate, self.clip_grad, self.autocast = accumulate, clip_grad, autocast
        self.device = next(model.parameters()).device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=autocast == torch.float16)
        self._network = torch.compile(model) if compiled else model
        self._buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self._skipped_in_a_row = 0

    @property
    def average(self) -> YoloBody:
        """The network to evaluate and share: the moving average if there is one."""
        return self.model if self.ema is None else cast(YoloBody, self.ema.model)

    @property
    def is_finite(self) -> bool:
        """Whether the state may be saved: the last step was not skipped, and all weights are finite."""
        weights = [*self.model.parameters(), *self.average.parameters(), *self.average.buffers()]
        return self._skipped_in_a_row == 0 and all(bool(weight.isfinite().all()) for weight in weights)

    def epoch(
        self, batches: Iterable[Batch], meter: EpochMeter, label: str, total: int | None = None
    ) -> Iterator[EpochMeter]:
        """Train on the batches; yields the meter after each step, when the state may be saved.

        Args:
            batches: the rest of the epoch.
            meter: totals of the epoch, updated in place.
            label: name of the epoch on the console.
            total: number of the batches.

        Raises:
            UserError: the loss or its gradient was not finite in `MAX_SKIPPED` steps in a row. These changed
                nothing; the message names the images of the last one.
        """
        groups = self._groups(iter(batches), meter)
        steps = None if total is None else math.ceil(total / self.accumulate)
        for group in progress(groups, label, total=steps, unit="step", status=meter.line):
            started = time.perf_counter()
            self._step(group, meter, label)
            meter.seconds += time.perf_counter() - started
            yield meter

    def _groups(self, batches: Iterator[Batch], meter: EpochMeter) -> Iterator[list[Batch]]:
        """Yield the batches of each step; the last step of an epoch may have fewer."""
        while True:
            started = time.perf_counter()
            group = list(islice(batches, self.accumulate))
            spent = time.perf_counter() - started
            meter.waited, meter.seconds = meter.waited + spent, meter.seconds + spent
            if not group:
                return
            yield group

    def _step(self, group: Sequence[Batch], meter: EpochMeter, label: str) -> None:
        meter.lr = self.schedule.set_lr()
        buffers = [buffer.clone() for buffer in self._buffers]
        self.optimizer.zero_grad(set_to_none=True)
        counted = torch.stack([self._add_gradients(*batch) for batch in group]).sum(dim=0)  # (6,)
        norm = self._finish_gradients(counted)
        *losses, divisor, unassigned, images, size = torch.cat((counted, norm[None])).tolist()
        losses = [loss / max(divisor, 1) for loss in losses]
        meter.batches += len(group)
        meter.steps += 1
        self.schedule.step += 1
        is_loss_finite = math.isfinite(sum(losses))
        # float16 overflows now and then: the scaler then skips the step and halves the scale, down to 1.
        is_overflow = self.scaler.is_enabled() and self.scaler.get_scale() > 1
        if is_loss_finite and (math.isfinite(size) or is_overflow):
            self._skipped_in_a_row = 0
            self.scaler.step(self.optimizer)
            if self.ema is not None:
                self.ema.update(self.model)
            meter.images += int(images)
            meter.unassigned += int(unassigned)
            for name, loss in zip(PARTS, losses, strict=True):
                meter.losses[name] += loss
        else:
            torch._foreach_copy_(self._buffers, buffers)  # the forward pass updated the statistics
            self._skip(group, meter, label, "gradient" if is_loss_finite else "loss")
        self.scaler.update()

    def _add_gradients(self, images: Tensor, targets: Sequence[Target]) -> Tensor:
        """Accumulate the gradients of a batch; returns its sums: losses, divisor, counts, Tensor[6]."""
        images = images.to(self.device, non_blocking=True)
        images = images.contiguous(memory_format=torch.channels_last).float().div_(255)
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            raw_maps = self._network(images)
        sums = self.criterion.sums(raw_maps, targets)
        losses = torch.stack([sums.parts[name] for name in PARTS])
        self.scaler.scale(losses.sum()).backward()
        counts = losses.new_tensor([len(images)])
        return torch.cat((losses.detach(), sums.divisor[None], sums.unassigned[None], counts))

    def _finish_gradients(self, counted: Tensor) -> Tensor:
        """Reduce gradients and counts over the ranks, divide by the divisor, clip; returns the norm."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        all_reduce_sum([*gradients, counted])
        self.scaler.unscale_(self.optimizer)
        torch._foreach_div_(gradients, counted[3].clamp(min=1))
        norm = nn.utils.get_total_norm(gradients)
        if self.clip_grad:
            torch._foreach_mul_(gradients, (self.clip_grad / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def _skip(self, group: Sequence[Batch], meter: EpochMeter, label: str, what: str) -> None:
        meter.skipped += 1
        self._skipped_in_a_row += 1
        names = ", ".join(target.image_id for _, targets in group for target in targets)
        place = f"{what} is not finite at {label} step {meter.steps}, images {names}"
        if self._skipped_in_a_row == MAX_SKIPPED:
            raise UserError(f"{place}: {MAX_SKIPPED} steps in a row; try a lower --lr", exit_code=1)
        warn(f"{place}; the step is skipped")

    def state_dict(self) -> dict[str, Any]:
        """Return the state for resuming; it loads with `weights_only=True`."""
        # Only a custom block may draw random numbers.
        cuda = {"cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else {}
        return {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {"step": self.schedule.step},
            "scaler": self.scaler.state_dict(),
            "held_norms": self.frozen_bn,  # the key of checkpoint format 1
            "skipped_in_a_row": self._skipped_in_a_row,
            "random": {"cpu": torch.get_rng_state(), **cuda},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the state that `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.step = state["schedule"]["step"]
        self.scaler.load_state_dict(state["scaler"])
        self.frozen_bn = list(state.get("held_norms", ()))  # missing in the first checkpoints
        self._skipped_in_a_row = state["skipped_in_a_row"]
        torch.set_rng_state(state["random"]["cpu"])
        if self.device.type == "cuda" and "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)
