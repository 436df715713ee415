"""The optimizer and its learning rate, step by step."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

_REFERENCE_BATCH = 16  # --lr is for this batch size and scales with it
_FINAL_SHARE = 0.01  # of the peak learning rate, at the last step
_STEP_SHARES = (
    (0.8, 0.1),
    (0.9, 0.01),
)  # yolov4-tiny.cfg: a tenth from 80 % of the steps, a hundredth from 90 %
_SECOND_BETA = 0.999


def build_optimizer(
    model: nn.Module, *, name: str, lr: float, momentum: float, weight_decay: float, batch_size: int
) -> Optimizer:
    """Build SGD with Nesterov momentum, or AdamW; norms and biases do not decay.

    Args:
        model: the network; frozen parameters may be among its parameters.
        name: "sgd" or "adamw".
        lr: peak learning rate for a batch of 16; a batch of n takes n / 16 of it.
        momentum: of SGD, and the first beta of AdamW, in [0, 1).
        weight_decay: of the weights with two dimensions or more.
        batch_size: images a step, over all processes and pieces of the batch.
    """
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    plain = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    lr = scaled_lr(lr, batch_size)
    if name == "adamw":
        return AdamW(groups, lr=lr, betas=(momentum, _SECOND_BETA))
    return SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)


def scaled_lr(lr: float, batch_size: int) -> float:
    """Return the peak learning rate of a batch from that of a batch of 16: proportional to its size."""
    return lr * batch_size / _REFERENCE_BATCH


class Schedule:
    """The learning rate of each step as a function of the step's number alone.

    It rises linearly over the warm-up, then falls along a half cosine to 1 % of its peak at the last step
    ("cos"), or stays and falls to a tenth after 80 % of the steps and to a hundredth after 90 % ("step"). The
    warm-up takes at most half of the steps.
    """

    def __init__(self, optimizer: Optimizer, *, kind: str, total_steps: int, warmup_steps: int) -> None:
        self.step = 0
        self._optimizer = optimizer
        self._peaks = [group["lr"] for group in optimizer.param_groups]
        self._kind = kind
        self._total_steps = total_steps
        self._warmup_steps = min(warmup_steps, total_steps // 2)

    def set_lr(self) -> float:
        """Give the optimizer the learning rate of the coming step, and return it."""
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
