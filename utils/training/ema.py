"""Exponential moving average of a network's weights and buffers."""

from __future__ import annotations

import copy

import torch
from torch import nn

_MAX_MEMORY = 5000  # steps


class ModelEma:
    """Moving average of a network; it is what is evaluated and shared.

    The memory is two epochs, at most 5,000 steps, which suits a hundred images as well as ten thousand. In
    the first n steps it is at most n / 10. In fine-tuning (`run_steps`) the memory is the whole run, at most
    5,000 steps, and the initial weights are not forgotten faster: a mean of the weights before and after
    fine-tuning is better than either (Wortsman et al., https://arxiv.org/abs/2109.01903).
    """

    def __init__(self, model: nn.Module, steps_per_epoch: int, *, run_steps: int | None = None) -> None:
        """Start from a copy of the network; `run_steps` are given in fine-tuning only."""
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = 1 - 1 / min(run_steps or 2 * steps_per_epoch, _MAX_MEMORY)
        self.updates = 0
        self._has_warmup = run_steps is None

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the network's state; integers such as counters are copied."""
        self.updates += 1
        decay = self.decay
        if self._has_warmup:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        for average, value in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if average.is_floating_point():
                average.lerp_(value.to(average.dtype), 1 - decay)
            else:
                average.copy_(value)

    def state_dict(self) -> dict[str, object]:
        """Return the state for resuming."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        """Load the state that `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]
