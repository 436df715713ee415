"""Cars and trucks for the demo: each function draws one individual, in metres, colours and build by lot."""

from __future__ import annotations

import numpy as np

from utils.data.demo.canvas import Colour, Part
from utils.data.demo.shapes import (
    DARK,
    PAINTS,
    WARM,
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

_RUBBER: Colour = (34, 35, 40)
_GLASS: Colour = (134, 176, 202)
_TINTED: Colour = (40, 56, 76)
_HEADLAMP: Colour = (255, 244, 206)
_TAIL_LAMP: Colour = (206, 34, 30)
_PLASTIC: Colour = (44, 46, 52)


def car(rng: np.random.Generator, night: bool) -> list[Part]:
    """Draw a car: saloon, hatchback or estate from the side, or any from the front or from behind."""
    return _car_side(rng, night) if rng.random() < 0.75 else _car_end(rng, night)


def truck(rng: np.random.Generator, night: bool) -> list[Part]:
    """Draw a truck from the side: a cab, and a box, a tank or a load of logs behind it."""
    paint, glass = pick(rng, PAINTS), mix(_GLASS, _TINTED, rng.uniform(0, 0.8))
    front, back, top = rng.uniform(2.6, 3.1), -rng.uniform(2.2, 3.7), rng.uniform(1.95, 2.5)
    cab, wheel, nose = front - rng.uniform(1.5, 1.8), rng.uniform(0.42, 0.5), front - rng.uniform(0.1, 0.5)
    outline = [
        *((cab, 0.5), (cab, top - 0.1), (cab + 0.15, top), (nose - 0.1, top)),
        *((nose, top - 0.1), (front, 1.3), (front + 0.05, 0.6), (front, 0.45)),
    ]
    pane = [(cab + 0.35, 1.35), (cab + 0.35, top - 0.22), (nose - 0.14, top - 0.22), (front - 0.14, 1.35)]
    return [
        _shadow((front - back) * 0.56),
        box(back, 0.5, front - 0.2, 0.75, (52, 54, 60)),
        *_load(rng, back, cab - 0.08),
        smooth(outline, lighter(paint, 0.25), darker(paint, 0.3)),
        polygon(pane, lighter(glass, 0.4), glass),
        box(cab + 0.28, 0.6, cab + 0.31, top - 0.15, darker(paint, 0.4)),
        box(cab + 0.1, 0.42, front, 0.58, _PLASTIC),
        ellipse(front - 0.06, 0.82, 0.12, 0.14, _HEADLAMP, glow=night),
        *_wheel(front - 0.75, wheel),
        *_wheel(back + 0.75, wheel),
        *(_wheel(back + 0.75 + wheel * 2.3, wheel) if back < -3 else []),
        *_beam(front + 0.1, 0.82, 0.9, night),
    ]


def _car_side(rng: np.random.Generator, night: bool) -> list[Part]:
    paint, glass = pick(rng, PAINTS), mix(_GLASS, _TINTED, rng.uniform(0, 0.8))
    half, waist, roof = rng.uniform(1.9, 2.25), rng.uniform(0.82, 0.98), rng.uniform(1.36, 1.7)
    back = rng.uniform(-1.95, -1.2)  # where the cabin ends: from an estate to a saloon with a boot
    hood, front, rear = rng.uniform(0.9, 1.25), rng.uniform(0.25, 0.6), back + rng.uniform(0.12, 0.5)
    cabin = [(back, waist - 0.1), (rear, roof), (rear, roof), (front, roof), (hood, waist - 0.1)]
    panes = [
        (back + 0.22, waist),
        (rear + 0.1, roof - 0.12),
        (front - 0.05, roof - 0.12),
        (hood - 0.22, waist),
    ]
    body = [
        *(
            (-half, 0.24),
            (-half, 0.32),
            (-half, waist - 0.06),
            (-half + 0.25, waist + 0.02),
            (hood, waist + 0.02),
        ),
        *((half - 0.25, waist - 0.12), (half, waist - 0.3), (half + 0.03, 0.32), (half, 0.24)),
    ]
    pillar, wheel, axle = (rear + front) / 2, rng.uniform(0.31, 0.38), half * 0.63
    return [
        _shadow(half * 1.15),
        smooth(cabin, lighter(paint, 0.15), paint),
        polygon(panes, lighter(glass, 0.35), glass),
        box(pillar - 0.05, waist, pillar + 0.06, roof - 0.1, darker(paint, 0.2)),
        smooth(body, lighter(paint, 0.28), darker(paint, 0.35)),
        box(-half + 0.2, waist * 0.7, half - 0.3, waist * 0.7 + 0.04, lighter(paint, 0.3)),
        box(-half + 0.1, 0.24, half - 0.1, 0.36, _PLASTIC),
        box(pillar, 0.36, pillar + 0.025, waist, darker(paint, 0.45)),
        box(pillar - 0.3, waist - 0.16, pillar - 0.1, waist - 0.11, darker(paint, 0.5)),
        ellipse(half - 0.12, waist - 0.28, 0.13, 0.09, _HEADLAMP, glow=night),
        ellipse(-half + 0.1, waist - 0.2, 0.08, 0.12, _TAIL_LAMP, glow=night),
        *_wheel(-axle, wheel),
        *_wheel(axle, wheel),
        *_beam(half + 0.1, waist - 0.28, 0.7, night),
    ]


def _car_end(rng: np.random.Generator, night: bool) -> list[Part]:
    """Return a car seen from the front or from behind."""
    paint, glass = pick(rng, PAINTS), mix(_GLASS, _TINTED, rng.uniform(0, 0.8))
    half, roof, front = rng.uniform(0.86, 0.98), rng.uniform(1.36, 1.65), rng.random() < 0.5
    lamp = _HEADLAMP if front else _TAIL_LAMP
    cabin = [(-half + 0.06, 0.8), (-half + 0.22, roof), (half - 0.22, roof), (half - 0.06, 0.8)]
    pane = [
        (-half + 0.16, 0.88),
        (-half + 0.34, roof - 0.12),
        (half - 0.34, roof - 0.12),
        (half - 0.16, 0.88),
    ]
    body = [(-half, 0.2), (-half, 0.92), (-half + 0.1, 0.96), (half - 0.1, 0.96), (half, 0.92), (half, 0.2)]
    grille = box(-0.36, 0.46, 0.36, 0.6, _PLASTIC) if front else box(-0.26, 0.5, 0.26, 0.62, (232, 230, 216))
    return [
        _shadow(half * 1.3),
        *(box(x - 0.13, 0.0, x + 0.13, 0.5, _RUBBER) for x in (-half + 0.17, half - 0.17)),
        smooth(cabin, lighter(paint, 0.2), paint),
        polygon(pane, lighter(glass, 0.4), glass),
        *(ellipse(x, 0.95, 0.1, 0.08, darker(paint, 0.2)) for x in (-half - 0.06, half + 0.06)),
        smooth(body, lighter(paint, 0.25), darker(paint, 0.35)),
        box(-half + 0.06, 0.22, half - 0.06, 0.36, _PLASTIC),
        *(ellipse(x, 0.66, 0.17, 0.1, lamp, glow=night) for x in (-half + 0.24, half - 0.24)),
        grille,
        *_beam(-half + 0.24, 0.66, 0.6, night and front),
        *_beam(half - 0.24, 0.66, 0.6, night and front),
    ]


def _load(rng: np.random.Generator, back: float, front: float) -> list[Part]:
    """Return what a truck carries between its back and its cab."""
    paint, kind = pick(rng, PAINTS), rng.random()
    if kind < 0.5:
        top, stripe = rng.uniform(2.5, 3.1), pick(rng, PAINTS)
        return [
            box(back, 0.62, front, top, lighter(paint, 0.25), darker(paint, 0.2)),
            *(
                box(x, 0.7, x + 0.04, top - 0.1, darker(paint, 0.18))
                for x in np.linspace(back + 0.5, front - 0.4, 6)
            ),
            box(back, top * 0.5, front, top * 0.5 + 0.3, stripe),
            box(back, top - 0.1, front, top, darker(paint, 0.4)),
        ]
    if kind < 0.72:
        middle, half = (back + front) / 2, (front - back) / 2
        tank = [(back, 0.8), (back, 2.2), (front, 2.2), (front, 0.8)]
        return [
            ellipse(middle, 2.2, 0.3, 0.12, darker(paint, 0.4)),
            smooth(tank, lighter(paint, 0.6), darker(paint, 0.35)),
            box(middle - half * 0.8, 1.42, middle + half * 0.8, 1.6, darker(paint, 0.3)),
        ]
    places = [(x, y) for y in (1.2, 1.7) for x in np.arange(back + 0.4, front - 0.3, 0.58)]
    return [
        *(ellipse(x, y, 0.3, 0.3, (176, 130, 82), (130, 90, 54)) for x, y in places),
        box(back, 0.62, front, 1.25, lighter(paint, 0.2), darker(paint, 0.3)),
    ]


def _wheel(x: float, radius: float) -> list[Part]:
    return [
        ellipse(x, radius * 1.05, radius * 1.2, radius * 1.2, (28, 28, 32)),
        ellipse(x, radius, radius, radius, _RUBBER),
        ellipse(x, radius, radius * 0.6, radius * 0.6, (206, 208, 212), (128, 130, 136)),
        ellipse(x, radius, radius * 0.2, radius * 0.2, (70, 72, 78)),
    ]


def _shadow(half: float) -> Part:
    return spot(0.0, 0.02, half, max(half * 0.13, 0.25), DARK, 0.6)


def _beam(x: float, y: float, radius: float, night: bool) -> list[Part]:
    """Return the shine of a lamp, at night only."""
    return [spot(x, y, radius, radius, WARM, 0.55, glow=True)] if night else []
