"""The folder of a training run: its table, its checkpoints, and how long it will take."""

from __future__ import annotations

import copy
import csv
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nets.loss import YoloLoss
from nets.structures import Target
from nets.yolo import YoloBody
from utils.errors import UserError
from utils.files import atomic_write
from utils.training.ema import ModelEma
from utils.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from utils.weights.load import RUNS, find_newest


class Run:
    """Write what an epoch gave into the run's folder: a row of results.csv, last.pth, and best.pth if better.

    best.pth is the epoch of the highest map50 on the selection split, the later one of equals; without
    evaluation it is the last epoch.
    """

    def __init__(self, folder: Path, best_map50: float | None = None) -> None:
        self.folder = folder
        self.best_map50 = best_map50
        (folder / "weights").mkdir(exist_ok=True)

    @property
    def last(self) -> Path:
        """The checkpoint that --resume takes."""
        return self.folder / "weights" / "last.pth"

    @property
    def best(self) -> Path:
        """The checkpoint to share."""
        return self.folder / "weights" / "best.pth"

    def finish_epoch(self, checkpoint: Checkpoint, row: Mapping[str, Any]) -> None:
        """Store an epoch.

        Args:
            checkpoint: weights (of the EMA), metrics and, in `training`, what resuming needs.
            row: values of results.csv by column.
        """
        map50 = checkpoint.metrics.get("map50")
        is_best = self.best_map50 is None or (map50 is not None and map50 >= self.best_map50)
        if is_best:
            self.best_map50 = map50
        checkpoint.training["best_map50"] = self.best_map50
        self._write_row(row)
        if is_best:
            shared = Checkpoint(
                checkpoint.config,
                checkpoint.class_names,
                checkpoint.weights,
                checkpoint.metrics,
                checkpoint.run_config,
            )
            save_checkpoint(self.best, shared)
        save_checkpoint(
            self.last, checkpoint
        )  # last: a kill before it repeats the epoch and writes the same again

    def _write_row(self, row: Mapping[str, Any]) -> None:
        """Write the epoch's row, once: a resumed epoch replaces what was there from it on."""
        path = self.folder / "results.csv"
        rows: list[Mapping[str, Any]] = []
        if path.exists():
            with open(path, newline="", encoding="utf-8") as file:
                rows = [old for old in csv.DictReader(file) if int(old["epoch"]) < row["epoch"]]
        with atomic_write(path, "w") as file:
            columns = dict.fromkeys(
                name for written in (*rows, row) for name in written
            )  # a late evaluation adds some
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows([*rows, row])


def training_state(
    epoch: int, model: nn.Module, ema: ModelEma | None, optimizer: Optimizer, schedule: LRScheduler
) -> dict[str, Any]:
    """Return what resuming after `epoch` whole epochs needs, plain enough for `weights_only=True`."""
    return {
        "epoch": epoch,
        "model": model.state_dict(),
        "ema": None if ema is None else ema.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
    }


def restore_training_state(
    state: Mapping[str, Any],
    model: nn.Module,
    ema: ModelEma | None,
    optimizer: Optimizer,
    schedule: LRScheduler,
) -> int:
    """Put back what `training_state` returned; returns the number of epochs done."""
    model.load_state_dict(state["model"])
    if ema is not None:
        ema.load_state_dict(state["ema"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return int(state["epoch"])


def load_resumable(path: str) -> tuple[Path, Checkpoint]:
    """Load the checkpoint that --resume names; "auto" is the newest last.pth under runs/train.

    Raises:
        UserError: there is none, or it is a shareable file without what resuming needs.
    """
    if path == "auto":
        newest = find_newest("last.pth")
        if newest is None:
            raise UserError(f"--resume: no run with weights/last.pth in {RUNS}; name one: --resume FILE")
        path = str(newest)
    checkpoint = load_checkpoint(path)
    if "optimizer" not in checkpoint.training:
        raise UserError(f"--resume {path}: holds no training state; resume from the last.pth beside it")
    return Path(path), checkpoint


def estimate_seconds_per_image(model: YoloBody, criterion: YoloLoss, freeze: bool) -> float:
    """Measure the seconds that training takes an image, on a copy of the network and images of noise."""
    trial, device, batch = copy.deepcopy(model).train(), next(model.parameters()).device, 4
    trial.backbone.requires_grad_(not freeze)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, *model.config.input_size, generator=generator).to(device)
    target = Target(torch.tensor([[8.0, 8.0, 120.0, 90.0]]), torch.tensor([0]), torch.tensor([False]))
    for _ in range(2):  # the first time pays for what is set up once
        started = time.perf_counter()
        torch.stack(list(criterion(trial(images), [target] * batch).values())).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
    return (time.perf_counter() - started) / batch
