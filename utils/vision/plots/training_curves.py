"""Chart of a training run: losses, accuracy, learning rate and speed per epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nets.loss import WEIGHTS
from utils.vision.plots.figure import save_figure, write_empty

_SCORES = {"map50": "mAP50", "map50_95": "mAP50-95", "voc_ap50_area": "VOC AP50"}
_FEW_EPOCHS = 40  # up to here each epoch has a marker


def plot_results(path: Path, rows: Sequence[Mapping[str, str]]) -> Figure:
    """Write the curves of a run as a PNG, and return the chart.

    Missing or empty values of the rows of results.csv, from csv.DictReader, are not drawn. A UserError tells
    that the file cannot be written.
    """
    figure = Figure(figsize=(12, 8), layout="constrained")
    losses, scores, rate, speed = figure.subplots(2, 2).flat
    for name in WEIGHTS:
        _draw_curve(losses, rows, name, name)
    for name, label in _SCORES.items():
        _draw_curve(scores, rows, name, label, "--" if name.startswith("voc") else "-")  # often like mAP50
    _draw_curve(rate, rows, "lr", "learning rate")
    _draw_curve(speed, rows, "images_per_second", "images per second")
    _mark_best(scores, rows)
    titles = ("Training losses", "Accuracy on the validation images", "Learning rate", "Images per second")
    for axes, title in zip((losses, scores, rate, speed), titles, strict=True):
        axes.set_title(title, fontsize=12)
        axes.set_xlabel("epoch")
        axes.grid(color="0.9")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if axes.lines:
            _fit_height(axes)
        else:
            axes.set(xticks=[], yticks=[])
            write_empty(axes, "no values yet")
        if len(axes.lines) > 1:
            axes.legend(fontsize=10)
    save_figure(figure, path)
    return figure


def _draw_curve(
    axes: Axes, rows: Sequence[Mapping[str, str]], name: str, label: str, style: str = "-"
) -> None:
    points = _read_points(rows, name)
    if points:
        marker = "o" if len(points) <= _FEW_EPOCHS else ""
        axes.plot(*zip(*points, strict=True), style, marker=marker, markersize=4, linewidth=1.8, label=label)


def _fit_height(axes: Axes) -> None:
    """Start the axis at 0, or make it logarithmic if a high start would flatten the rest."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines])
    if values.min() > 0 and values.max() > 10 * np.median(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.set_ylim(min(0.0, 1.08 * values.min()), 1.08 * values.max() or 1.0)


def _mark_best(axes: Axes, rows: Sequence[Mapping[str, str]]) -> None:
    """Mark the epoch of best.pth: the highest mAP50, the last of equal ones."""
    points = _read_points(rows, "map50")
    if not points:
        return
    epoch, value = max(points, key=lambda point: (point[1], point[0]))
    label = f"best: {value:.4f} at epoch {epoch:g}"
    axes.plot([epoch], [value], "*", color="black", markersize=12, linestyle="none", zorder=5, label=label)


def _read_points(rows: Sequence[Mapping[str, str]], name: str) -> list[tuple[float, float]]:
    """Return (epoch, value) of the rows that have a finite value in a column."""
    pairs = [(float(row["epoch"]), float(row[name])) for row in rows if row.get(name)]
    return [pair for pair in pairs if math.isfinite(pair[1])]
