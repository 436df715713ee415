"""Our own `.pth` to share: weights, config and class names, without the state of the training."""

from __future__ import annotations

from pathlib import Path

from utils.export.job import ExportJob
from utils.export.parity import Reader
from utils.weights.checkpoint import Checkpoint, save_checkpoint
from utils.weights.load import load_model


def check(job: ExportJob) -> None:
    """Hold that the format can say what the network is: it always can."""


def notes(job: ExportJob) -> list[str]:
    """Return what the user should know of this format: nothing."""
    return []


def write(job: ExportJob, folder: Path) -> list[Path]:
    """Write the checkpoint."""
    path = folder / job.named(".pth")
    save_checkpoint(path, Checkpoint(job.shared_config(), job.class_names, job.weights()))
    return [path]


def readers(job: ExportJob, path: Path) -> list[Reader]:
    """Return our own reading of the file."""
    return [Reader("our reader", load_model(str(path), phi=job.config.phi).model)]


def following(job: ExportJob, folder: Path) -> list[str] | None:
    """Return the command that uses the export."""
    return job.predict_command(folder, ".pth", has_config=True)
