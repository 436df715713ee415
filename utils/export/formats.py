"""The formats by name, and the one way into each: write aside, compare with PyTorch, then put in place."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from torch import nn

from utils.cli.errors import UserError
from utils.export import darknet, ncnn, onnx, openvino, pth, published
from utils.export.int8 import Accuracy, hold_accuracy
from utils.export.job import ExportJob
from utils.export.parity import Parity, Reader, hold_parity
from utils.inference.writers import refuse_overwriting

Measured = Parity | Accuracy
_ASIDE = ".export-"  # how the folders begin in which files wait until they are held


class Format(Protocol):
    """What the module of a format offers."""

    def check(self, job: ExportJob) -> None:
        """Refuse what the format cannot hold, before anything is written."""

    def notes(self, job: ExportJob) -> list[str]:
        """Return what the user should know of it."""

    def write(self, job: ExportJob, folder: Path) -> list[Path]:
        """Write the files, the model first."""

    def readers(self, job: ExportJob, path: Path) -> list[Reader]:
        """Return those who can run the written model."""

    def following(self, job: ExportJob, folder: Path) -> list[str] | None:
        """Return the command to type next, None where there is none."""


FORMATS: dict[str, Format] = {
    "onnx": onnx,
    "openvino": openvino,
    "ncnn": ncnn,
    "darknet": darknet,
    "published": published,
    "pth": pth,
}


def export_as(name: str, job: ExportJob, folder: Path) -> tuple[list[Path], dict[str, Measured]]:
    """Export to one format; its files appear only when every reader finds what the network finds.

    Args:
        name: of the format.
        job: what to export.
        folder: where the files go.

    Returns:
        The files, and by the name of each reader how near it is to the network.

    Raises:
        UserError: it cannot be exported, or the export finds something else.
    """
    form, job = FORMATS[name], job.for_format(name)
    with staged(folder, job.source) as aside:
        written = form.write(job, aside)
        readers = form.readers(job, written[0])
        measured = {reader.name: _hold(name, job, reader) for reader in readers}
    return [folder / path.name for path in written], measured


@contextmanager
def staged(folder: Path, source: Path) -> Iterator[Path]:
    """Give a folder aside to write into; its files go to `folder` together, or not at all.

    Args:
        folder: where the files go in the end.
        source: the weights, which are never written over.

    Raises:
        UserError: of what is done meanwhile, with the paths that the user knows; or a file may not be placed.
    """
    try:
        with TemporaryDirectory(prefix=_ASIDE, dir=folder) as aside:
            yield Path(aside)
            written = sorted(Path(aside).iterdir())
            targets = [folder / path.name for path in written]
            refuse_overwriting(targets, [source])
            for path, target in zip(written, targets, strict=True):
                os.replace(path, target)
    except UserError as error:
        message = re.sub(rf"{re.escape(_ASIDE)}\w+/", "", str(error))
        raise UserError(message, exit_code=error.exit_code) from error


def _hold(name: str, job: ExportJob, reader: Reader) -> Measured:
    """Refuse an export that is too far from the network; an 8-bit model is judged by its mAP50."""
    if job.quantization is not None:
        assert isinstance(reader.run, nn.Module)
        return hold_accuracy(job, reader.run)
    return hold_parity(name, job, reader)
