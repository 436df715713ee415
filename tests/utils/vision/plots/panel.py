from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def panel(figure: Figure, title: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_title().startswith(title))
