"""MODEL_CARD.md: what an exported model is, what it was trained on and how it was measured."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from utils.cli.class_names import parse_renames
from utils.cli.console import warn
from utils.cli.errors import UserError
from utils.cli.evaluate_config import EvaluateConfig
from utils.cli.files import read_text
from utils.cli.parser import as_arguments
from utils.cli.presets import settings_to_repeat
from utils.cli.train_config import TrainConfig
from utils.data.dataset_report import scan_samples
from utils.data.samples import choose_training_splits, load_samples
from utils.export.job import ExportJob
from utils.weights.checkpoint import is_checkpoint, parse_checkpoint, read_content
from utils.weights.fetch import is_official

_MAX_CARD_BYTES = 1_000_000
_OTHER_TITLES = {"Recipe": "Training", "Limits": "Intended use and limits"}
_OF_EXPORT = ("Files", "Classes", "Export", "Compared with PyTorch")  # of another file, in a card of ours
_RELATIVE_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?![a-z]+:)[^)]+\)")
_PUBLIC_DOMAIN = "Darknet has put its weights in the public domain: https://github.com/AlexeyAB/darknet"


def build_card(
    job: ExportJob, models: Sequence[Path], measured: Sequence[str], command: Sequence[str]
) -> str:
    """Return the text of the model card; arguments as in `write_bundle`.

    Weights with a card of their own beside them (same name, .md, with their sha256) keep its sections.
    """
    content = read_content(job.source) if job.source.suffix in (".pth", ".pt") else None
    checkpoint = parse_checkpoint(job.source, content) if is_checkpoint(content) else None
    run = checkpoint.run_config if checkpoint else {}
    source_hash = _sha256(job.source)
    own = _read_own_card(job.source, source_hash)
    config = job.portable_config()
    height, width = config.input_size
    at = f" at {', '.join(config.phi_at)}" if config.phi != "none" else ""
    parameters = sum(tensor.numel() for tensor in job.model.parameters())
    training = ["```bash", _training_command(run), "```"]
    sections = {
        f"# {escape(job.source.stem)}": [
            f"YOLOv4-tiny detector, {config.num_heads} heads, attention {escape(config.phi)}{at}, input "
            f"{height}x{width} (height, width), {parameters:,} parameters, exported from "
            f"{escape(job.source.name)}, sha256 `{source_hash}`."
        ],
        "## Files": [
            *("| file | bytes | sha256 |", "|---|---|---|"),
            *(f"| {escape(path.name)} | {path.stat().st_size} | `{_sha256(path)}` |" for path in models),
        ],
        "## Classes": [
            *("| label | class |", "|---|---|"),
            *(f"| {label} | {escape(name)} |" for label, name in enumerate(job.class_names)),
        ],
        "## Data": _describe_data(job, run, checkpoint.class_names if checkpoint else ()),
        "## Training": training,
        "## Export": ["```bash", shlex.join(command), "```"],
        "## Metrics": _describe_metrics(checkpoint.metrics if checkpoint else {}, run),
        "## Compared with PyTorch": [f"- {line}" for line in measured],
        "## Intended use and limits": [
            "Detects objects of the classes above in pictures like those it was trained on.",
            "Elsewhere its accuracy is unknown: measure it on pictures of your own. Not for decisions about "
            "people's safety or rights.",
        ],
        "## License": [_PUBLIC_DOMAIN if is_official(job.source) else "To fill in."],
    }
    sections |= {f"## {title}": lines for title, lines in own.items()}
    return "\n\n".join("\n".join([f"{title}\n", *lines]) for title, lines in sections.items()) + "\n"


def escape(text: str) -> str:
    """Return text as Markdown shows it unchanged, also in a table."""
    return re.sub(r"([\\`*_|<>\[\]&~])", r"\\\1", text)


def _read_own_card(weights: Path, source_hash: str) -> dict[str, list[str]]:
    """Return the lines of each section of the card beside the weights; {} if it lacks their sha256."""
    path = weights.with_suffix(".md")
    if not path.is_file():
        return {}
    try:
        text = read_text(path, _MAX_CARD_BYTES)
    except UserError as error:
        warn(f"{error}; its sections are not in MODEL_CARD.md")
        return {}
    if source_hash not in text:
        warn(f"{path}: lacks the sha256 of {weights.name}; its sections are not in MODEL_CARD.md")
        return {}
    sections: dict[str, list[str]] = {}
    lines: list[str] = []  # of what comes before the first section
    in_code = False
    for line in text.splitlines():
        in_code ^= line.startswith("```")
        if line.startswith("## ") and not in_code:
            title = line.removeprefix("## ").strip()
            lines = sections.setdefault(_OTHER_TITLES.get(title, title), [])
        else:
            lines.append(line if in_code else _RELATIVE_LINK.sub(r"\1", line))
    sections = {title: "\n".join(lines).strip().splitlines() for title, lines in sections.items()}
    if "Metrics" in sections:
        sections["Metrics"][:0] = [f"Of {escape(weights.name)}, before the export:", ""]
    return {title: lines for title, lines in sections.items() if title not in _OF_EXPORT}


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
        f"{escape(Path(run['data']).name)}, counted at the time of the export.{held_out}",
        "",
        *("| class | objects |", "|---|---|"),
        *(
            f"| {escape(name)} | {objects[own]} |"
            for name, own in zip(job.class_names, class_names, strict=True)
        ),
    ]


def _training_command(run: Mapping[str, Any]) -> str:
    """Return the command that trained the network."""
    if not run:
        return "# not known"
    return shlex.join(["python", "train.py", *as_arguments(TrainConfig, settings_to_repeat(run))])


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


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
