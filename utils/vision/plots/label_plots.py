"""Charts of the labels of a data set: classes, sizes with the anchors, aspect ratios, centers.

Each is written as a PNG and returned; a UserError tells that the file cannot be written. Sizes are in network
pixels: anchors (width, height), the network input (height, width).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from utils.vision.colors import class_colors
from utils.vision.plots.figure import families, save_figure, shorten, write_empty

_MAX_BARS = 100
_ANCHOR_STYLES: tuple[dict[str, Any], ...] = (
    {"marker": "x", "color": "red", "markersize": 9, "markeredgewidth": 2},
    {"marker": "D", "color": "black", "markersize": 9, "markeredgewidth": 2, "fillstyle": "none"},
)
_ASPECT_LIMIT = 4.0  # 16:1 and more share the last bar


def plot_labels(
    path: Path,
    class_names: Sequence[str],
    labels: NDArray[np.int64],
    boxes: NDArray[np.float32],
    input_size: tuple[int, int],
    anchors: Sequence[tuple[float, float]],
) -> Figure:
    """Write a chart of the objects of a data set to a file.

    `labels` int64 (N,) and `boxes` float32 (N, 4), (x1, y1, x2, y2) edges, are those of all objects.
    """
    bars = min(len(class_names), _MAX_BARS)
    figure = Figure(figsize=(14, max(8.0, 0.13 * bars + 1)), layout="constrained")
    panels = figure.subplot_mosaic(
        [["classes", "sizes", "centers"], ["classes", "aspects", "aspects"]], width_ratios=(1.0, 1.0, 1.1)
    )
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    centers, sizes = (low + high) / 2, high - low
    _draw_classes(panels["classes"], class_names, np.bincount(labels, minlength=len(class_names)))
    _draw_sizes(panels["sizes"], sizes, input_size, {"anchor": anchors})
    _draw_aspects(panels["aspects"], sizes)
    _draw_centers(panels["centers"], centers, input_size)
    save_figure(figure, path)
    return figure


def plot_anchors(
    path: Path,
    sizes: np.ndarray,
    input_size: tuple[int, int],
    anchors: Mapping[str, Sequence[tuple[float, float]]],
) -> Figure:
    """Write a chart of the sizes of boxes and of sets of anchors to a file.

    `sizes` (N, 2) has width and height of the boxes; `anchors` has sets of anchors by name.
    """
    figure = Figure(figsize=(8, 8), layout="constrained")
    _draw_sizes(figure.subplots(), sizes, input_size, anchors)
    save_figure(figure, path)
    return figure


def _draw_classes(axes: Axes, class_names: Sequence[str], counts: np.ndarray) -> None:
    """Draw a bar per class, the most frequent on top."""
    order = np.argsort(-counts, kind="stable")[:_MAX_BARS]
    names = [shorten(class_names[label]) for label in order]
    size = float(np.clip(330 / max(len(order), 1), 6, 11))  # points, so that the lines do not touch
    places = np.arange(len(order))
    palette = class_colors(tuple(class_names))
    colors = [tuple(part / 255 for part in palette[label]) for label in order]
    bars = axes.barh(places, counts[order], color=colors, height=min(0.8, 0.25 + 0.05 * len(order)))
    axes.bar_label(bars, [f"{count:,}" for count in counts[order]], padding=3, fontsize=size)
    axes.set_yticks(places, names, fontsize=size, family=families(), parse_math=False)
    axes.set_ylim(max(len(order), 1) - 0.4, -0.6)
    axes.set_xlim(0, counts.max(initial=1) * 1.17)  # room for the numbers
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    classes = f"{len(class_names)} class{'es' if len(class_names) != 1 else ''}"
    shown = f", the {len(order)} most frequent" if len(order) < len(class_names) else ""
    axes.set_title(f"{counts.sum():,} objects of {classes}{shown}", fontsize=12)


def _draw_sizes(
    axes: Axes,
    sizes: np.ndarray,
    input_size: tuple[int, int],
    anchors: Mapping[str, Sequence[tuple[float, float]]],
) -> None:
    """Draw a histogram of width and height of the boxes, and the anchors."""
    sides = [side for shapes in anchors.values() for anchor in shapes for side in anchor]
    longest = float(max(*input_size, *sides))
    edges = np.geomspace(2, longest * 1.1, 49)
    inside = sizes.clip(edges[0], edges[-1])
    if len(sizes):
        axes.hist2d(inside[:, 0], inside[:, 1], bins=(edges, edges), cmin=1, cmap="viridis", norm=LogNorm())
    else:
        write_empty(axes, "no objects")
    for (label, shapes), style in zip(anchors.items(), _ANCHOR_STYLES, strict=False):
        axes.plot(*np.array(shapes).T, linestyle="none", label=label, **style)
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
    axes.set_title("Aspect ratios of the boxes", fontsize=12)
    if not len(sizes):
        write_empty(axes, "no objects")


def _draw_centers(axes: Axes, centers: np.ndarray, input_size: tuple[int, int]) -> None:
    """Draw a histogram of the centers, relative to the letterboxed image."""
    shares = (centers / np.array(input_size[::-1])).clip(0, 1)
    counts, _, _ = np.histogram2d(shares[:, 1], shares[:, 0], bins=32, range=((0, 1), (0, 1)))
    scale = PowerNorm(0.5, 0, max(counts.max(), 1))  # all centers can be in the middle
    image = axes.imshow(counts, extent=(0, 1, 1, 0), cmap="viridis", norm=scale)
    axes.set_box_aspect(input_size[0] / input_size[1])
    axes.set_aspect("auto")
    axes.set(xlabel="share of the width", ylabel="share of the height")
    axes.set_title("Centers, in the letterboxed image", fontsize=12)
    place = axes.inset_axes((1.03, 0, 0.05, 1))  # as high as the panel
    axes.figure.colorbar(image, cax=place, ticks=MaxNLocator(5, integer=True))
    if not len(centers):
        write_empty(axes, "no objects")
