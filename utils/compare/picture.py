"""The picture of a comparison: every run as a dot, every block as a mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from utils.cli.files import atomic_write
from utils.compare.results import Row


def draw_comparison(rows: Sequence[Row], path: Path) -> None:
    """Draw mAP50 of each run by block; the band is the first block's mean, plus and minus a deviation."""
    shown = [row for row in rows if row.map50 is not None and row.points]
    if not shown:
        return
    figure = Figure(figsize=(max(5.0, 1.6 + 1.1 * len(shown)), 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, row in enumerate(shown):
        assert row.map50 is not None
        assert row.points is not None
        axes.scatter([place] * len(row.points), list(row.points.values()), color="tab:blue", s=22, zorder=3)
        axes.hlines(row.map50.mean, place - 0.25, place + 0.25, color="black", linewidth=2, zorder=2)
    first = shown[0].map50
    assert first is not None
    if first.std is not None:
        axes.axhspan(first.mean - first.std, first.mean + first.std, color="0.9", zorder=0)
    axes.axhline(first.mean, color="0.6", linewidth=1, zorder=1)
    axes.set_xticks(range(len(shown)), [row.label.replace(" ", "\n") for row in shown], fontsize=9)
    axes.set_ylabel("mAP50")
    axes.set_title(f"A dot is a run, a bar the mean; gray: {shown[0].label} ± one deviation", fontsize=10)
    axes.margins(x=0.1, y=0.15)
    with atomic_write(path) as file:
        figure.savefig(file, dpi=150, format="png")
