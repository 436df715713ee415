"""Optimizers and the learning rate schedule."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from utils.cli.train_config import TrainConfig

_REFERENCE_BATCH = 16  # the batch size that --lr is for
_FINAL_SHARE = 0.01  # of the peak learning rate, at the last step
_STEP_SHARES = ((0.8, 0.1), (0.9, 0.01))  # of yolov4-tiny.cfg: (share of the steps, share of the peak)
_SECOND_BETA = 0.999
_FUSED = ("cpu", "cuda")  # devices; on "mps" a fused optimizer may ignore that a step is to be skipped


def build_optimizer(model: nn.Module, config: TrainConfig, batch_size: int) -> Optimizer:
    """Build SGD with Nesterov momentum, or AdamW, without weight decay on norms and biases.

    Args:
        model: the network; some of its parameters may be frozen.
        config: its `lr` is for a batch of 16; a batch of n takes n / 16 of it.
        batch_size: images a step, over all ranks and accumulated batches.

    The optimizer is a fused one where torch has it: faster, and able to skip a step without asking the GPU.
    """
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    plain = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    decay = config.weight_decay
    groups = [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
    lr = cast(float, config.lr) * batch_size / _REFERENCE_BATCH
    fused = decayed[0].device.type in _FUSED
    if config.optimizer == "adamw":
        return _eager(AdamW)(groups, lr=lr, betas=(config.momentum, _SECOND_BETA), fused=fused)
    momentum = config.momentum
    optimizer = _eager(SGD)(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=fused)
    _start_momentum(optimizer)
    return optimizer


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load the state of an optimizer that may have been fused or on another device.

    The settings of the groups stay those of the run's config.

    Raises:
        ValueError: it is of other parameters; torch has other errors for what is no state at all.
    """
    pairs = zip(optimizer.state_dict()["param_groups"], state["param_groups"], strict=True)
    groups = [{**own, "params": stored["params"]} for own, stored in pairs]
    optimizer.load_state_dict({**state, "param_groups": groups})
    for parameter, stored in optimizer.state.items():  # a fused kernel would read beyond a smaller tensor
        if any(value.dim() and value.shape != parameter.shape for value in stored.values()):
            raise ValueError("the state of a parameter has another shape")
    _start_momentum(optimizer)


def _start_momentum(optimizer: Optimizer) -> None:
    """Start the momentum of SGD at 0 where there is none yet: of a backbone that is frozen at first.

    Without it, a fused optimizer refuses a step in which only some parameters have a momentum.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if group.get("nesterov"):
                optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))


def _eager(optimizer: type[Optimizer]) -> Any:
    """Return an optimizer class without torch's wrappers for torch.compile.

    The first call of a wrapped method imports the compiler, which takes longer than importing torch itself.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict", "step")
    methods = {name: inspect.unwrap(getattr(optimizer, name)) for name in names}
    methods["step"] = torch.no_grad()(methods["step"])
    return type(optimizer.__name__, (optimizer,), methods)


class Schedule:
    """Learning rate schedule, a function of the step number alone.

    The rate rises linearly in the warm-up, at most half of the steps. Then it falls along a half cosine to
    1 % of its peak ("cos"), or drops to a tenth after 80 % of the steps and a hundredth after 90 % ("step").
    """

    def __init__(self, optimizer: Optimizer, *, kind: str, total_steps: int, warmup_steps: int) -> None:
        self.step = 0
        self._optimizer = optimizer
        self._peaks = [group["lr"] for group in optimizer.param_groups]
        self._kind = kind
        self._total_steps = total_steps
        self._warmup_steps = min(warmup_steps, total_steps // 2)

    def set_lr(self) -> float:
        """Set the optimizer's learning rate for the next step, and return it."""
        share = self._share_of_peak()
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = share * peak
        return share * self._peaks[0]

    def _share_of_peak(self) -> float:
        if self.step < self._warmup_steps:
            return (self.step + 1) / (self._warmup_steps + 1)
        if self._kind == "step":
            passed = (self.step + 1) / self._total_steps
            return min([1.0, *(share for start, share in _STEP_SHARES if passed > start)])
        last = self._total_steps - 1
        progress = (self.step - self._warmup_steps) / max(last - self._warmup_steps, 1)
        return _FINAL_SHARE + (1 - _FINAL_SHARE) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
