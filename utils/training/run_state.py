"""State of a training run: the position in its epochs, and the checkpoint that resumes bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from utils.cli.parser import config_as_dict
from utils.cli.train_config import TrainConfig
from utils.training.distributed import world_size
from utils.training.engine import EpochMeter, Trainer
from utils.weights.checkpoint import Checkpoint


@dataclass
class Position:
    """Position of a run: the number of whole epochs done, and the totals of the current one."""

    epoch: int = 0
    meter: EpochMeter = field(default_factory=EpochMeter)

    @property
    def is_within_epoch(self) -> bool:
        """Whether an epoch has begun and is not evaluated yet."""
        return self.meter.batches > 0


def position_of(resumed: Checkpoint | None) -> Position:
    """Return the position that a checkpoint was saved at; without one the start."""
    if resumed is None:
        return Position()
    meter = resumed.training["meter"]
    return Position(resumed.training["epoch"], EpochMeter(**meter) if meter else EpochMeter())


def build_checkpoint(
    config: TrainConfig,
    trainer: Trainer,
    class_names: tuple[str, ...],
    position: Position,
    *,
    metrics: Mapping[str, Any] | None = None,
    stopped_early: bool = False,
) -> Checkpoint:
    """Build the checkpoint of a run; it loads with `weights_only=True`."""
    training = {
        "epoch": position.epoch,
        "meter": position.meter.state_dict() if position.is_within_epoch else None,
        "stopped_early": stopped_early,
        "threads": torch.get_num_threads(),
        "processes": world_size(),
        **trainer.state_dict(),
    }
    return Checkpoint(
        config=trainer.model.config,
        class_names=class_names,
        weights=trainer.average.state_dict(),
        metrics=dict(metrics or {}),
        run_config=config_as_dict(config),
        training=training,
    )
