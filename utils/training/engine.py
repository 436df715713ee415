"""Training engine: one step, read from top to bottom in `Trainer.step`, and the state that a step changes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nets.loss import WEIGHTS, YoloLoss
from nets.structures import Target
from nets.yolo import YoloBody
from utils.cli.console import warn
from utils.cli.error_messages import is_out_of_memory
from utils.cli.errors import UserError
from utils.inference.device import precision_name
from utils.training.distributed import (
    all_gather,
    raise_on_rank_zero,
    rank,
    sum_over_ranks,
    world_size,
    wrap_distributed,
)
from utils.training.ema import ModelEma
from utils.training.optim import Schedule, load_optimizer

Batch = tuple[Tensor, list[Target]]
MAX_SKIPPED = 5  # steps in a row with a loss or gradient that is not finite, before the run stops
MAX_OVERFLOWS = 20  # the same for a gradient in float16, whose scale then reaches 1


@dataclass
class EpochMeter:
    """Running totals of an epoch; part of a checkpoint, so that a resumed epoch ends in the same row.

    Attributes:
        batches: loader batches done, skipped steps included: the position in the epoch.
        steps: optimizer steps.
        skipped: steps that were skipped because their loss or gradient was not finite.
        images: images of the steps, over all processes.
        unassigned: ground truths without a free anchor.
        losses: sums of the steps' losses, by term.
        seconds: time spent training.
        waited: seconds of it spent waiting for data.
        lr: learning rate of the last step.
    """

    batches: int = 0
    steps: int = 0
    skipped: int = 0
    images: int = 0
    unassigned: int = 0
    losses: dict[str, float] = field(default_factory=lambda: dict.fromkeys(WEIGHTS, 0.0))
    seconds: float = 0.0
    waited: float = 0.0
    lr: float = 0.0

    def means(self) -> dict[str, float]:
        """Return the mean loss a step, by term."""
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


@dataclass(frozen=True)
class LastStep:
    """The step that was taken last, whose numbers may still be on their way from the GPU.

    Attributes:
        numbers: Tensor[terms + 1] on the CPU, the losses by term and whether the gradient was finite.
        arrival: recorded behind the copy from a GPU, None on other devices.
        batches: the batches of this process.
        num_images: number of images, over all processes.
        unassigned: ground truths without a free anchor, over all processes.
    """

    numbers: Tensor
    arrival: torch.cuda.Event | None
    batches: Sequence[Batch]
    num_images: int
    unassigned: int


class Trainer:
    """A network with everything that a training step changes; its state resumes bit for bit.

    A step takes several batches where gradients are accumulated. Its gradient is that of the sum of their
    losses, divided by the positives of all of them on all ranks. This is the gradient of one large batch, but
    batch normalization sees each batch alone. A step whose gradient is not finite changes nothing.
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
        clip_grad: float = 0.0,
        autocast: torch.dtype | None = None,
        compiled: bool = False,
        find_unused: bool = False,
    ) -> None:
        """Store the parts of the training.

        Args:
            model: the network, on the training device.
            criterion: the loss.
            optimizer: over the model's parameters.
            schedule: over the optimizer.
            ema: the model's moving average, None for none.
            frozen_bn: names of the BatchNorm layers with frozen statistics.
            clip_grad: maximum norm of the gradient over all parameters, 0 for no limit.
            autocast: torch.bfloat16 or torch.float16 for mixed precision, None for float32.
            compiled: run the network through torch.compile.
            find_unused: with several processes: some parameters may take no part in a step.
        """
        self.model, self.criterion, self.ema = model, criterion, ema
        self.optimizer, self.schedule = optimizer, schedule
        self.frozen_bn = list(frozen_bn)
        self.clip_grad, self.autocast = clip_grad, autocast
        self.device = next(model.parameters()).device
        # In every precision the scaler checks the gradient on the device, so that the optimizer skips a step
        # without asking it. Only float16 needs a scale other than 1.
        self.scaler = torch.amp.GradScaler(
            self.device.type, init_scale=2.0**16 if autocast == torch.float16 else 1.0
        )
        self._compiled, self._find_unused = compiled, find_unused
        self._network: Any = model
        self._is_frozen: bool | None = None  # the backbone
        self._last: LastStep | None = None
        self._is_late = self.device.type == "cuda"  # a step is finished during the next one
        self._skipped_in_a_row = 0

    @property
    def average(self) -> YoloBody:
        """The network to evaluate and share: the moving average if there is one."""
        return self.model if self.ema is None else cast(YoloBody, self.ema.model)

    @property
    def is_finite(self) -> bool:
        """Whether all weights and statistics are finite, so that the state may be saved."""
        values = [*self.model.parameters(), *self.average.parameters(), *self.average.buffers()]
        return bool(torch.stack([value.isfinite().all() for value in values]).all())

    def start_epoch(self, *, freeze_backbone: bool) -> None:
        """Set train mode; freeze the backbone's weights and batch statistics where wanted."""
        set_train_mode(self.model, freeze_backbone, self.frozen_bn)
        if self._is_frozen != freeze_backbone:  # several processes must know which parameters are trained
            self._is_frozen = freeze_backbone
            self._network = None  # the old one lets go of the parameters
            self._network = wrap_distributed(self.model, find_unused=self._find_unused)
            if self._compiled:
                self._network = torch.compile(self._network)

    def step(
        self, batches: Sequence[Batch], meter: EpochMeter, label: str = "", *, stop: bool = False
    ) -> bool:
        """Take one optimizer step.

        Args:
            batches: uint8 images (B, 3, H, W) and targets in network pixels; several accumulate gradients.
            meter: totals of the epoch, updated in place: on a GPU with the numbers of the step before.
            label: name of the epoch on the console.
            stop: whether this process was asked to stop.

        Returns:
            False, with nothing changed, if any process was asked to stop.

        Raises:
            UserError: the loss or its gradient was not finite in `MAX_SKIPPED` steps in a row; names the
                images of the last one.
        """
        started = time.perf_counter()
        # Assigned before the forward pass: the divisor of the step is known before any gradient.
        assignments = [
            self.criterion.assign(targets, (images.shape[2], images.shape[3])) for images, targets in batches
        ]
        counts = [
            [stop, self.criterion.divisor(assignment, len(images)), len(images), assignment.unassigned]
            for (images, _), assignment in zip(batches, assignments, strict=True)
        ]
        totals = sum_over_ranks(torch.tensor(counts).sum(dim=0))
        stops, divisor, num_images, unassigned = totals.tolist()
        if stops:
            return False
        divisor = max(divisor, 1) / world_size()  # DistributedDataParallel takes the mean over the ranks

        statistics = [buffer.clone() for buffer in self.model.buffers()]
        losses = torch.zeros(len(WEIGHTS), device=self.device)
        self.optimizer.zero_grad(set_to_none=True)
        for (images, targets), assignment in zip(batches, assignments, strict=True):
            images = images.to(self.device, non_blocking=True)
            images = images.contiguous(memory_format=torch.channels_last).float().div_(255)
            with self._reduced(is_last=assignment is assignments[-1]):
                with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
                    raw_maps = self._network(images)
                by_name = self.criterion(raw_maps, targets, assignment, divisor)
                terms = torch.stack([by_name[name] for name in WEIGHTS])
                losses += terms.detach()
                # A term that is not finite may have a gradient that is; then this makes it NaN.
                factors = torch.where(terms.isfinite(), 1.0, math.nan)
                self.scaler.scale((terms * factors).sum()).backward()

        self.finish_step(meter, label)  # the step before, on which the learning rate of this one depends
        meter.lr = self.schedule.set_lr()
        self.scaler.unscale_(self.optimizer)
        parameters = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        gradients = [cast(Tensor, parameter.grad) for parameter in parameters]
        is_taken = nn.utils.get_total_norm(gradients, math.inf).isfinite()  # the largest value
        if self.clip_grad:
            nn.utils.clip_grad_norm_(parameters, self.clip_grad)
        self.scaler.step(self.optimizer)  # skips the step if the gradient is not finite, as does what follows
        self.scaler.update(None if self.autocast == torch.float16 else 1.0)
        for buffer, before in zip(self.model.buffers(), statistics, strict=True):
            buffer.copy_(torch.where(is_taken, buffer, before))
        if self.ema is not None:
            self.ema.update(self.model, is_taken)

        numbers = torch.cat((sum_over_ranks(losses) / world_size(), is_taken[None]))
        numbers, arrival = numbers.to("cpu", non_blocking=self.device.type == "cuda"), None
        if self.device.type == "cuda":
            arrival = torch.cuda.Event()
            arrival.record(torch.cuda.current_stream(self.device))  # not that of another GPU
        self._last = LastStep(numbers, arrival, batches, num_images, unassigned)
        if not self._is_late:
            self.finish_step(meter, label)
        meter.seconds += time.perf_counter() - started
        return True

    def finish_step(self, meter: EpochMeter, label: str = "") -> None:
        """Count the step that was taken last, if that is not done yet.

        On a GPU it is done a step later or at the end of an epoch: by then the numbers have arrived, so that
        reading them does not wait for what was queued since.

        Raises:
            UserError: as in `step`.
        """
        if self._last is None:
            return
        last, self._last = self._last, None
        if last.arrival is not None:
            last.arrival.synchronize()
        *losses, is_taken = last.numbers.tolist()
        meter.batches += len(last.batches)
        meter.steps += 1
        if not is_taken:
            self._skip(last, meter, label, is_loss_finite=math.isfinite(sum(losses)))
            return
        self._skipped_in_a_row = 0
        self.schedule.step += 1
        if self.ema is not None:
            self.ema.updates += 1
        meter.images += last.num_images
        meter.unassigned += last.unassigned
        for name, loss in zip(WEIGHTS, losses, strict=True):
            meter.losses[name] = meter.losses.get(name, 0.0) + loss  # a resumed meter may lack a new term

    def _reduced(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Reduce the gradients over the processes in the backward pass of a step's last batch."""
        return nullcontext() if is_last or world_size() == 1 else self._network.no_sync()

    def _skip(self, last: LastStep, meter: EpochMeter, label: str, *, is_loss_finite: bool) -> None:
        meter.skipped += 1
        self._skipped_in_a_row += 1
        # float16 overflows now and then; the scaler halves its scale.
        is_overflow = self.autocast == torch.float16 and is_loss_finite
        most = MAX_OVERFLOWS if is_overflow else MAX_SKIPPED
        own = [target.image_id for _, targets in last.batches for target in targets]
        names = ", ".join(name for names in all_gather(own) for name in names)
        what = "gradient" if is_loss_finite else "loss"
        place = f"{what} is not finite at {label} step {meter.steps}, images {names}"
        if self._skipped_in_a_row >= most:
            raise_on_rank_zero(UserError(f"{place}: {most} steps in a row; try a lower --lr", exit_code=1))
        if not is_overflow:
            warn(f"{place}; the step is skipped")

    def state_dict(self) -> dict[str, Any]:
        """Return the state for resuming, after `finish_step`; it loads with `weights_only=True`."""
        # Only a custom block may draw random numbers.
        cuda = {"cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else {}
        return {
            "model": self.model.state_dict(),
            "gains": self.model.gains,
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {"step": self.schedule.step},
            "precision": precision_name(self.autocast),
            "scaler": self.scaler.state_dict(),
            "held_norms": self.frozen_bn,  # the key of checkpoint format 1
            "skipped_in_a_row": self._skipped_in_a_row,
            "random": {"cpu": torch.get_rng_state(), **cuda},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the state that `state_dict` returned, on any device and in any precision.

        Raises:
            UserError: a part is not of this network.
        """
        with _fitting("model"):
            self.model.load_state_dict(state["model"])
        with _fitting("gains"):  # missing in older checkpoints, whose next convolutions contain them
            gains = {place: float(gain) for place, gain in state.get("gains", {}).items()}
            if unknown := gains.keys() - self.model.attention.keys():
                raise LookupError(unknown)
            self.model.gains = self.average.gains = gains
        if self.ema is not None:
            with _fitting("ema"):
                self.ema.load_state_dict(state["ema"])
        with _fitting("optimizer"):
            load_optimizer(self.optimizer, state["optimizer"])
        self.schedule.step = state["schedule"]["step"]
        if state.get("precision") == precision_name(self.autocast):  # another precision has another scale
            with _fitting("scaler"):
                self.scaler.load_state_dict(state["scaler"])
        with _fitting("held_norms"):
            self.frozen_bn = list(state.get("held_norms", ()))  # missing in the first checkpoints
            for name in self.frozen_bn:
                self.model.get_submodule(name)
        self._skipped_in_a_row = state["skipped_in_a_row"]
        if rank() > 0:  # the state is that of rank 0, whose random numbers another rank must not draw
            torch.manual_seed(torch.initial_seed() + self.schedule.step)
            return
        with _fitting("random"):
            torch.set_rng_state(state["random"]["cpu"])
            if self.device.type == "cuda" and "cuda" in state["random"]:
                torch.cuda.set_rng_state(state["random"]["cuda"], self.device)


@contextmanager
def _fitting(part: str) -> Iterator[None]:
    """Turn what torch raises for a part of a state that is not of this network into a UserError."""
    try:
        yield
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"--resume: damaged training state: its {part!r} does not fit the network; start a new run"
        ) from error


def accumulated(batches: Iterable[Batch], count: int, meter: EpochMeter) -> Iterator[list[Batch]]:
    """Yield the batches of each step, `count` or at the end fewer; the meter takes the time of waiting."""
    iterator = iter(batches)
    while True:
        started = time.perf_counter()
        group = list(islice(iterator, count))
        spent = time.perf_counter() - started
        meter.waited, meter.seconds = meter.waited + spent, meter.seconds + spent
        if not group:
            return
        yield group


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
