"""Base class of the export formats.

A format is a subclass, named in `FORMATS` of exporter.py and in the choices of utils/cli/export_config.py.
If a runtime loads its files, add a subclass of `ExportedModel` in utils/inference/runtimes.py, a loader in
device/detect.py and the packages in requirements-export.txt; docs/deployment.md lists the formats.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from nets.config import ModelConfig
from utils.cli.errors import UserError
from utils.export.job import ExportJob
from utils.export.parity import Runner
from utils.inference.runtimes import ExportedModel, import_runtime

LABELS = "labels.txt"


class Format(ABC):
    """A file format that a network can be exported to."""

    name: ClassVar[str]  # as --format takes it
    suffix: ClassVar[str]  # of the model's file
    packages: ClassVar[tuple[str, ...]] = ()  # that writing and running it needs
    runtime: ClassVar[type[ExportedModel]]  # loads the written model
    holds_names: ClassVar[bool] = True  # the file, or one beside it that is read too, holds the class names
    # Each raises a ValueError for a network that the format cannot hold.
    config_checks: ClassVar[tuple[Callable[[ModelConfig], None], ...]] = ()

    def check(self, job: ExportJob) -> None:
        """Check, before anything is written, that the format can hold the network.

        Raises:
            UserError: it cannot, or a package is missing.
        """
        for package in self.packages:
            import_runtime(package, f"--format {self.name}")
        try:
            for check_config in self.config_checks:
                check_config(job.config)
        except ValueError as error:
            raise UserError(f"--format {self.name}: {error}; use --format onnx or pth") from None

    def notes(self, job: ExportJob) -> list[str]:
        """Return what the format loses or ignores, a line each."""
        return []

    @abstractmethod
    def write(self, job: ExportJob, folder: Path) -> list[Path]:
        """Write the files, the model first.

        Raises:
            UserError: the network cannot be exported, or a file cannot be written (exit code 1).
        """

    def runners(self, job: ExportJob, path: Path) -> list[Runner]:
        """Return the programs that run the written model for the parity check."""
        model = self.runtime(path, "cpu")
        return [Runner(model.name, model)]

    def next_command(self, job: ExportJob, folder: Path) -> list[str]:
        """Return the command that runs predict.py with the export."""
        command = ["python", "predict.py", "photo.jpg", "--weights", str(folder / job.file_name(self.suffix))]
        if self.holds_names:
            return command + (["--phi", job.config.phi] if ":" in job.config.phi else [])
        return [*command, "--classes", str(folder / LABELS)]
