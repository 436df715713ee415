"""OpenVINO IR: the network of the ONNX export as .xml and .bin, its description in the rt_info."""

from __future__ import annotations

from pathlib import Path

from utils.cli.errors import UserError
from utils.export import onnx
from utils.export.job import ExportJob, hold_packages
from utils.export.parity import Reader
from utils.inference.exported_model import as_texts
from utils.inference.runtimes import OPENVINO_DESCRIPTION, OpenVinoModel

_PACKAGES = ("onnx", "onnxscript", "openvino")


def check(job: ExportJob) -> None:
    """Hold that the packages are there; a UserError says how to get them."""
    hold_packages("openvino", _PACKAGES)


def notes(job: ExportJob) -> list[str]:
    """Return what the user should know of this format: nothing."""
    return []


def write(job: ExportJob, folder: Path) -> list[Path]:
    """Write the model; for --half OpenVINO stores the weights in 16 bits and computes as its device likes.

    Raises:
        UserError: torch or OpenVINO cannot take the network (exit code 1).
    """
    import openvino

    graph = onnx.trace("openvino", job, half=False)
    path = folder / job.named(".xml")
    try:
        model = openvino.Core().read_model(graph.SerializeToString(), b"")
        model.set_rt_info(as_texts(job.describe()), OPENVINO_DESCRIPTION)
        openvino.save_model(model, path, compress_to_fp16=job.half)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        if "iostream" in reason:
            raise UserError(f"{path}: cannot be written: no room on the disk?", exit_code=1) from error
        raise UserError(
            f"--format openvino: OpenVINO cannot take this network: {reason}; take --format onnx", exit_code=1
        ) from error
    return [path, path.with_suffix(".bin")]


def readers(job: ExportJob, path: Path) -> list[Reader]:
    """Return OpenVINO with the model, as predict.py loads it."""
    backend = OpenVinoModel(path, "cpu")
    return [Reader(backend.name, backend)]


def following(job: ExportJob, folder: Path) -> list[str] | None:
    """Return the command that uses the export."""
    return job.predict_command(folder, ".xml", has_config=True)
