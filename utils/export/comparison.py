"""Comparison of exported formats: size, accuracy and speed of each, as Markdown, CSV and JSON."""

from __future__ import annotations

import copy
import csv
import functools
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

_PASSES, _RUNS = 3, 10  # formats are timed in turn, so that a slow minute of the machine meets all of them
_HEADINGS = ("format", "runtime", "precision", "MB", "mAP50", "mAP50-95", "network ms", "total ms")


@dataclass(frozen=True)
class Row:
    """A format, or the weights themselves."""

    format: str  # its name
    runtime: str  # what ran it, with the version
    precision: str  # the number type that it computes with
    megabytes: float  # size of its files, 1e6 bytes
    map50: float | None  # mAP50 on the split, None where it was not measured
    map50_95: float | None  # mAP50-95 on the split
    network_ms: float  # median milliseconds of the network on one image
    total_ms: float  # the same with letterbox, decoding and suppression


class Comparison:
    """Formats to measure; the weights in PyTorch are the first."""

    def __init__(self, job: ExportJob) -> None:
        """Begin with the network of the job."""
        self.skipped: dict[str, str] = {}  # why a format is not in the table
        self._job = job
        self._sizes: dict[str, float] = {}  # megabytes by format
        self._predictors: dict[str, Predictor] = {}
        self._add("weights", [job.source], job.model)

    def add(self, name: str, files: Sequence[Path]) -> None:
        """Add an exported model; its files as `export_as` returned them."""
        runner = FORMATS[name].runners(self._job.for_format(name), files[0])[0].run
        assert isinstance(runner, nn.Module)
        self._add(name, files, runner)

    @functools.cached_property
    def rows(self) -> list[Row]:
        """The rows of the table, measured when they are first asked for."""
        passes = [{name: self._time(one) for name, one in self._predictors.items()} for _ in range(_PASSES)]
        rows = []
        for name, predictor in self._predictors.items():
            metrics = self._job.evaluate(predictor.model) if self._job.evaluate else None
            network, total = np.median(np.concatenate([one[name] for one in passes]), axis=0)
            rows.append(
                Row(
                    name,
                    predictor.speed_conditions(1)["runtime"],
                    self._precision(name, predictor),
                    self._sizes[name],
                    metrics.map50 if metrics else None,
                    metrics.map50_95 if metrics else None,
                    float(network),
                    float(total),
                )
            )
        return rows

    def write(self, folder: Path) -> list[Path]:
        """Write comparison.md, .csv and .json."""
        content = {
            "batch_size": 1,
            "input_size": list(self._job.config.input_size),
            "threads": torch.get_num_threads(),
            "runs": _PASSES * _RUNS,
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
        threads, runs = plural(torch.get_num_threads(), "thread"), _PASSES * _RUNS
        notes = [f"batch 1, {height}x{width}, {threads} of this CPU; milliseconds are medians of {runs} runs"]
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

    def _add(self, name: str, files: Sequence[Path], model: nn.Module) -> None:
        if isinstance(model, YoloBody):  # as predict.py loads it
            model = copy.deepcopy(model)
            fold_norms(model)
        self._predictors[name] = Predictor(model, self._job.config, self._job.class_names)
        self._sizes[name] = sum(path.stat().st_size for path in files) / 1e6

    def _time(self, predictor: Predictor) -> np.ndarray:
        """Return milliseconds of the network and in total, (runs, 2)."""
        return measure_speed(predictor, self._job.pictures[0], runs=_RUNS)[:, [1, 3]]

    def _precision(self, name: str, predictor: Predictor) -> str:
        precision = str(predictor.speed_conditions(1)["precision"])
        if precision != "as exported":
            return precision
        job = self._job.for_format(name)
        has_16_bits = name == "onnx" and job.half  # ncnn computes in 32 bits, whatever it stores
        return "int8" if job.quantization else "float16" if has_16_bits else "float32"
