"""Files beside exported models: detect.py with its requirements, labels.txt and MODEL_CARD.md."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from utils.cli.class_names import parse_renames
from utils.cli.errors import UserError
from utils.cli.evaluate_config import EvaluateConfig
from utils.cli.files import atomic_write
from utils.data.dataset_report import scan_samples
from utils.data.samples import choose_training_splits, load_samples
from utils.export.formats import LABELS
from utils.export.job import ExportJob
from utils.weights.checkpoint import is_checkpoint, parse_checkpoint, read_content
from utils.weights.fetch import is_official

_DETECT = "detect.py"
_FOLDER = Path(__file__).resolve().parent
_RUNTIMES = {".onnx": "onnxruntime", ".xml": "openvino", ".param": "ncnn"}  # of the models of detect.py
_ALWAYS = ("numpy>=1.24", "opencv-python-headless>=4.9")

# Settings of the training run that the card repeats; each is a flag of the same name.
_TRAINING_FLAGS = (
    *("data", "train", "val", "classes", "rename", "phi", "weights", "epochs", "batch_size", "imgsz", "seed"),
    *(
        "phi_at",
        "insert",
        "heads",
        "anchors",
        "unlabelled",
        "skip_bad",
        "skip_unreviewed",
        "accumulate",
        "lr_schedule",
    ),
    *("freeze_epochs", "optimizer", "lr", "augment", "mosaic", "mixup", "overfit"),
)


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
    packages = [package for suffix, package in _RUNTIMES.items() if suffix in present]
    if packages:
        texts[_DETECT] = (_FOLDER / "device" / _DETECT).read_text(encoding="utf-8")
        texts["requirements.txt"] = "\n".join([*_ALWAYS, *map(_requirement, packages)]) + "\n"
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


def build_card(
    job: ExportJob, models: Sequence[Path], measured: Sequence[str], command: Sequence[str]
) -> str:
    """Return the text of the model card; arguments as in `write_bundle`."""
    content = read_content(job.source) if job.source.suffix in (".pth", ".pt") else None
    checkpoint = parse_checkpoint(job.source, content) if is_checkpoint(content) else None
    run = checkpoint.run_config if checkpoint else {}
    config = job.portable_config()
    height, width = config.input_size
    at = f" at {', '.join(config.phi_at)}" if config.phi != "none" else ""
    parameters = sum(tensor.numel() for tensor in job.model.parameters())
    sections = {
        f"# {job.source.stem}": [
            f"YOLOv4-tiny detector, {config.num_heads} heads, attention {config.phi}{at}, input "
            f"{height}x{width} (height, width), {parameters:,} parameters, exported from "
            f"{job.source.name}, sha256 `{_sha256(job.source)}`."
        ],
        "## Files": [
            *("| file | bytes | sha256 |", "|---|---|---|"),
            *(f"| {path.name} | {path.stat().st_size} | `{_sha256(path)}` |" for path in models),
        ],
        "## Classes": [f"{len(job.class_names)}: {', '.join(job.class_names)}"],
        "## Data": _describe_data(job, run, checkpoint.class_names if checkpoint else ()),
        "## Commands": ["```bash", _training_command(run), shlex.join(command), "```"],
        "## Metrics": _describe_metrics(checkpoint.metrics if checkpoint else {}, run),
        "## Compared with PyTorch": [f"- {line}" for line in measured],
        "## Intended use and limits": [
            "Detects objects of the classes above in pictures like those it was trained on.",
            "Elsewhere its accuracy is unknown: measure it on pictures of your own. Not for decisions about "
            "people's safety or rights.",
        ],
        "## License": ["To fill in."],
    }
    return "\n\n".join("\n".join([f"{title}\n", *lines]) for title, lines in sections.items()) + "\n"


def _describe_data(job: ExportJob, run: Mapping[str, Any], class_names: Sequence[str]) -> list[str]:
    """Count the training images and objects, where the data can still be read.

    They are counted under the class names of the training, which --classes may have changed for the export.
    """
    if is_official(job.source):
        return ["The official weights of Darknet, trained on COCO; counts not known."]
    if "data" not in run:
        return ["not known: the weights hold no record of a training run"]
    try:
        splits, chosen = choose_training_splits(run["data"], run.get("train"))
        unlabelled, renames = run.get("unlabelled", "skip"), parse_renames(run.get("rename") or ())
        loaded = (load_samples(run["data"], split, unlabelled=unlabelled) for split in splits)
        options: dict[str, Any] = {"renames": renames, "skip_unreviewed": run.get("skip_unreviewed", False)}
        report = scan_samples([*chain(*loaded)], class_names=class_names, **options)
    except (UserError, OSError) as error:
        return [f"not known: {error}"]
    objects = report.class_counts
    held_out = "" if run.get("val") or chosen else " A part of these was held out to choose the best epoch."
    if run.get("overfit"):
        held_out = f" Only the first {run['overfit']} of these with objects were used."
    return [
        f"{len(report.records)} images and {objects.total()} objects in {', '.join(splits)} of "
        f"{Path(run['data']).name}, counted at the time of the export.{held_out}",
        "",
        *("| class | objects |", "|---|---|"),
        *(f"| {name} | {objects[own]} |" for name, own in zip(job.class_names, class_names, strict=True)),
    ]


def _training_command(run: Mapping[str, Any]) -> str:
    """Return the command that trained the network, with the settings that matter most."""
    if not run:
        return "# training: not known"
    words = ["python", "train.py"]
    for name in _TRAINING_FLAGS:
        value = run.get(name)
        if value is None or value is False:
            continue
        values = [] if value is True else value if isinstance(value, list | tuple) else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)


def _describe_metrics(metrics: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    if not metrics:
        return ["none recorded"]
    split = ", ".join(run.get("val") or ()) or "the default (val, or a held-out tenth)"
    if run.get("overfit"):
        split = f"the {run['overfit']} training images themselves (--overfit)"
    conf, nms_iou, max_det = EvaluateConfig.conf, EvaluateConfig.nms_iou, EvaluateConfig.max_det
    return [
        f"Measured before the export on the split that chose the epoch: {split}, at the input size of the "
        f"training. Scores from {conf}, NMS at IoU {nms_iou}, at most {max_det} detections an image. "
        "Not the metrics of a test set.",
        "",
        *("| metric | value |", "|---|---|"),
        *(f"| {name} | {value:.4f} |" for name, value in metrics.items() if isinstance(value, float | int)),
    ]


def _requirement(package: str) -> str:
    """Return a package with the bounds that requirements-export.txt gives it."""
    lines = (_FOLDER.parents[1] / "requirements-export.txt").read_text(encoding="utf-8").splitlines()
    return next(line.partition("#")[0].strip() for line in lines if re.match(rf"{package}\b", line))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
