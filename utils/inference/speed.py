"""Prediction speed: milliseconds of each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from utils.cli.console import one_line, plural
from utils.inference.predictor import Predictor, Timings
from utils.inference.sources import Source
from utils.inference.streams import Failures, open_streams
from utils.vision.image_reader import Pixels

_WARM_UP = 10


def print_speed(predictor: Predictor, sources: Sequence[Source], *, runs: int, batch_size: int) -> int:
    """Print the speed on the first image that can be read; returns the exit status.

    Raises:
        UserError: no image can be read.
    """
    failures = Failures(sources)
    for stream in open_streams(sources, failures):
        for frame in stream.frames(predictor):
            milliseconds = measure_speed(predictor, frame.image, runs=runs, batch_size=batch_size)
            conditions = describe_conditions(predictor.speed_conditions(batch_size))
            table = speed_table(milliseconds, one_line(f"{frame.name}  {runs} runs  {conditions}"))
            print(f"{table}{predictor.advise_amp()}")
            return 0
    return failures.conclude()


def measure_speed(predictor: Predictor, image: Pixels, *, runs: int, batch_size: int = 1) -> np.ndarray:
    """Time detection on `batch_size` copies of an image, uint8 (H, W, 3) in RGB, after ten warm-up runs.

    Returns:
        Milliseconds per image, (runs, 4): preprocess, network, postprocess, total; without reading files.
    """
    rows = []
    for _ in range(_WARM_UP + runs):
        timings = Timings()
        predictor.detect([predictor.prepare(image) for _ in range(batch_size)], timings)
        rows.append([*timings.milliseconds().values()])
    table = np.array(rows[_WARM_UP:])
    return np.column_stack([table, table.sum(axis=1)])


def describe_conditions(conditions: Mapping[str, Any]) -> str:
    """Write what `Predictor.speed_conditions` returned on a line."""
    height, width = conditions["input_size"]
    views = "  tiles of {}x{}".format(*conditions["tile"]) if "tile" in conditions else ""
    views += "  flip test" if "flip_test" in conditions else ""
    return (
        f"batch {conditions['batch_size']}  {height}x{width}{views}  "
        f"{conditions['precision']}  {plural(conditions['threads'], 'thread')}  {conditions['device']}  "
        f"{conditions['runtime']}"
    )


def speed_table(milliseconds: np.ndarray, heading: str) -> str:
    """Format mean, median and 95th percentile of each stage as a table below a heading.

    The mean is what evaluate.py reports.
    """
    medians, slowest = np.percentile(milliseconds, (50, 95), axis=0)
    lines = [heading, f"{'ms an image':<12} {'mean':>8} {'median':>8} {'p95':>8}"]
    names = (*Timings().milliseconds(), "total")
    for name, *figures in zip(names, milliseconds.mean(axis=0), medians, slowest, strict=True):
        lines.append(" ".join((f"{name:<12}", *(f"{figure:>8.2f}" for figure in figures))))
    return "\n".join([*lines, f"{1000 / medians[-1]:.1f} images a second by the median"])
