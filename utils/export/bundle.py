"""What lies beside exported models: a script that runs them without torch, what it needs, their card."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from utils.cli.files import atomic_write
from utils.export.card import build_card
from utils.export.job import LABELS, ExportJob

CARD, DETECT, REQUIREMENTS = "MODEL_CARD.md", "detect.py", "requirements.txt"
_ROOT = Path(__file__).resolve().parents[2]
_SCRIPT = Path(__file__).resolve().parent / "device" / DETECT
# Of the models that detect.py runs.
_RUNTIMES = {".onnx": "onnxruntime", ".xml": "openvino", ".param": "ncnn"}
_ALWAYS = ("numpy>=1.24", "opencv-python-headless>=4.9")


def write_bundle(
    job: ExportJob,
    folder: Path,
    models: Sequence[Path],
    measured: Sequence[str],
    command: Sequence[str],
    *,
    beside: Path | None = None,
) -> list[Path]:
    """Write labels.txt and MODEL_CARD.md, and for models that it runs detect.py with its requirements.txt.

    Args:
        job: what was exported.
        folder: holds the models.
        models: the files of this export.
        measured: a line each on how far an export is from the network.
        command: the command line of the export.
        beside: the folder that the files go to, where an earlier export may lie.

    Returns:
        The files that were written.

    Raises:
        UserError: one cannot be written.
    """
    texts = {LABELS: "\n".join(job.class_names) + "\n"}
    folders = [folder] if beside is None else [folder, beside]
    runtimes = [
        package
        for ending, package in _RUNTIMES.items()
        if any(path for place in folders for path in place.glob(f"*{ending}"))
    ]
    if runtimes:
        texts[DETECT] = _SCRIPT.read_text(encoding="utf-8")
        texts[REQUIREMENTS] = "\n".join([*_ALWAYS, *map(_requirement, runtimes)]) + "\n"
    texts[CARD] = build_card(job, models, measured, command)
    for name, text in texts.items():
        with atomic_write(folder / name, "w") as file:
            file.write(text)
    return [folder / name for name in texts]


def device_command(folder: Path, models: Sequence[str]) -> str | None:
    """Return the command that runs the folder's own detect.py, None where it has none of these models to run.

    The model is named where several lie there.
    """
    ours = [name for name in models if name.endswith(tuple(_RUNTIMES))]
    if not ours or not (folder / DETECT).is_file():
        return None
    there = [path for ending in _RUNTIMES for path in folder.glob(f"*{ending}")]
    named = f" --model {shlex.quote(ours[0])}" if len(there) > 1 else ""
    return f"cd {shlex.quote(str(folder))} && python {DETECT} photo.jpg{named}"


def _requirement(package: str) -> str:
    """Return a package with the bounds that requirements-export.txt gives it."""
    lines = (_ROOT / "requirements-export.txt").read_text(encoding="utf-8").splitlines()
    found = [line.partition("#")[0].strip() for line in lines if re.match(rf"{package}\b", line)]
    return found[0]
