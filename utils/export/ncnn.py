"""ncnn: .param and .bin, made by pnnx from a trace of the network, with the description in a .json."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from nets.yolo import YoloBody
from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.export.job import ExportJob, hold_packages
from utils.export.onnx import quiet, reason_of
from utils.export.parity import Reader, make_images
from utils.inference import runtimes

_PACKAGES = ("ncnn", "pnnx")
_ENDING = ".ncnn.param"  # OpenVINO has a .bin too
_TRIAL = Path(runtimes.__file__).resolve().with_name("ncnn_trial.py")
_PATIENCE = 120  # seconds for the converter, and for the trial


class _Heads(nn.Module):
    """The network with a tuple of heads, as tracing wants it."""

    def __init__(self, model: YoloBody) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(images))


def check(job: ExportJob) -> None:
    """Hold that the packages are there; a UserError says how to get them."""
    hold_packages("ncnn", _PACKAGES)


def notes(job: ExportJob) -> list[str]:
    """Return what the user should know of this format."""
    return [] if job.batch == 1 else ["ncnn: takes one image at a time, whatever --batch says"]


def write(job: ExportJob, folder: Path) -> list[Path]:
    """Write the model; for --half the weights are stored in 16 bits.

    Raises:
        UserError: the network cannot be converted, such as for an operation of a block (exit code 1).
    """
    path = folder / job.named(_ENDING)
    written = [path, path.with_suffix(".bin"), path.with_suffix(".json")]
    with TemporaryDirectory(prefix=".pnnx-", dir=folder) as aside:
        _convert(job, Path(aside))
        for target in written[:2]:
            shutil.move(Path(aside) / f"model.ncnn{target.suffix}", target)
    with atomic_write(written[2], "w") as file:
        file.write(json.dumps(job.describe(), ensure_ascii=False, indent=1) + "\n")
    _run([sys.executable, str(_TRIAL), path.name, *map(str, job.config.input_size)], job, folder)
    return written


def readers(job: ExportJob, path: Path) -> list[Reader]:
    """Return ncnn with the model, as predict.py loads it."""
    backend = runtimes.NcnnModel(path, "cpu")
    return [Reader(backend.name, backend)]


def following(job: ExportJob, folder: Path) -> list[str] | None:
    """Return the command that uses the export."""
    return job.predict_command(folder, _ENDING, has_config=True)


def _convert(job: ExportJob, folder: Path) -> None:
    """Write model.ncnn.param and model.ncnn.bin, among much else."""
    import pnnx

    images, traced = make_images(job.config.input_size)[:1], io.BytesIO()
    try:
        with quiet(), torch.no_grad():
            torch.jit.save(torch.jit.trace(_Heads(job.model), images), traced)
    except Exception as error:  # from a block of the user's own: anything
        raise _cannot(job, reason_of(error)) from error
    with atomic_write(folder / "model.pt") as file:  # torch itself would crash where the disk is full
        file.write(traced.getvalue())
    shape = ",".join(map(str, images.shape))
    fp16 = f"fp16={int(job.half)}"
    _run([pnnx.EXEC_PATH, "model.pt", f"inputshape=[{shape}]", fp16], job, folder)
    if not (folder / "model.ncnn.bin").is_file():
        raise _cannot(job, "pnnx wrote no model")


def _run(command: list[str], job: ExportJob, folder: Path) -> None:
    """Run a program that may crash or hang; its last words are the reason when it does."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _cannot(job, f"it does not end within {_PATIENCE} s") from None
    except OSError as error:
        raise UserError(f"--format ncnn: cannot run {command[0]}: {error.strerror}", exit_code=1) from None
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise _cannot(job, words[-1])


def _cannot(job: ExportJob, reason: str) -> UserError:
    return UserError(
        f"--format ncnn: cannot convert this network (attention {job.config.phi}): {reason}; "
        "change the attention block, or take --format onnx",
        exit_code=1,
    )
