"""Colours, and the few shapes that everything in the demo is put together from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utils.data.demo.canvas import Colour, Part

Points = Sequence[tuple[float, float]]

PAINTS: tuple[Colour, ...] = (
    (200, 40, 42), (232, 118, 36), (240, 190, 48), (62, 142, 76), (34, 128, 138), (46, 98, 178),
    (70, 58, 140), (150, 60, 128), (236, 232, 222), (150, 156, 164), (58, 64, 74), (122, 84, 58),
    (128, 190, 214), (230, 140, 150),
)  # fmt: skip
WARM: Colour = (255, 214, 122)  # light from a window or a lamp
WHITE: Colour = (244, 242, 234)
WOOD: Colour = (120, 82, 50)
DARK: Colour = (10, 12, 24)  # shadows

_CIRCLE = np.stack([np.cos(np.arange(36) * np.pi / 18), np.sin(np.arange(36) * np.pi / 18)], axis=1)


def pick(rng: np.random.Generator, colours: Sequence[Colour], spread: float = 9.0) -> Colour:
    """Return one of the colours, a little off."""
    return as_colour(
        np.clip(np.asarray(colours[int(rng.integers(len(colours)))]) + rng.normal(0, spread, 3), 8, 250)
    )


def as_colour(values: np.ndarray) -> Colour:
    """Return three channel values as a plain tuple."""
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return the colour `share` of the way from the first to the second."""
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


def lighter(colour: Colour, share: float = 0.35) -> Colour:
    """Mix a colour with white."""
    return mix(colour, (255.0, 255.0, 255.0), share)


def darker(colour: Colour, share: float = 0.35) -> Colour:
    """Mix a colour with black."""
    return mix(colour, (0.0, 0.0, 0.0), share)


def polygon(
    points: Points, top: Colour, bottom: Colour | None = None, *, alpha: float = 1.0, glow: bool = False
) -> Part:
    """Return a part with straight edges."""
    return Part(np.asarray(points, np.float64), top, top if bottom is None else bottom, alpha, glow=glow)


def smooth(points: Points, top: Colour, bottom: Colour | None = None) -> Part:
    """Return a part with corners cut round (Chaikin, three times); a point given twice stays sharper."""
    outline = np.asarray(points, np.float64)
    for _ in range(3):
        after = np.roll(outline, -1, axis=0)
        outline = np.stack([outline * 0.75 + after * 0.25, outline * 0.25 + after * 0.75], axis=1).reshape(
            -1, 2
        )
    return Part(outline, top, top if bottom is None else bottom)


def box(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    top: Colour,
    bottom: Colour | None = None,
    *,
    alpha: float = 1.0,
    glow: bool = False,
) -> Part:
    """Return an upright rectangle."""
    return polygon([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], top, bottom, alpha=alpha, glow=glow)


def ellipse(
    x: float,
    y: float,
    across: float,
    up: float,
    top: Colour,
    bottom: Colour | None = None,
    *,
    glow: bool = False,
) -> Part:
    """Return an ellipse from its centre and its two radii."""
    return Part(_CIRCLE * (across, up) + (x, y), top, top if bottom is None else bottom, glow=glow)


def spot(
    x: float, y: float, across: float, up: float, colour: Colour, alpha: float, *, glow: bool = False
) -> Part:
    """Return a soft ellipse: a shadow, a shine, a puff of cloud."""
    return Part(_CIRCLE * (across, up) + (x, y), colour, colour, alpha, soft=True, glow=glow)
