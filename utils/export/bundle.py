"""Files beside exported models: detect.py with its requirements, labels.txt and MODEL_CARD.md."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from utils.cli.files import atomic_write
from utils.export.card import build_card
from utils.export.formats import LABELS
from utils.export.job import ExportJob
from utils.export.opset import TRACED_OPSET

_DETECT = "detect.py"
_FOLDER = Path(__file__).resolve().parent
# Of the models of detect.py; on Python 3.9 the oldest of these versions find what the newest find.
# ONNX Runtime 1.14 reads opset 18 too, but crashes on a model of --half.
_RUNTIMES = {
    ".onnx": "onnxruntime>=1.15,<2",
    ".xml": "openvino>=2024.0",
    ".param": "ncnn>=1.0.20240102,<2",
}
_ALWAYS = ("numpy>=1.24,<3", "opencv-python-headless>=4.9,<6")


def write_bundle(
    job: ExportJob,
    folder: Path,
    models: Sequence[Path],
    measured: Sequence[str],
    command: Sequence[str],
    *,
    beside: Path | None = None,
) -> list[Path]:
    """Write labels.txt and MODEL_CARD.md, and detect.py with its requirements.txt for models that it runs.

    Args:
        job: what was exported.
        folder: holds the models.
        models: the files of this export.
        measured: lines of the parity check.
        command: the command line of the export.
        beside: the final folder, where an earlier export may be.

    Returns:
        The files that were written.

    Raises:
        UserError: one cannot be written.
    """
    texts = {LABELS: "\n".join(job.class_names) + "\n"}
    present = {path.suffix for place in (folder, beside) if place for path in place.iterdir()}
    packages = [_requirement(suffix, job) for suffix in _RUNTIMES if suffix in present]
    if packages:
        texts[_DETECT] = (_FOLDER / "device" / _DETECT).read_text(encoding="utf-8")
        texts["requirements.txt"] = "\n".join([*_ALWAYS, *packages]) + "\n"
    texts["MODEL_CARD.md"] = build_card(job, models, measured, command)
    for name, text in texts.items():
        with atomic_write(folder / name, "w") as file:
            file.write(text)
    return [folder / name for name in texts]


def device_command(folder: Path, models: Sequence[str]) -> str | None:
    """Return the command that runs detect.py on one of these models, None where it runs none of them."""
    ours = [name for name in models if name.endswith(tuple(_RUNTIMES))]
    if not ours or not (folder / _DETECT).is_file():
        return None
    several = sum(path.suffix in _RUNTIMES for path in folder.iterdir()) > 1
    model = f" --model {shlex.quote(ours[0])}" if several else ""
    return f"cd {shlex.quote(str(folder))} && python {_DETECT} photo.jpg{model}"


def _requirement(suffix: str, job: ExportJob) -> str:
    """Return the package that runs a model; one of a newer opset needs the version that checked it."""
    if suffix == ".onnx" and job.opset is not None and job.opset > TRACED_OPSET:
        return f"onnxruntime>={metadata.version('onnxruntime')},<2"
    return _RUNTIMES[suffix]
