"""Saving and labeling of figures, with fonts for all alphabets."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from utils.cli.files import atomic_write

_LONGEST_NAME = 24
# The bundled font has no Chinese, Japanese and Korean letters; most machines have one of these.
_WIDER_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Microsoft YaHei", "PingFang SC", "Arial Unicode MS")


def save_figure(figure: Figure, path: Path, dpi: int = 120) -> None:
    """Write a figure as a PNG; a UserError tells that the file cannot be written."""
    FigureCanvasAgg(figure)
    data = BytesIO()  # Pillow does not notice that a disk is full
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+")  # a missing letter is drawn as a box
        figure.savefig(data, dpi=dpi, format="png")
    with atomic_write(path) as file:
        file.write(data.getbuffer())


def write_empty(axes: Axes, text: str) -> None:
    """Write a text into a panel without data."""
    field = {"facecolor": "white", "edgecolor": "none"}
    axes.text(0.5, 0.15, text, transform=axes.transAxes, ha="center", va="center", fontsize=13, bbox=field)


def shorten(name: str) -> str:
    """Return a class name as one line of at most 24 letters."""
    line = "".join(letter if letter.isprintable() else " " for letter in name)
    line = " ".join(line.split())
    return line if len(line) <= _LONGEST_NAME else f"{line[: _LONGEST_NAME - 1]}…"


def families() -> list[str]:
    """Return the fonts to search for letters, in order."""
    present = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in _WIDER_FONTS if name in present)]
