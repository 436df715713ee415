"""The published layout: the `.pth` that bubbliiiing/yolov4-tiny-pytorch loads."""

from __future__ import annotations

from pathlib import Path

from utils.cli.errors import UserError
from utils.export.job import ExportJob
from utils.export.parity import Reader
from utils.weights.load import load_model
from utils.weights.published import check_published, write_published

_ENDING = "_published.pth"


def check(job: ExportJob) -> None:
    """Hold that the layout has a name for every tensor; a UserError says why not."""
    try:
        check_published(job.config)
    except ValueError as error:
        raise UserError(f"--format published: {error}; take --format onnx or pth") from None


def notes(job: ExportJob) -> list[str]:
    """Return what the user should know of this format."""
    lines = []
    if job.config.scale_x_y != 1:
        shift = (job.config.scale_x_y - 1) / 2
        lines.append(
            "published: the layout has no scale_x_y; read from it, here and there, box centers move by "
            f"up to {shift:.3g} of a cell (scale_x_y is {job.config.scale_x_y:g} here)"
        )
    if not job.has_usual_anchors():
        lines.append(
            f"published: the layout holds no anchors; give the reference {job.config.anchors} "
            f"with masks {job.config.anchor_masks}"
        )
    return lines


def write(job: ExportJob, folder: Path) -> list[Path]:
    """Write the state_dict."""
    path = folder / job.named(_ENDING)
    write_published(path, job.config, job.weights())
    return [path]


def readers(job: ExportJob, path: Path) -> list[Reader]:
    """Return our own reading of the file."""
    return [Reader("our reader", load_model(str(path), classes=job.class_names).model)]


def following(job: ExportJob, folder: Path) -> list[str] | None:
    """Return the command that uses the export, None where ours would decode it wrongly."""
    return job.predict_command(folder, _ENDING, has_config=False) if job.has_usual_anchors() else None
