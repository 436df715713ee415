"""Export to each format, with the parity check, and the staging of the files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from utils.cli.errors import UserError
from utils.export.formats import Format
from utils.export.int8 import check_accuracy
from utils.export.job import ExportJob
from utils.export.ncnn import NcnnFormat
from utils.export.onnx import OnnxFormat
from utils.export.openvino import OpenVinoFormat
from utils.export.parity import Parity, check_parity
from utils.export.weight_files import DarknetFormat, PthFormat, PublishedFormat
from utils.inference.writers import refuse_overwriting

FORMATS: dict[str, Format] = {
    kind.name: kind()
    for kind in (OnnxFormat, OpenVinoFormat, NcnnFormat, DarknetFormat, PublishedFormat, PthFormat)
}
_TEMPORARY = ".export-"  # prefix of the folders that hold files until all checks pass


def export_as(name: str, job: ExportJob, folder: Path) -> tuple[list[Path], dict[str, Parity | str]]:
    """Export to one format and compare the result with the network; see `staged` for the folder.

    Returns:
        The files, and what was measured by the name of each runner. An 8-bit model is judged by its mAP50.

    Raises:
        UserError: the network cannot be exported, or the export computes something else.
    """
    form, job = FORMATS[name], job.for_format(name)
    written = form.write(job, folder)
    measured: dict[str, Parity | str] = {}
    for runner in form.runners(job, written[0]):
        if job.quantization is None:
            measured[runner.name] = check_parity(name, job, runner)
        else:
            assert isinstance(runner.run, nn.Module)
            measured[runner.name] = check_accuracy(job, runner.run)
    return written, measured


def export_if_possible(
    name: str, job: ExportJob, folder: Path, skipped: dict[str, str]
) -> tuple[list[Path], dict[str, Parity | str]]:
    """Export as `export_as`, or add to `skipped` why it failed and return nothing."""
    before = set(folder.iterdir())
    try:
        FORMATS[name].check(job)
        return export_as(name, job, folder)
    except UserError as error:
        skipped[name] = str(error)
        for path in set(folder.iterdir()) - before:
            path.unlink()
        return [], {}


@contextmanager
def staged(folder: Path, source: Path) -> Iterator[Path]:
    """Return a temporary folder; its files move to `folder` when the block ends, or none do when it fails.

    Raises:
        UserError: `source` would be overwritten, or the block failed; the message has the final paths.
    """
    try:
        with TemporaryDirectory(prefix=_TEMPORARY, dir=folder) as temporary:
            staging = folder / Path(temporary).name  # Python 3.12 and newer return an absolute path
            yield staging
            written = sorted(staging.iterdir())
            targets = [folder / path.name for path in written]
            refuse_overwriting(targets, [source])
            for path, target in zip(written, targets, strict=True):
                os.replace(path, target)
    except UserError as error:
        message = re.sub(rf"{re.escape(_TEMPORARY)}\w+/", "", str(error))
        raise UserError(message, exit_code=error.exit_code) from error
