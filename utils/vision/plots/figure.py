"""What every chart needs: a file, fonts for all alphabets, and a word where there is nothing to draw."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from utils.cli.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 120
_LONGEST_NAME = 24
# The bundled font has no letters of China, Japan and Korea; one of these is on most machines.
_WIDER_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Microsoft YaHei", "PingFang SC", "Arial Unicode MS")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, with its size in inches; matplotlib is imported only to draw."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with atomic_write(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+")  # shown as a box; no reason to fill the console
        figure.savefig(file, dpi=_DPI, format="png")


def say_empty(axes: Axes, text: str) -> None:
    """Write a word into a panel without data."""
    field = {"facecolor": "white", "edgecolor": "none"}
    axes.text(0.5, 0.15, text, transform=axes.transAxes, ha="center", va="center", fontsize=13, bbox=field)


def shorten(name: str) -> str:
    """Return a class name as one line of at most 24 letters."""
    line = "".join(letter if letter.isprintable() else " " for letter in name)
    line = " ".join(line.split())
    return line if len(line) <= _LONGEST_NAME else f"{line[: _LONGEST_NAME - 1]}…"


def families() -> list[str]:
    """Return the fonts to look for letters in, in order."""
    from matplotlib import font_manager

    present = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in _WIDER_FONTS if name in present)]
