"""Training: the steps of an epoch, and everything that a step changes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
from utils.training.distributed import sum_over_processes
from utils.training.ema import ModelEma
from utils.training.optim import Schedule

Batch = tuple[Tensor, list[Target]]
PARTS = ("box", "objectness", "class")
MOST_SKIPPED = 5  # steps in a row whose loss or gradient is no finite number, before the run gives up


@dataclass
class EpochMeter:
    """What an epoch has given so far; part of a checkpoint, so that a resumed epoch ends in the same row.

    Attributes:
        batches: batches of the loader that are done, with those of skipped steps: the place in the epoch.
        steps: steps of the optimizer.
        skipped: steps that were left out because a number in them was not finite.
        images: images of the steps, over all processes.
        unassigned: truths that no slot was left for.
        losses: sums of the steps' losses, by part.
        seconds: time spent training.
        waited: seconds of it that the network waited for data.
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
        """Return the mean loss of a step, by part."""
        return {name: total / max(self.steps - self.skipped, 1) for name, total in self.losses.items()}

    def line(self) -> str:
        """Return the means for a line of progress."""
        return "  ".join(f"{name} {value:.3f}" for name, value in self.means().items())

    def as_row(self) -> dict[str, float]:
        """Return the values by the names of the columns of results.csv."""
        return {
            "lr": self.lr,
            **self.means(),
            "images_per_second": self.images / max(self.seconds, 1e-9),
            "seconds": self.seconds,
            "waiting": self.waited / max(self.seconds, 1e-9),
            "unassigned": self.unassigned,
            "skipped": self.skipped,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers by name, which the constructor takes back."""
        return asdict(self)


def set_frozen(model: YoloBody, frozen: bool, held_norms: Iterable[str] = ()) -> None:
    """Set train mode, with the backbone's weights and normalization statistics held still if it is frozen.

    Args:
        model: the network.
        frozen: whether the backbone is.
        held_norms: names of the batch normalizations whose statistics are held still in any case.
    """
    model.train()
    model.backbone.requires_grad_(not frozen)
    model.backbone.train(not frozen)
    for name in held_norms:
        model.get_submodule(name).eval()


def known_norms(model: nn.Module) -> list[str]:
    """Return the names of the batch normalizations whose statistics are not those of a new one."""
    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    return [
        name
        for name, norm in norms.items()
        if norm.running_mean is not None
        and norm.running_var is not None
        and not (bool((norm.running_mean == 0).all()) and bool((norm.running_var == 1).all()))
    ]


class Trainer:
    """A network with all that a training step changes: its state resumes to the same bits.

    A step takes `accumulate` batches. Its gradient is that of the sum of their losses, divided by the
    positives of all of them in all processes: the gradient of one large batch, but for what batch
    normalization sees, which is each batch alone.
    """

    def __init__(
        self,
        model: YoloBody,
        criterion: YoloLoss,
        optimizer: Optimizer,
        schedule: Schedule,
        *,
        ema: ModelEma | None = None,
        held_norms: Sequence[str] = (),
        accumulate: int = 1,
        clip_grad: float = 0.0,
        autocast: torch.dtype | None = None,
        compiled: bool = False,
    ) -> None:
        """Take over what is trained, and what trains it.

        Args:
            model: on the device that it shall be trained on.
            criterion: the loss.
            optimizer: over the model's parameters.
            schedule: over the optimizer.
            ema: follows the model, None for no average.
            held_norms: names of the batch normalizations that keep their statistics.
            accumulate: batches a step.
            clip_grad: largest norm of the gradient over all parameters, 0 for no limit.
            autocast: torch.bfloat16 or torch.float16 for mixed precision, None for float32.
            compiled: run the network through torch.compile.
        """
        self.model, self.criterion, self.ema = model, criterion, ema
        self.held_norms = list(held_norms)
        self.optimizer, self.schedule = optimizer, schedule
        self.accumulate, self.clip_grad, self.autocast = accumulate, clip_grad, autocast
        self.device = next(model.parameters()).device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=autocast == torch.float16)
        self._network = torch.compile(model) if compiled else model
        self._buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self._skipped_in_a_row = 0

    @property
    def average(self) -> YoloBody:
        """The network to evaluate and share."""
        return self.model if self.ema is None else cast(YoloBody, self.ema.model)

    @property
    def is_sound(self) -> bool:
        """Whether the state may be saved: the last step was not left out, and all weights are finite."""
        weights = [*self.model.parameters(), *self.average.parameters(), *self.average.buffers()]
        return self._skipped_in_a_row == 0 and all(bool(weight.isfinite().all()) for weight in weights)

    def epoch(
        self, batches: Iterable[Batch], meter: EpochMeter, label: str, total: int | None = None
    ) -> Iterator[EpochMeter]:
        """Go through the batches; yields the meter after each step, when the state is whole.

        Args:
            batches: those that are left of the epoch.
            meter: what the epoch has given so far; is added to.
            label: what the epoch is called on the console.
            total: number of the batches.

        Raises:
            UserError: the loss or its gradient was no finite number in `MOST_SKIPPED` steps in a row; they
                changed nothing, and the message names the last one's images.
        """
        groups = self._groups(iter(batches), meter)
        steps = None if total is None else math.ceil(total / self.accumulate)
        for group in progress(groups, label, total=steps, unit="step", status=meter.line):
            started = time.perf_counter()
            self._step(group, meter, label)
            meter.seconds += time.perf_counter() - started
            yield meter

    def _groups(self, batches: Iterator[Batch], meter: EpochMeter) -> Iterator[list[Batch]]:
        """Yield the batches of each step; at the end of an epoch there may be fewer than usual."""
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
        # float16 overflows now and then: its scaler then takes no step and halves the scale, down to 1.
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
            torch._foreach_copy_(self._buffers, buffers)  # the forward pass has spoilt the statistics
            self._skip(group, meter, label, "gradient" if is_loss_finite else "loss")
        self.scaler.update()

    def _add_gradients(self, images: Tensor, targets: Sequence[Target]) -> Tensor:
        """Add a batch's gradients to those that are there; returns its sums: losses, divisor, counts."""
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
        """Sum gradients and counts over the processes, divide by the divisor, clip; returns the norm."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        sum_over_processes([*gradients, counted])
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
        place = f"{what} is not a finite number at {label} step {meter.steps}, images {names}"
        if self._skipped_in_a_row == MOST_SKIPPED:
            raise UserError(f"{place}: {MOST_SKIPPED} steps in a row; try a lower --lr", exit_code=1)
        warn(f"{place}; the step is left out")

    def state_dict(self) -> dict[str, Any]:
        """Return what resuming needs, plain enough for `weights_only=True`."""
        return {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {"step": self.schedule.step},
            "scaler": self.scaler.state_dict(),
            "held_norms": self.held_norms,
            "skipped_in_a_row": self._skipped_in_a_row,
            "random": self._random_state(),
        }

    def _random_state(self) -> dict[str, Tensor]:
        """Return the states of torch's generators, which only a user's block may draw from."""
        cuda = {"cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else {}
        return {"cpu": torch.get_rng_state(), **cuda}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.step = state["schedule"]["step"]
        self.scaler.load_state_dict(state["scaler"])
        self.held_norms = list(state.get("held_norms", ()))  # the first checkpoints had none
        self._skipped_in_a_row = state["skipped_in_a_row"]
        torch.set_rng_state(state["random"]["cpu"])
        if self.device.type == "cuda" and "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)
