"""Where a run stands, and the checkpoint of it: what --resume goes on from, to the same bits."""

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
class Place:
    """Where a run stands: the whole epochs behind it, and what the one under way has given so far."""

    epoch: int = 0
    meter: EpochMeter = field(default_factory=EpochMeter)

    @property
    def is_inside(self) -> bool:
        """Whether an epoch is under way, trained on in part or not yet evaluated."""
        return self.meter.batches > 0


def find_place(resumed: Checkpoint | None) -> Place:
    """Return the place that a checkpoint was saved at; without one the start."""
    if resumed is None:
        return Place()
    meter = resumed.training["meter"]
    return Place(resumed.training["epoch"], EpochMeter(**meter) if meter else EpochMeter())


def take_snapshot(
    config: TrainConfig,
    trainer: Trainer,
    class_names: tuple[str, ...],
    place: Place,
    *,
    metrics: Mapping[str, Any] | None = None,
    stopped_early: bool = False,
) -> Checkpoint:
    """Put together a checkpoint of the run as it stands, plain enough for `weights_only=True`."""
    training = {
        "epoch": place.epoch,
        "meter": place.meter.state_dict() if place.is_inside else None,
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
