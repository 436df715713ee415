"""Comparison of exported formats: size, accuracy and speed of each, as Markdown, CSV and JSON."""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nets.blocks import fold_norms
from nets.yolo import YoloBody
from utils.cli.console import plural
from utils.cli.files import atomic_write
from utils.export.card import escape
from utils.export.exporter import FORMATS
from utils.export.job import ExportJob
from utils.inference.predictor import Predictor
from utils.inference.speed import measure_speed

_RUNS = 30
_HEADINGS = ("format", "runtime", "precision", "MB", "mAP50", "mAP50-95", "network ms", "total ms")


@dataclass(frozen=True)
class Row:
    """A format, or the weights themselves.

    Attributes:
        format: its name.
        runtime: what ran it, with the version.
        precision: the number type that it computes with.
        megabytes: size of its files, 1e6 bytes.
        map50: mAP50 on the split, None where it was not measured.
        map50_95: mAP50-95 on the split.
        network_ms: median milliseconds of the network on one image.
        total_ms: the same with letterbox, decoding and suppression.
    """

    format: str
    runtime: str
    precision: str
    megabytes: float
    map50: float | None
    map50_95: float | None
    network_ms: float
    total_ms: float


class Comparison:
    """Rows of measured formats; the weights in PyTorch are the first."""

    def __init__(self, job: ExportJob) -> None:
        """Measure the network of the job."""
        self.skipped: dict[str, str] = {}  # why a format is not in the table
        self._job = job
        self.rows = [self._measure("weights", job, [job.source], job.model)]

    def add(self, name: str, files: Sequence[Path]) -> None:
        """Measure an exported model; its files as `export_as` returned them."""
        job = self._job.for_format(name)
        runner = FORMATS[name].runners(job, files[0])[0].run
        assert isinstance(runner, nn.Module)
        self.rows.append(self._measure(name, job, files, runner))

    def write(self, folder: Path) -> list[Path]:
        """Write comparison.md, .csv and .json."""
        content = {
            "batch_size": 1,
            "input_size": list(self._job.config.input_size),
            "threads": torch.get_num_threads(),
            "runs": _RUNS,
            "rows": [asdict(row) for row in self.rows],
            "skipped": self.skipped,
        }
        texts = {
            "comparison.md": self.as_markdown(),
            "comparison.csv": self._as_csv(),
            "comparison.json": json.dumps(content, indent=1, ensure_ascii=False) + "\n",
        }
        for name, text in texts.items():
            with atomic_write(folder / name, "w") as file:
                file.write(text)
        return [folder / name for name in texts]

    def as_markdown(self) -> str:
        """Return the table with notes on what was measured and what was skipped."""
        lines = [f"| {' | '.join(_HEADINGS)} |", "|---" * len(_HEADINGS) + "|"]
        for row in self.rows:
            cells = [escape(row.format), escape(row.runtime), row.precision, f"{row.megabytes:.1f}"]
            cells += ["-" if value is None else f"{value:.4f}" for value in (row.map50, row.map50_95)]
            cells += [f"{value:.1f}" for value in (row.network_ms, row.total_ms)]
            lines.append(f"| {' | '.join(cells)} |")
        height, width = self._job.config.input_size
        threads = plural(torch.get_num_threads(), "thread")
        notes = [
            f"batch 1, {height}x{width}, {threads} of this CPU; milliseconds are medians of {_RUNS} runs"
        ]
        if self._job.evaluate is None:
            notes.append("mAP not measured: add --data DIR")
        notes += [f"skipped {name}: {escape(reason)}" for name, reason in self.skipped.items()]
        return "\n".join([*lines, "", *(f"- {note}" for note in notes)]) + "\n"

    def _as_csv(self) -> str:
        file = io.StringIO()
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, self.rows))
        return file.getvalue()

    def _measure(self, name: str, job: ExportJob, files: Sequence[Path], model: nn.Module) -> Row:
        if isinstance(model, YoloBody):  # as predict.py loads it
            model = copy.deepcopy(model)
            fold_norms(model)
        predictor = Predictor(model, job.config, job.class_names)
        conditions = predictor.speed_conditions(batch_size=1)
        precision = conditions["precision"]
        if precision == "as exported":
            has_16_bits = name == "onnx" and job.half  # ncnn computes in 32 bits, whatever it stores
            precision = "int8" if job.quantization else "float16" if has_16_bits else "float32"
        metrics = job.evaluate(model) if job.evaluate else None
        medians = np.median(measure_speed(predictor, job.pictures[0], runs=_RUNS), axis=0)
        return Row(
            name,
            conditions["runtime"],
            precision,
            sum(path.stat().st_size for path in files) / 1e6,
            metrics.map50 if metrics else None,
            metrics.map50_95 if metrics else None,
            float(medians[1]),
            float(medians[3]),
        )
