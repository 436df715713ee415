"""What a training run says on the console: how an epoch went, what to type next, what to try instead."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from utils.cli.console import log
from utils.cli.errors import UserError
from utils.cli.parser import as_arguments
from utils.cli.presets import with_preset
from utils.cli.train_config import DEFAULT_PRESET, TrainConfig
from utils.data.layout import choose_evaluation_splits
from utils.data.prepare import TrainingData
from utils.training.estimate import in_words, smaller_size
from utils.training.state import Place

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_HEADING_EVERY = 20  # lines
_LEARNT = 0.9  # mAP50 on the training images themselves


class EpochTable:
    """The console's table of a run: a heading, then a line an epoch, in columns."""

    def __init__(self, epochs: int, first_epoch: int = 0) -> None:
        self._epochs = epochs
        self._first_epoch = first_epoch
        self._started = time.monotonic()
        self._lines = 0

    def log(self, row: Mapping[str, float | int | None]) -> None:
        """Write the row of results.csv of an epoch that is done."""
        cells = self._cells(row)
        widths = [max(len(name), 8) for name in cells]
        if self._lines % _HEADING_EVERY == 0:
            log("  ".join(name.rjust(width) for name, width in zip(cells, widths, strict=True)))
        self._lines += 1
        line = "  ".join(text.rjust(width) for text, width in zip(cells.values(), widths, strict=True))
        if row["unassigned"]:
            line += f"  {row['unassigned']} objects without a free anchor"
        log(line + (f"  {row['skipped']} steps left out" if row["skipped"] else ""))

    def _cells(self, row: Mapping[str, float | int | None]) -> dict[str, str]:
        epoch = int(row["epoch"] or 0)
        spent = (time.monotonic() - self._started) / max(epoch - self._first_epoch, 1)
        shown = {name: row.get(name) for name in ("map50", "map50_95")}
        scores = ["-" if value is None else f"{value:.4f}" for value in shown.values()]
        return {
            "epoch": f"{epoch}/{self._epochs}",
            **{name: f"{row[name]:.3f}" for name in ("box", "objectness", "class")},
            "mAP50": scores[0],
            "mAP50-95": scores[1],
            "lr": f"{row['lr']:.2g}",
            "images/s": f"{row['images_per_second']:.1f}",
            "waiting": f"{row['waiting']:.1%}",
            "memory": f"{row['memory_gb']:.1f} GB",
            "left": in_words(spent * (self._epochs - epoch)),
        }


def memory_in_use(device: torch.device) -> float:
    """Return the most memory that the run has held so far, in GB: the GPU's, else that of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 1e9
    if resource is None:
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def describe_stop(last: Path, place: Place, is_saved: bool) -> str:
    """Say where a signal stopped the run, what is saved of it, and how to go on."""
    resume = shlex.join(["python", "train.py", "--resume", str(last)])
    if is_saved:
        return f"saved {last} at epoch {place.epoch + 1} step {place.meter.steps}; go on: {resume}"
    return f"nothing new was saved; go on: {resume}" if last.exists() else "nothing was saved"


def describe_overfit(map50: float, images: int) -> str:
    """Say what --overfit has shown."""
    if map50 >= _LEARNT:
        return f"overfit: mAP50 {map50:.3f} on the {images} images: the setup can learn"
    return (
        f"overfit: mAP50 {map50:.3f} on the {images} images, not {_LEARNT}: give it some hundred steps "
        "(--epochs); if that does not help, look at train_batch0.jpg and val_batch0.jpg"
    )


def log_next_commands(config: TrainConfig, best: Path, data: TrainingData) -> None:
    """Say what to type after training; the commands run as they are printed."""
    known = ["--weights", str(best), *(["--phi", config.phi] if ":" in config.phi else [])]
    measure = ["python", "evaluate.py", *known, *replace(config, classes=None).data_arguments()]
    try:
        choose_evaluation_splits(config.data)
    except UserError:
        measure += ["--split", *data.train_splits]
        log("no test or val split: what evaluate shows below is of the training images, and flatters")
    log(f"best weights: {best}")
    log(f"evaluate: {shlex.join(measure)}")
    log(f"predict:  {shlex.join(['python', 'predict.py', str(data.train.records[0].image_path), *known])}")
    log(f"export:   {shlex.join(['python', 'export.py', *known])}")


def explain_memory(config: TrainConfig, given: Mapping[str, object]) -> UserError:
    """Log three commands that need less memory; returns the error that ends the run."""
    smaller = {"imgsz": smaller_size(config.imgsz)}
    half = {"batch_size": max(config.batch_size // 2, 1), "accumulate": 2 * config.accumulate}
    frozen = {"freeze_epochs": config.epochs}
    changes = (half, smaller, half | frozen) if config.batch_size > 1 else (smaller, frozen, smaller | frozen)
    for change in changes:
        settings = {**_as_new_run(config, given), **change}
        log(f"try: python train.py {shlex.join(as_arguments(TrainConfig, settings))}")
    first, second = (shlex.join(as_arguments(TrainConfig, change)) for change in changes[:2])
    size = "x".join(map(str, config.imgsz))
    return UserError(
        f"out of memory with batch {config.batch_size} at {size}; try {first}, or {second}", exit_code=1
    )


def _as_new_run(config: TrainConfig, given: Mapping[str, object]) -> Mapping[str, object]:
    """Return what was given; for a run that went on, which takes no other batch, one from its weights."""
    resumed = given.get("resume")
    if resumed is None:
        return given
    usual = vars(TrainConfig(**with_preset({"preset": config.preset}))) | {"preset": DEFAULT_PRESET}
    settings = vars(config) | {"new_heads": False}  # they have learnt
    own = {name: value for name, value in settings.items() if value != usual[name]}
    return {**own, "weights": "last" if resumed == "auto" else resumed}
