"""Charts of a training run: what the labels are like, and how the figures went from epoch to epoch.

Each chart is built as a Figure and then saved, so that a test can look at what is in it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from torch import Tensor

from nets.boxes import xyxy_to_cxcywh
from utils.draw import class_color
from utils.files import atomic_write

LOSSES = ("box", "objectness", "class")
_SCORES = {"map50": "mAP50", "map50_95": "mAP50-95", "voc_ap50_area": "VOC AP50"}
_DPI = 120
_MOST_BARS = 100
_LONGEST_NAME = 24
_FEW_EPOCHS = 40  # up to here each epoch gets a dot
_ASPECT_LIMIT = 4.0  # 16:1 and more share the last bar
# The bundled font has no letters of China, Japan and Korea; one of these is on most machines.
_WIDER_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Microsoft YaHei", "PingFang SC", "Arial Unicode MS")


def plot_labels(
    path: Path,
    class_names: Sequence[str],
    labels: Tensor,
    boxes: Tensor,
    input_size: tuple[int, int],
    anchors: Sequence[tuple[float, float]],
) -> None:
    """Write a chart of the objects of a data set as a PNG.

    Args:
        path: the file to write.
        class_names: the K names.
        labels: Tensor[N] int64, class indices of all objects.
        boxes: Tensor[N, 4], (x1, y1, x2, y2) edges in pixels of the letterboxed picture.
        input_size: (height, width) of the network input in pixels.
        anchors: (width, height) pairs in network pixels.

    Raises:
        UserError: the file cannot be written.
    """
    _save(build_labels_figure(class_names, labels, boxes, input_size, anchors), path)


def plot_results(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write the curves of a run as a PNG.

    Args:
        path: the file to write.
        rows: the rows of results.csv as csv.DictReader gives them; what is missing or empty is no point.

    Raises:
        UserError: the file cannot be written.
    """
    _save(build_results_figure(rows), path)


def build_labels_figure(
    class_names: Sequence[str],
    labels: Tensor,
    boxes: Tensor,
    input_size: tuple[int, int],
    anchors: Sequence[tuple[float, float]],
) -> Figure:
    """Build the chart that `plot_labels` writes; arguments as there."""
    bars = min(len(class_names), _MOST_BARS)
    figure = Figure(figsize=(14, max(8.0, 0.13 * bars + 1)), layout="constrained")
    panels = figure.subplot_mosaic(
        [["classes", "sizes", "centres"], ["classes", "aspects", "aspects"]],
        width_ratios=(1.0, 1.0, 1.1),
    )
    centres, sizes = np.split(xyxy_to_cxcywh(boxes.cpu().double()).numpy(), 2, axis=1)  # each (N, 2), x first
    _draw_classes(panels["classes"], class_names, np.bincount(labels.cpu(), minlength=len(class_names)))
    _draw_sizes(panels["sizes"], sizes, input_size, anchors)
    _draw_aspects(panels["aspects"], sizes)
    _draw_centres(panels["centres"], centres, input_size)
    return figure


