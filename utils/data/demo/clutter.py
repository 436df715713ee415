"""Things of no class that stand between and before the demo's objects, some of which nearly look like one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from utils.data.demo.canvas import Colour, Part
from utils.data.demo.shapes import (
    DARK,
    PAINTS,
    WHITE,
    box,
    darker,
    ellipse,
    lighter,
    mix,
    pick,
    polygon,
    smooth,
    spot,
)

_LEAVES: tuple[Colour, ...] = ((66, 120, 58), (96, 140, 60), (44, 92, 66), (190, 120, 44), (140, 150, 70))
_GREY: Colour = (96, 98, 106)


def tree(rng: np.random.Generator) -> list[Part]:
    """Draw a fir or a broad-leaved tree."""
    leaf, high = pick(rng, _LEAVES), rng.uniform(4, 8)
    foot = [
        spot(0, 0, high * 0.35, 0.4, DARK, 0.55),
        box(-0.25, 0, 0.25, high * 0.6, (104, 76, 54), (74, 52, 38)),
    ]
    if rng.random() < 0.4:
        tiers = [
            [(-high * half, high * low), (0, high * (low + 0.42)), (high * half, high * low)]
            for half, low in ((0.3, 0.16), (0.24, 0.38), (0.17, 0.6))
        ]
        return [*foot, *(polygon(tier, lighter(leaf, 0.1), darker(leaf, 0.3)) for tier in tiers)]
    puffs = [
        (rng.normal(0, 0.16) * high, high * rng.uniform(0.55, 0.85), high * rng.uniform(0.17, 0.27))
        for _ in range(5)
    ]
    return [
        *foot,
        *(ellipse(x, y, r, r * 0.9, darker(leaf, 0.15), darker(leaf, 0.4)) for x, y, r in puffs),
        *(
            ellipse(x - r * 0.15, y + r * 0.2, r * 0.75, r * 0.6, lighter(leaf, 0.18), leaf)
            for x, y, r in puffs
        ),
    ]


def cloud(rng: np.random.Generator, colour: Colour) -> list[Part]:
    """Draw a cloud some six metres wide: overlapping soft puffs."""
    puffs = [(rng.normal(0, 1.6), rng.uniform(0, 0.9), rng.uniform(0.9, 1.7)) for _ in range(6)]
    return [
        *(spot(x, y - 0.35, r * 1.6, r * 0.8, darker(colour, 0.16), 0.6) for x, y, r in puffs[:3]),
        *(spot(x, y, r * 1.4, r * 0.85, colour, 0.8) for x, y, r in puffs),
    ]


def draw_clutter(rng: np.random.Generator, place: str) -> list[Part]:
    """Draw one thing of no class that suits a place: the kind of a scene, or "water", or "sky"."""
    choices = _CHOICES.get(place, _ANYWHERE)
    return choices[int(rng.integers(len(choices)))](rng)


def _bush(rng: np.random.Generator) -> list[Part]:
    leaf = pick(rng, _LEAVES)
    return [
        ellipse(x, 0.5, rng.uniform(0.6, 1.1), rng.uniform(0.5, 1.1), lighter(leaf, 0.12), darker(leaf, 0.4))
        for x in np.linspace(-1.2, 1.2, int(rng.integers(3, 6)))
    ]


def _lamp(rng: np.random.Generator) -> list[Part]:
    return [
        box(-0.1, 0, 0.1, 5.6, lighter(_GREY, 0.2), _GREY),
        box(0, 5.4, 1.3, 5.6, _GREY),
        ellipse(1.2, 5.3, 0.4, 0.24, (255, 240, 190), glow=True),
    ]


def _sign(rng: np.random.Generator) -> list[Part]:
    paint = pick(rng, PAINTS)
    disc = ellipse(0, 3.2, 0.7, 0.7, paint, darker(paint, 0.2))
    plate = box(-1.1, 2.4, 1.1, 3.8, paint, darker(paint, 0.2))
    pole = box(-0.09, 0, 0.09, 3.0, lighter(_GREY, 0.2), _GREY)
    return [pole, disc if rng.random() < 0.5 else plate, ellipse(0, 3.2, 0.4, 0.4, WHITE)]


def _fence(rng: np.random.Generator) -> list[Part]:
    wood, count = mix((236, 232, 222), (130, 92, 60), float(rng.integers(2))), int(rng.integers(6, 16))
    half, rail = count * 0.25, darker(wood, 0.2)
    slat = np.array([(0, 0), (0, 1.0), (0.13, 1.18), (0.26, 1.0), (0.26, 0)])
    return [
        box(-half, 0.3, half, 0.44, rail),
        box(-half, 0.76, half, 0.9, rail),
        *(Part(slat + np.array([i * 0.5 - half, 0]), wood, darker(wood, 0.25)) for i in range(count)),
    ]


def _rock(rng: np.random.Generator) -> list[Part]:
    grey = mix((150, 146, 142), (110, 92, 80), rng.uniform(0, 1))
    left, top, right = (
        (-1.1, rng.uniform(0.4, 0.9)),
        (-0.3, rng.uniform(0.8, 1.4)),
        (0.6, rng.uniform(0.7, 1.2)),
    )
    return [
        polygon([(-1.3, 0), left, top, right, (1.3, 0)], lighter(grey, 0.25), darker(grey, 0.35)),
        polygon([left, top, (-0.1, 0.4)], lighter(grey, 0.4), grey),
    ]


def _tent(rng: np.random.Generator) -> list[Part]:
    paint = pick(rng, PAINTS)
    return [
        polygon([(-2.2, 0), (0, 2.8), (2.2, 0)], lighter(paint, 0.2), darker(paint, 0.2)),
        polygon([(-0.6, 0), (0, 1.9), (0.6, 0)], (50, 44, 46)),
    ]


def _haystack(rng: np.random.Generator) -> list[Part]:
    return [
        smooth([(-1.8, 0), (-1.6, 1.4), (0, 2.8), (1.6, 1.4), (1.8, 0)], (222, 190, 100), (160, 124, 56)),
        box(-1.5, 1.0, 1.5, 1.12, (150, 112, 52)),
    ]


def _container(rng: np.random.Generator) -> list[Part]:
    paint = pick(rng, PAINTS)
    return [
        box(-2.6, 0, 2.6, 2.5, lighter(paint, 0.15), darker(paint, 0.25)),
        *(box(x, 0.15, x + 0.12, 2.35, darker(paint, 0.3)) for x in np.linspace(-2.3, 2.2, 10)),
    ]


def _billboard(rng: np.random.Generator) -> list[Part]:
    paint = pick(rng, PAINTS)
    return [
        *(box(x - 0.1, 0, x + 0.1, 3, (90, 84, 80)) for x in (-1.7, 1.7)),
        box(-2.6, 1.4, 2.6, 3.6, lighter(paint, 0.6), lighter(paint, 0.3)),
        ellipse(-1.2, 2.5, 0.7, 0.7, paint),
        box(-0.1, 2.3, 2.0, 2.7, darker(paint, 0.3)),
    ]


def _buoy(rng: np.random.Generator) -> list[Part]:
    paint = pick(rng, PAINTS[:5])
    return [
        spot(0, 0, 1.0, 0.25, DARK, 0.5),
        polygon([(-0.6, 0), (-0.25, 1.6), (0.25, 1.6), (0.6, 0)], lighter(paint, 0.2), darker(paint, 0.2)),
        box(-0.5, 0.5, 0.5, 0.85, WHITE),
        ellipse(0, 1.75, 0.22, 0.22, (250, 230, 150)),
    ]


def _kite(rng: np.random.Generator) -> list[Part]:
    first, second = pick(rng, PAINTS), pick(rng, PAINTS)
    bow = np.array([(-0.1, -1.5), (0.15, -1.4), (-0.05, -1.7)])
    return [
        polygon([(0, 1.2), (-0.8, 0.2), (0, -1.3)], first),
        polygon([(0, 1.2), (0.8, 0.2), (0, -1.3)], second),
        *(Part(bow - (0.2 * i, 0.4 * i), second, second) for i in range(4)),
    ]


def _paper_plane(rng: np.random.Generator) -> list[Part]:
    return [
        polygon([(-1, 0.5), (1.1, 0), (-0.5, -0.1)], (244, 244, 246), (210, 214, 222)),
        polygon([(-0.5, -0.1), (1.1, 0), (-0.6, -0.5)], (180, 186, 198)),
    ]


_ANYWHERE: tuple[Callable[[np.random.Generator], list[Part]], ...] = (
    *(tree, tree, tree, _bush, _fence, _rock, _tent, _haystack, _lamp, _sign),
)
_CHOICES: dict[str, tuple[Callable[[np.random.Generator], list[Part]], ...]] = {
    "sky": (_kite, _paper_plane),
    "water": (_buoy, _buoy, _rock),
    "town": (tree, tree, _lamp, _sign, _bush, _container, _billboard, _fence),
    "desert": (_rock, _rock, _bush, _tent, _haystack, _container, _billboard),
    "texture": (
        tree,
        _lamp,
        _sign,
        _rock,
        _tent,
        _haystack,
        _container,
        _billboard,
        _kite,
        _paper_plane,
        _buoy,
    ),
}
