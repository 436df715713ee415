"""MODEL_CARD.md: what an export is, where it comes from and what was measured of it; facts only."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.cli.class_names import parse_renames
from utils.cli.errors import UserError
from utils.cli.evaluate_config import EvaluateConfig
from utils.data.dataset_report import scan_samples
from utils.data.layout import choose_training_splits
from utils.data.samples import load_samples
from utils.export.job import ExportJob
from utils.weights.checkpoint import parse_checkpoint, read_content
from utils.weights.fetch import is_official

# The settings of a training run that tell most; each is a flag of the same name.
_TOLD = (
    *("data", "train", "val", "classes", "rename", "phi", "weights", "epochs", "batch_size", "imgsz", "seed"),
    *("phi_at", "insert", "anchors", "unlabelled", "skip_bad", "accumulate", "lr_schedule"),
    *("freeze_epochs", "optimizer", "lr", "augment", "mosaic", "mixup", "overfit"),
)
_NOTHING = "not known: the weights hold no record of a training run"


def build_card(
    job: ExportJob, models: Sequence[Path], measured: Sequence[str], command: Sequence[str]
) -> str:
    """Write the card of an export.

    Args:
        job: what was exported.
        models: the files of the export.
        measured: a line each on how far an export is from the network.
        command: the command line of the export.
    """
    metrics, run, class_names = _read_record(job.source)
    config = job.shared_config()
    height, width = config.input_size
    at = f" at {', '.join(config.phi_at)}" if config.phi != "none" else ""
    parameters = sum(tensor.numel() for tensor in job.model.parameters())
    sections = {
        "": [
            f"YOLOv4-tiny detector, attention {config.phi}{at}, input {height}x{width} (height, width), "
            f"{parameters:,} parameters, exported from {job.source.name}, sha256 `{_sha256(job.source)}`."
        ],
        "Files": ["| file | bytes | sha256 |", "|---|---|---|", *map(_row, models)],
        "Classes": [f"{len(job.class_names)}: {', '.join(job.class_names)}"],
        "Data": _describe_data(job, run, class_names),
        "Commands": ["```bash", *_training_command(run), shlex.join(command), "```"],
        "Metrics": _describe_metrics(metrics, run),
        "Compared with PyTorch": [f"- {line}" for line in measured],
        "Intended use and limits": [
            "Finds objects of the classes above in pictures like those it was trained on.",
            "Elsewhere its accuracy is unknown: measure it on pictures of your own; not for decisions about "
            "people's safety or rights.",
        ],
        "License": ["To fill in."],
    }
    return (
        "\n\n".join(
            (f"## {title}\n\n" if title else f"# {job.source.stem}\n\n") + "\n".join(lines)
            for title, lines in sections.items()
        )
        + "\n"
    )


def _read_record(source: Path) -> tuple[Mapping[str, Any], Mapping[str, Any], tuple[str, ...]]:
    """Return metrics, settings and class names of the run that made a checkpoint of ours; else nothing."""
    content = read_content(source) if source.suffix in (".pth", ".pt") else None
    if not isinstance(content, dict) or "format_version" not in content:
        return {}, {}, ()
    checkpoint = parse_checkpoint(source, content)
    return checkpoint.metrics, checkpoint.run_config, checkpoint.class_names


def _describe_data(job: ExportJob, run: Mapping[str, Any], class_names: Sequence[str]) -> list[str]:
    """Return the images and objects that the network was trained on, counted where they can be read.

    They are counted under the names of the training, which --classes may have changed for the export.
    """
    if is_official(job.source):
        return ["The official weights of Darknet, trained on COCO; counts not known."]
    if "data" not in run:
        return [_NOTHING]
    try:
        splits, chosen = choose_training_splits(run["data"], run.get("train"))
        samples = [
            sample
            for split in splits
            for sample in load_samples(run["data"], split, unlabelled=run.get("unlabelled", "skip"))
        ]
        report = scan_samples(
            samples, class_names=class_names, renames=parse_renames(run.get("rename") or ())
        )
    except (UserError, OSError) as error:
        return [f"not known: {error}"]
    objects = report.class_counts
    held = "" if run.get("val") or chosen else " Of these a part was held out to choose the best epoch."
    if run.get("overfit"):
        held = f" Of these only the first {run['overfit']} with objects were used."
    return [
        f"{len(report.records)} images and {objects.total()} objects in {', '.join(splits)} of "
        f"{Path(run['data']).name}, counted at the time of the export.{held}",
        "",
        *("| class | objects |", "|---|---|"),
        *(f"| {name} | {objects[own]} |" for name, own in zip(job.class_names, class_names, strict=True)),
    ]


def _training_command(run: Mapping[str, Any]) -> list[str]:
    """Return the command that trained the network, with the settings that tell most."""
    if not run:
        return ["# training: not known"]
    words = ["python", "train.py"]
    for name in _TOLD:
        value = run.get(name)
        if value is None or value is False:
            continue
        values = [] if value is True else value if isinstance(value, list | tuple) else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return [shlex.join(words)]


def _describe_metrics(metrics: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    if not metrics:
        return ["none recorded"]
    split = ", ".join(run.get("val") or ()) or "the default (val, or a held-out tenth)"
    if run.get("overfit"):
        split = f"the {run['overfit']} training images themselves (--overfit)"
    rule = EvaluateConfig
    return [
        f"Of the weights on the split that chose the epoch: {split}. Scores from {rule.conf}, NMS at IoU "
        f"{rule.nms_iou}, at most {rule.max_det} detections an image. Measured before the export, "
        "at the input size of the training; not those of a test.",
        "",
        *("| metric | value |", "|---|---|"),
        *(f"| {name} | {value:.4f} |" for name, value in metrics.items() if isinstance(value, float | int)),
    ]


def _row(path: Path) -> str:
    return f"| {path.name} | {path.stat().st_size} | `{_sha256(path)}` |"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
