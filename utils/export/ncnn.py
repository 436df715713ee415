"""ncnn: .param and .bin, converted by pnnx from a trace of the network, with the metadata in a .json."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.export.formats import Format
from utils.export.job import ExportJob
from utils.export.onnx import quiet, reason_of
from utils.export.parity import make_noise_images
from utils.inference import runtimes

_TRIAL = Path(runtimes.__file__).resolve().with_name("ncnn_trial.py")
_TIMEOUT = 120  # seconds, for the converter and for the trial run


class NcnnFormat(Format):
    """ncnn."""

    name = "ncnn"
    suffix = ".ncnn.param"  # OpenVINO has a .bin too
    packages = ("ncnn", "pnnx")
    runtime = runtimes.NcnnModel

    def notes(self, job: ExportJob) -> list[str]:
        """See `Format.notes`."""
        return [] if job.batch == 1 else ["ncnn: takes one image at a time; --batch is ignored"]

    def write(self, job: ExportJob, folder: Path) -> list[Path]:
        """Write the model; with --half the weights are stored in 16 bits."""
        path = folder / job.file_name(self.suffix)
        written = [path, path.with_suffix(".bin"), path.with_suffix(".json")]
        with TemporaryDirectory(prefix=".pnnx-", dir=folder) as temporary:
            _convert(job, Path(temporary))
            for target in written[:2]:
                shutil.move(Path(temporary) / f"model.ncnn{target.suffix}", target)
        with atomic_write(written[2], "w") as file:
            file.write(json.dumps(job.metadata(), ensure_ascii=False, indent=1) + "\n")
        _run([sys.executable, str(_TRIAL), path.name, *map(str, job.config.input_size)], job, folder)
        return written


def _convert(job: ExportJob, folder: Path) -> None:
    """Write model.ncnn.param and model.ncnn.bin, among other files."""
    import pnnx

    images, traced = make_noise_images(job.config.input_size)[:1], io.BytesIO()
    try:
        with quiet(), torch.no_grad():
            torch.jit.save(torch.jit.trace(job.model, images, strict=False), traced)  # returns a list
    except Exception as error:  # the user's own block may raise anything
        raise _failure(job, reason_of(error)) from error
    with atomic_write(folder / "model.pt") as file:  # torch itself would crash where the disk is full
        file.write(traced.getvalue())
    shape = ",".join(map(str, images.shape))
    _run([pnnx.EXEC_PATH, "model.pt", f"inputshape=[{shape}]", f"fp16={int(job.half)}"], job, folder)
    if not (folder / "model.ncnn.bin").is_file():
        raise _failure(job, "pnnx wrote no model")
    if missing := _foreign_operations(folder / "model.ncnn.param"):
        raise _failure(job, f"ncnn has no {', '.join(missing)}")


def _foreign_operations(path: Path) -> list[str]:
    """Return the operations of a .param that pnnx has left in PyTorch's names, such as aten::sort."""
    lines = path.read_text(encoding="utf-8").splitlines()[2:]  # below the magic number and the counts
    kinds = {line.split()[0] for line in lines if line.strip()}
    foreign = sorted(kind for kind in kinds if "." in kind or "::" in kind)
    # An expression of pnnx is the argument of another operation, which says more.
    return [kind for kind in foreign if kind != "pnnx.Expression"] or foreign


def _run(command: list[str], job: ExportJob, folder: Path) -> None:
    """Run a program that may crash or hang; its last line is then the reason."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, errors="replace", timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise _failure(job, f"the conversion takes longer than {_TIMEOUT} s") from None
    except OSError as error:
        raise UserError(f"--format ncnn: cannot run {command[0]}: {error.strerror}", exit_code=1) from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise _failure(job, lines[-1])


def _failure(job: ExportJob, reason: str) -> UserError:
    begin = f"--format ncnn: cannot convert this network (attention {job.config.phi})"
    advice = "change the attention block, or use --format onnx"
    return UserError(f"{begin}: {reason}; {advice}", exit_code=1)
