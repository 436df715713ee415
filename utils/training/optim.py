"""The optimizer and its learning rate, step by step."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR

_REFERENCE_BATCH = 16  # --lr is for this batch size and scales with it
_FINAL_SHARE = 0.01  # of the peak learning rate, at the last step


def build_optimizer(
    model: nn.Module, *, lr: float, momentum: float, weight_decay: float, batch_size: int
) -> Optimizer:
    """Build SGD with Nesterov momentum; norms and biases do not decay.

    Args:
        model: the network; frozen parameters may be among its parameters.
        lr: peak learning rate for a batch of 16; a batch of n takes n / 16 of it.
        momentum: of SGD, in (0, 1).
        weight_decay: of the weights with two dimensions or more.
        batch_size: images a step.
    """
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    plain = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return SGD(groups, lr=lr * batch_size / _REFERENCE_BATCH, momentum=momentum, nesterov=momentum > 0)


def build_schedule(optimizer: Optimizer, *, total_steps: int, warmup_steps: int) -> LambdaLR:
    """Raise the learning rate linearly, then lower it along a half cosine to 1 % of its peak."""
    warmup_steps = min(warmup_steps, total_steps)

    def share_of_peak(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
        return _FINAL_SHARE + (1 - _FINAL_SHARE) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2

    return LambdaLR(optimizer, share_of_peak)
