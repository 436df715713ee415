"""Charts of an evaluation: curves a class, what is taken for what, and what each kind of error costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from utils.vision.draw import class_color
from utils.vision.plots.figure import families, new_figure, save_figure, say_empty, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_NAMED = 24  # classes with a name in the legend
_MOST_COUNTED = 30  # classes with a number in each cell


def plot_curves(
    path: Path,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    class_names: Sequence[str],
    *,
    labels: tuple[str, str],
    figures: Sequence[float | None],
    mark_peak: bool = False,
) -> None:
    """Write a curve a class, and their mean, as a PNG.

    Args:
        path: the file to write.
        x: (G,) in [0, 1].
        y: (K, G) in [0, 1]; NaN where a class has no value, all NaN for one that is left out.
        class_names: the K names.
        labels: of the axes; the title says the second over the first.
        figures: what the legend says of each class, such as its AP.
        mark_peak: mark the highest point of the mean.

    Raises:
        UserError: the file cannot be written.
    """
    save_figure(build_curves_figure(x, y, class_names, labels, figures, mark_peak), path)


def plot_confusion(
    path: Path, matrix: NDArray[np.int64], class_names: Sequence[str], conf: float, iou: float
) -> None:
    """Write a confusion matrix as a PNG.

    Args:
        path: the file to write.
        matrix: (K + 1, K + 1): row = class of the object, column = class it was detected as, the last of each
            the background.
        class_names: the K names.
        conf: the lowest score that counts, for the title.
        iou: the least overlap, for the title.

    Raises:
        UserError: the file cannot be written.
    """
    save_figure(build_confusion_figure(matrix, class_names, conf, iou), path)


def plot_errors(path: Path, errors: Mapping[str, tuple[int, float | None]]) -> None:
    """Write how often each kind of error happens and what it costs in mAP50, as a PNG.

    Args:
        path: the file to write.
        errors: (count, cost) by kind; a cost of None where there is no ground truth.

    Raises:
        UserError: the file cannot be written.
    """
    save_figure(build_errors_figure(errors), path)


def build_curves_figure(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    class_names: Sequence[str],
    labels: tuple[str, str],
    figures: Sequence[float | None],
    mark_peak: bool,
) -> Figure:
    """Build the chart that `plot_curves` writes; arguments as there."""
    figure = new_figure(10, 7)
    axes = figure.subplots()
    drawn = [label for label in range(len(y)) if np.isfinite(y[label]).any()]
    is_named = len(drawn) <= _MOST_NAMED
    for label in drawn:
        value = figures[label]
        name = f"{shorten(class_names[label])}  {'-' if value is None else f'{value:.3f}'}"
        color = tuple(part / 255 for part in class_color(label)) if is_named else "0.75"
        axes.plot(x, y[label], color=color, linewidth=1.2, label=name if is_named else None)
    if drawn:
        _draw_mean(axes, x, y[drawn], [figures[label] for label in drawn], mark_peak)
        legend = axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
        for text in legend.get_texts():
            text.set(family=families(), parse_math=False)
    else:
        say_empty(axes, "no ground truth")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=labels[0], ylabel=labels[1])
    axes.set_title(f"{labels[1][0].upper()}{labels[1][1:]} over {labels[0]}, at IoU 0.5", fontsize=12)
    axes.grid(color="0.9")
    return figure


def build_confusion_figure(
    matrix: NDArray[np.int64], class_names: Sequence[str], conf: float, iou: float
) -> Figure:
    """Build the chart that `plot_confusion` writes; arguments as there."""
    names = [*(shorten(name) for name in class_names), "background"]
    side = float(np.clip(0.45 * len(names) + 3, 6, 24))
    figure = new_figure(side + 1, side)
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)  # of the objects of a class
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = float(np.clip(330 / len(names), 5, 10))
    places = range(len(names))
    axes.set_xticks(places, names, rotation=90, fontsize=size, family=families(), parse_math=False)
    axes.set_yticks(places, names, fontsize=size, family=families(), parse_math=False)
    if len(names) <= _MOST_COUNTED + 1:
        for row, column in zip(*matrix.nonzero(), strict=True):
            ink = "white" if shares[row, column] > 0.5 else "black"
            axes.text(
                column, row, f"{matrix[row, column]}", ha="center", va="center", fontsize=size, color=ink
            )
    axes.set(xlabel="detected as (background: missed)", ylabel="object (background: nothing is there)")
    axes.set_title(f"Confusion matrix: scores from {conf:g}, IoU from {iou:g}", fontsize=12)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the row")
    return figure


def build_errors_figure(errors: Mapping[str, tuple[int, float | None]]) -> Figure:
    """Build the chart that `plot_errors` writes; arguments as there."""
    figure = new_figure(8, 4.5)
    axes = figure.subplots()
    costs = [cost or 0.0 for _, cost in errors.values()]
    bars = axes.barh(list(errors), costs, color="tab:red", height=0.6)
    axes.bar_label(
        bars, [f"{cost:.3f}  ({count:,})" for cost, (count, _) in zip(costs, errors.values(), strict=True)]
    )
    axes.invert_yaxis()
    axes.set_xlim(min(0.0, *costs), max(0.01, *costs) * 1.25)  # room for the numbers
    axes.set(xlabel="mAP50 that is lost by it (how often it happens)")
    axes.set_title("Kinds of errors", fontsize=12)
    axes.spines[["top", "right"]].set_visible(False)
    if all(cost is None for _, cost in errors.values()):
        say_empty(axes, "no ground truth")
    return figure


def _draw_mean(
    axes: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    figures: Sequence[float | None],
    mark_peak: bool,
) -> None:
    """Draw the mean over the classes that have a value, with its peak or the mean of their figures."""
    counts = np.isfinite(y).sum(axis=0)
    mean = np.where(counts, np.nansum(y, axis=0) / np.maximum(counts, 1), np.nan)
    known = [value for value in figures if value is not None]
    label = f"mean  {sum(known) / len(known):.3f}" if known else "mean"
    if mark_peak:
        best = int(np.nanargmax(mean))
        label = f"mean, at most {mean[best]:.3f} at {x[best]:.2f}"
        axes.plot(x[best], mean[best], "*", color="black", markersize=13, zorder=5)
    axes.plot(x, mean, color="black", linewidth=3, label=label)
