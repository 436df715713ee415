"""Exponential moving average of a network's weights and buffers."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

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
    def update(self, model: nn.Module, is_taken: Tensor) -> None:
        """Move the average towards the network's state, unless its last step was skipped.

        `is_taken`, Tensor[] bool, may be on a GPU, which is not waited for; whoever reads it there counts
        `updates`, the number of steps that were taken. Integers such as counters are copied.
        """
        decay = self.decay
        if self._has_warmup:
            decay = min(decay, (2 + self.updates) / (11 + self.updates))
        weight = is_taken * (1 - decay)  # Tensor[]
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        averages, values = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        torch._foreach_lerp_(averages, values, [weight] * len(averages))
        for average, value in pairs:
            if not average.is_floating_point():
                average.copy_(value)

    def state_dict(self) -> dict[str, object]:
        """Return the state for resuming."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        """Load the state that `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]
