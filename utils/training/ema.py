"""Exponential moving average of a network's weights and buffers."""

from __future__ import annotations

import copy

import torch
from torch import nn

_LONGEST_MEMORY = 5000  # steps


class ModelEma:
    """Keep a smoothed copy of a network; it is what is evaluated and shared.

    The memory is two epochs long, at most 5,000 steps, so that it suits a hundred pictures as well as ten
    thousand; at the start the average of the first n steps is no older than n / 10. A network that is only
    refined has something to remember: there the memory is the whole run, up to the same 5,000 steps, and the
    start is not forgotten faster, as a mean of weights before and after fine-tuning is better than either
    (Wortsman et al., https://arxiv.org/abs/2109.01903).
    """

    def __init__(self, model: nn.Module, steps_per_epoch: int, *, run_steps: int | None = None) -> None:
        """Begin with a copy of the network.

        Args:
            model: what is followed.
            steps_per_epoch: determines the memory.
            run_steps: steps of the whole run, to remember it and its start.
        """
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = 1 - 1 / min(run_steps or 2 * steps_per_epoch, _LONGEST_MEMORY)
        self.updates = 0
        self._remembers_start = run_steps is not None

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the network's state; whole numbers such as counters are copied."""
        self.updates += 1
        decay = self.decay
        if not self._remembers_start:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        for average, value in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if average.is_floating_point():
                average.lerp_(value.to(average.dtype), 1 - decay)
            else:
                average.copy_(value)

    def state_dict(self) -> dict[str, object]:
        """Return what resuming needs."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        """Take back what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]
