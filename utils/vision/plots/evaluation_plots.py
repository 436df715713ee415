"""Charts of an evaluation: curves per class, confusion matrix, and the cost of each kind of error.

Each is written as a PNG and returned; a UserError tells that the file cannot be written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from utils.vision.colors import class_colors
from utils.vision.plots.figure import families, save_figure, shorten, write_empty

_MAX_NAMED = 24  # classes in the legend
_MAX_NUMBERED = 30  # classes with a number in each cell


def plot_curves(
    path: Path,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    class_names: Sequence[str],
    *,
    labels: tuple[str, str],
    values: Sequence[float | None],
    mark_peak: bool = False,
) -> Figure:
    """Write a chart of a curve per class and their mean to a file.

    Args:
        path: the file to write.
        x: (G,) in [0, 1].
        y: (K, G) in [0, 1]; NaN where a class has no value; a class of all NaN is skipped.
        class_names: the K names.
        labels: of the x and the y axis.
        values: number of each class in the legend, such as its AP.
        mark_peak: mark the highest point of the mean.
    """
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots()
    drawn = [label for label in range(len(y)) if np.isfinite(y[label]).any()]
    is_named = len(drawn) <= _MAX_NAMED
    colors = class_colors(tuple(class_names))
    for label in drawn:
        value = values[label]
        name = f"{shorten(class_names[label])}  {'-' if value is None else f'{value:.3f}'}"
        color = tuple(part / 255 for part in colors[label]) if is_named else "0.75"
        axes.plot(x, y[label], color=color, linewidth=1.2, label=name if is_named else None)
    if drawn:
        _draw_mean(axes, x, y[drawn], [values[label] for label in drawn], mark_peak)
        legend = axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
        for text in legend.get_texts():
            text.set(family=families(), parse_math=False)
    else:
        write_empty(axes, "no ground truth")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=labels[0], ylabel=labels[1])
    axes.set_title(f"{labels[1][0].upper()}{labels[1][1:]} over {labels[0]}, at IoU 0.5", fontsize=12)
    axes.grid(color="0.9")
    save_figure(figure, path)
    return figure


def plot_confusion(
    path: Path, matrix: NDArray[np.int64], class_names: Sequence[str], conf: float, iou: float
) -> Figure:
    """Write a chart of a confusion matrix to a file.

    Rows of the (K + 1, K + 1) matrix are ground truth and columns detections, the last of each is background.
    The thresholds of score and IoU are for the title.
    """
    names = [*(shorten(name) for name in class_names), "background"]
    side = float(np.clip(0.45 * len(names) + 3, 6, 24))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)  # of the objects of a class
    image = axes.imshow(shares, cmap="Blues", norm=Normalize(0, 1))
    size = float(np.clip(330 / len(names), 5, 10))
    places = range(len(names))
    axes.set_xticks(places, names, rotation=90, fontsize=size, family=families(), parse_math=False)
    axes.set_yticks(places, names, fontsize=size, family=families(), parse_math=False)
    if len(names) <= _MAX_NUMBERED + 1:
        for row, column in zip(*matrix.nonzero(), strict=True):
            ink = "white" if shares[row, column] > 0.5 else "black"
            axes.text(
                column, row, f"{matrix[row, column]}", ha="center", va="center", fontsize=size, color=ink
            )
    axes.set(xlabel="detected as (background: missed)", ylabel="ground truth (background: no object)")
    axes.set_title(f"Confusion matrix: scores from {conf:g}, IoU from {iou:g}", fontsize=12)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the row")
    save_figure(figure, path)
    return figure


def plot_errors(path: Path, errors: Mapping[str, tuple[int, float | None]]) -> Figure:
    """Write a chart of the count of each kind of error and its cost in mAP50 to a file.

    `errors` has (count, cost) by kind; the cost is None without ground truth.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    costs = [cost or 0.0 for _, cost in errors.values()]
    bars = axes.barh(list(errors), costs, color="tab:red", height=0.6)
    axes.bar_label(
        bars, [f"{cost:.3f}  ({count:,})" for cost, (count, _) in zip(costs, errors.values(), strict=True)]
    )
    axes.invert_yaxis()
    axes.set_xlim(min(0.0, *costs), max(0.01, *costs) * 1.25)  # room for the numbers
    axes.set(xlabel="mAP50 lost (number of errors)")
    axes.set_title("Kinds of errors", fontsize=12)
    axes.spines[["top", "right"]].set_visible(False)
    if all(cost is None for _, cost in errors.values()):
        write_empty(axes, "no ground truth")
    save_figure(figure, path)
    return figure


def _draw_mean(
    axes: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    values: Sequence[float | None],
    mark_peak: bool,
) -> None:
    """Draw the mean over the classes with a value, labeled with its peak or the mean of `values`."""
    counts = np.isfinite(y).sum(axis=0)
    mean = np.where(counts, np.nansum(y, axis=0) / np.maximum(counts, 1), np.nan)
    known = [value for value in values if value is not None]
    label = f"mean  {sum(known) / len(known):.3f}" if known else "mean"
    if mark_peak:
        best = int(np.nanargmax(mean))
        label = f"mean, at most {mean[best]:.3f} at {x[best]:.2f}"
        axes.plot(x[best], mean[best], "*", color="black", markersize=13, zorder=5)
    axes.plot(x, mean, color="black", linewidth=3, label=label)