def build_results_figure(rows: Sequence[Mapping[str, str]]) -> Figure:
    """Build the chart that `plot_results` writes; arguments as there."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    losses, scores, rate, speed = figure.subplots(2, 2).flat
    for name in LOSSES:
        _draw_curve(losses, rows, name, name)
    for name, label in _SCORES.items():
        _draw_curve(scores, rows, name, label, "--" if name.startswith("voc") else "-")  # often like mAP50
    _draw_curve(rate, rows, "lr", "learning rate")
    _draw_curve(speed, rows, "images_per_second", "images a second")
    _mark_best(scores, rows)
    titles = ("Training losses", "Accuracy on the validation images", "Learning rate", "Images a second")
    for axes, title in zip((losses, scores, rate, speed), titles, strict=True):
        axes.set_title(title, fontsize=12)
        axes.set_xlabel("epoch")
        axes.grid(color="0.9")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if axes.lines:
            _fit_height(axes)
        else:
            axes.set(xticks=[], yticks=[])
            _say_empty(axes, "no values yet")
        if len(axes.lines) > 1:
            axes.legend(fontsize=10)
    return figure


def _draw_classes(axes: Axes, class_names: Sequence[str], counts: np.ndarray) -> None:
    """Draw a bar a class, the commonest on top."""
    order = np.argsort(-counts, kind="stable")[:_MOST_BARS]
    names = [_shorten(class_names[label]) for label in order]
    size = float(np.clip(330 / max(len(order), 1), 6, 11))  # points, so that the lines do not touch
    places = np.arange(len(order))
    colors = [tuple(part / 255 for part in class_color(int(label))) for label in order]
    bars = axes.barh(places, counts[order], color=colors, height=min(0.8, 0.25 + 0.05 * len(order)))
    axes.bar_label(bars, [f"{count:,}" for count in counts[order]], padding=3, fontsize=size)
    axes.set_yticks(places, names, fontsize=size, family=_families(), parse_math=False)
    axes.set_ylim(max(len(order), 1) - 0.4, -0.6)
    axes.set_xlim(0, counts.max(initial=1) * 1.17)  # room for the numbers
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    classes = f"{len(class_names)} class{'es' if len(class_names) != 1 else ''}"
    shown = f", the {len(order)} commonest" if len(order) < len(class_names) else ""
    axes.set_title(f"{counts.sum():,} objects of {classes}{shown}", fontsize=12)


def _draw_sizes(
    axes: Axes, sizes: np.ndarray, input_size: tuple[int, int], anchors: Sequence[tuple[float, float]]
) -> None:
    """Draw how many boxes have which width and height, and the anchors that they are learnt from."""
    longest = float(max(*input_size, *(side for anchor in anchors for side in anchor)))
    edges = np.geomspace(2, longest * 1.1, 49)
    inside = sizes.clip(edges[0], edges[-1])
    if len(sizes):
        axes.hist2d(inside[:, 0], inside[:, 1], bins=(edges, edges), cmin=1, cmap="viridis", norm=LogNorm())
    else:
        _say_empty(axes, "no objects")
    axes.plot(*np.array(anchors).T, "x", color="red", markersize=9, markeredgewidth=2, label="anchor")
    ticks = [2**power for power in range(1, 12) if 2**power < longest]
    axes.set(xscale="log", yscale="log", xlim=edges[[0, -1]], ylim=edges[[0, -1]])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
    axes.set_box_aspect(1)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.legend(loc="upper left", fontsize=10)
    axes.set(xlabel="width in network pixels", ylabel="height in network pixels")
    axes.set_title("Sizes of the boxes", fontsize=12)


def _draw_aspects(axes: Axes, sizes: np.ndarray) -> None:
    ratios = np.log2(sizes[:, 0].clip(1e-6) / sizes[:, 1].clip(1e-6)).clip(-_ASPECT_LIMIT, _ASPECT_LIMIT)
    axes.hist(ratios, bins=64, range=(-_ASPECT_LIMIT, _ASPECT_LIMIT), color="tab:blue")
    powers = range(-int(_ASPECT_LIMIT), int(_ASPECT_LIMIT) + 1)
    names = [f"{2**power}:1" if power >= 0 else f"1:{2**-power}" for power in powers]
    axes.set_xticks(list(powers), names)
    axes.axvline(0, color="0.4", linewidth=1, linestyle="--")
    axes.set_ylim(0, None if len(sizes) else 1)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.set(xlabel="width : height", ylabel="objects")
    axes.set_title("Shapes of the boxes", fontsize=12)
    if not len(sizes):
        _say_empty(axes, "no objects")


def _draw_centres(axes: Axes, centres: np.ndarray, input_size: tuple[int, int]) -> None:
    """Draw where in the letterboxed picture the centres lie, as a share of its sides."""
    shares = (centres / np.array(input_size[::-1])).clip(0, 1)
    counts, _, _ = np.histogram2d(shares[:, 1], shares[:, 0], bins=32, range=((0, 1), (0, 1)))
    scale = PowerNorm(0.5, 0, max(counts.max(), 1))  # a data set of portraits has all in the middle
    image = axes.imshow(counts, extent=(0, 1, 1, 0), cmap="viridis", norm=scale)
    axes.set_box_aspect(input_size[0] / input_size[1])
    axes.set_aspect("auto")
    axes.set(xlabel="share of the width", ylabel="share of the height")
    axes.set_title("Centres, in the letterboxed picture", fontsize=12)
    place = axes.inset_axes((1.03, 0, 0.05, 1))  # as high as the panel, whatever its shape
    axes.figure.colorbar(image, cax=place, ticks=MaxNLocator(5, integer=True))
    if not len(centres):
        _say_empty(axes, "no objects")


def _draw_curve(
    axes: Axes, rows: Sequence[Mapping[str, str]], name: str, label: str, style: str = "-"
) -> None:
    points = _read_points(rows, name)
    if points:
        marker = "o" if len(points) <= _FEW_EPOCHS else ""
        axes.plot(*zip(*points, strict=True), style, marker=marker, markersize=4, linewidth=1.8, label=label)


def _fit_height(axes: Axes) -> None:
    """Let the axis start at 0; where a wild start would press all that follows flat, make it logarithmic."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines])
    if values.min() > 0 and values.max() > 10 * np.median(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.set_ylim(min(0.0, 1.08 * values.min()), 1.08 * values.max() or 1.0)


def _mark_best(axes: Axes, rows: Sequence[Mapping[str, str]]) -> None:
    """Mark the epoch of best.pth: of the highest mAP50, the later one of equals."""
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


def _say_empty(axes: Axes, text: str) -> None:
    field = {"facecolor": "white", "edgecolor": "none"}
    axes.text(0.5, 0.15, text, transform=axes.transAxes, ha="center", va="center", fontsize=13, bbox=field)


def _shorten(name: str) -> str:
    line = "".join(letter if letter.isprintable() else " " for letter in name)
    line = " ".join(line.split())
    return line if len(line) <= _LONGEST_NAME else f"{line[: _LONGEST_NAME - 1]}…"


def _families() -> list[str]:
    """Return the fonts to look for letters in, in order."""
    present = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in _WIDER_FONTS if name in present)]


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with atomic_write(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+")  # shown as a box; no reason to fill the console
        figure.savefig(file, dpi=_DPI, format="png")
