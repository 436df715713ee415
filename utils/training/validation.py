"""Evaluation while training: as evaluate.py does it, each process its share of the images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from utils.cli.train_config import TrainConfig
from utils.data.dataset import VocDataset
from utils.inference.evaluation import (
    DatasetDetections,
    EvalResult,
    detect_dataset,
    merge_detections,
    score_detections,
)
from utils.inference.predictor import Predictor
from utils.training.distributed import copy_from_first, gathered, rank, world_size
from utils.training.engine import Trainer

Measured = tuple[EvalResult, DatasetDetections]
COLUMNS = ("map50", "map50_95", "voc_ap50_area")  # of results.csv


def build_predictor(trainer: Trainer, class_names: tuple[str, ...]) -> Predictor:
    """Return a predictor of the network to evaluate, at the settings of evaluate.py."""
    average = trainer.average
    return Predictor(average, average.config, class_names, conf=0.001, device=trainer.device)


def measure(
    config: TrainConfig, trainer: Trainer, val_set: VocDataset, splits: Sequence[str] = ()
) -> Measured:
    """Evaluate the network on the selection split; every process returns the same.

    Args:
        config: the run's settings.
        trainer: holds the network.
        val_set: the images to select on.
        splits: what they are called, noted in the result.

    Raises:
        UserError: an image cannot be read.
    """
    copy_from_first(trainer.average)  # normalization statistics are each process's own
    own = detect_dataset(
        build_predictor(trainer, val_set.class_names),
        val_set,
        indices=range(rank(), len(val_set), world_size()),
        batch_size=config.batch_size,
        skip_bad=config.skip_bad,
    )
    detections = merge_detections(gathered(own))
    # The result is written where this epoch is the best so far, and its weights become best.pth.
    return score_detections(detections, val_set, weights="best.pth", splits=splits), detections


def columns_of(result: EvalResult | None) -> dict[str, Any]:
    """Return what an evaluation adds to a row of results.csv."""
    metrics = result.as_dict() if result else {}
    return {name: metrics[name] for name in COLUMNS if name in metrics}
