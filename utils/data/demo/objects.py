"""The classes of the demo: each function draws one individual, in metres, colours and build by lot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from utils.data.demo.canvas import Colour, Part
from utils.data.demo.shapes import (
    DARK,
    PAINTS,
    WARM,
    WHITE,
    WOOD,
    box,
    darker,
    ellipse,
    lighter,
    pick,
    polygon,
    smooth,
    spot,
)
from utils.data.demo.vehicles import car, truck

_WALLS: tuple[Colour, ...] = (
    (238, 226, 200), (224, 196, 150), (206, 120, 90), (190, 204, 210), (236, 236, 232), (170, 98, 78),
    (216, 176, 96), (160, 180, 150), (196, 150, 160),
)  # fmt: skip
_ROOFS: tuple[Colour, ...] = (
    (150, 60, 44), (112, 62, 50), (78, 84, 96), (170, 92, 56), (66, 88, 80), (96, 74, 98),
)  # fmt: skip
_COATS: tuple[Colour, ...] = (
    (46, 46, 54), (60, 52, 48), (238, 238, 236), (150, 150, 156), (170, 60, 46), (60, 100, 160),
    (120, 90, 64),
)  # fmt: skip
_CABINS: tuple[Colour, ...] = ((244, 242, 236), (230, 214, 180), (200, 214, 222), (214, 90, 70))
_BEAK: Colour = (240, 168, 46)
_STOREY = 2.7


def house(rng: np.random.Generator, night: bool) -> list[Part]:
    """Draw a house of one or two floors, seen from the gable or from the eaves."""
    wall, roof, door = pick(rng, _WALLS), pick(rng, _ROOFS), pick(rng, PAINTS)
    half, floors, gable = rng.uniform(2.4, 4.6), int(rng.integers(1, 3)), rng.random() < 0.5
    eaves = _STOREY * floors
    ridge = eaves + (half * rng.uniform(0.6, 1.0) if gable else rng.uniform(1.5, 2.4))
    chimney, entry = rng.choice([-1, 1]) * half * rng.uniform(0.35, 0.55), rng.uniform(-0.35, 0.35) * half
    columns = np.linspace(-half + 1.1, half - 1.1, max(2, round(half)))
    places = [(x, floor * _STOREY + 0.95) for floor in range(floors) for x in columns]
    windows = [(x, y) for x, y in places if y > _STOREY or abs(x - entry) > 1.15]
    return [
        spot(0, 0.02, half * 1.25, half * 0.16, DARK, 0.6),
        box(chimney - 0.4, eaves, chimney + 0.4, ridge + 0.5, (150, 82, 66), (112, 60, 50)),
        *(_gable if gable else _long_side)(rng, half, eaves, ridge, wall, roof),
        *(_window(0, eaves + 0.1, 0.9, 0.9, night and rng.random() < 0.6) if gable else []),
        *(part for x, y in windows for part in _window(x, y, 0.85, 1.15, night and rng.random() < 0.6)),
        box(entry - 0.6, 0, entry + 0.6, 2.15, WHITE),
        box(entry - 0.48, 0, entry + 0.48, 2.05, door, darker(door, 0.3)),
        ellipse(entry + 0.3, 1.0, 0.08, 0.08, (240, 210, 120)),
    ]


def _gable(
    rng: np.random.Generator, half: float, eaves: float, ridge: float, wall: Colour, roof: Colour
) -> list[Part]:
    front = [(-half, 0), (-half, eaves), (0, ridge), (half, eaves), (half, 0)]
    slope = [(half + 0.5, eaves - 0.5), (0, ridge), (0, ridge + 0.55), (half + 0.6, eaves)]
    return [
        polygon(front, lighter(wall, 0.15), darker(wall, 0.15)),
        polygon([(-x, y) for x, y in slope], roof, darker(roof, 0.15)),
        polygon(slope, darker(roof, 0.2), darker(roof, 0.35)),
    ]


def _long_side(
    rng: np.random.Generator, half: float, eaves: float, ridge: float, wall: Colour, roof: Colour
) -> list[Part]:
    lean, high = rng.uniform(0.1, 1.2), ridge - eaves
    slope = [
        (-half - 0.4, eaves - 0.1),
        (-half + lean, ridge),
        (half - lean, ridge),
        (half + 0.4, eaves - 0.1),
    ]
    rows = [(half - lean * share, eaves + high * share) for share in (0.25, 0.5, 0.75)]
    return [
        box(-half, 0, half, eaves, lighter(wall, 0.15), darker(wall, 0.15)),
        box(-half, eaves - 0.35, half, eaves, darker(wall, 0.35)),
        polygon(slope, lighter(roof, 0.15), darker(roof, 0.15)),
        *(box(-x, y, x, y + 0.07, darker(roof, 0.3)) for x, y in rows),
    ]


def _window(x: float, y: float, wide: float, high: float, lit: bool) -> list[Part]:
    pane: Colour = WARM if lit else (92, 126, 152)
    half = wide / 2
    return [
        box(x - half - 0.1, y - 0.1, x + half + 0.1, y + high + 0.1, WHITE),
        box(x - half, y, x + half, y + high, lighter(pane, 0.3), pane, glow=lit),
        box(x - 0.04, y, x + 0.04, y + high, WHITE),
        box(x - half, y + high / 2 - 0.04, x + half, y + high / 2 + 0.04, WHITE),
    ]


def boat(rng: np.random.Generator, night: bool) -> list[Part]:
    """Draw a boat: under sail, with an engine and a cabin, or with a rower."""
    kind, half = rng.random(), rng.uniform(1.9, 2.8)
    if kind < 0.5:
        return [*_sails(rng, half), *_hull(rng, half, 0.8)]
    if kind < 0.82:
        return [*_cabin(rng, half, night), *_hull(rng, half, 0.85)]
    coat = pick(rng, PAINTS)
    return [
        smooth([(-0.5, 0.3), (-0.4, 1.2), (0.2, 1.2), (0.3, 0.3)], coat, darker(coat, 0.3)),
        ellipse(-0.08, 1.4, 0.22, 0.26, (226, 178, 144), (190, 140, 108)),
        polygon([(0.1, 0.95), (1.4, 0.1), (1.5, 0.2), (0.15, 1.08)], WOOD),
        *_hull(rng, half * 0.8, 0.6),
    ]


def _sails(rng: np.random.Generator, half: float) -> list[Part]:
    cloths = (*PAINTS, WHITE, WHITE, WHITE, WHITE, WHITE)
    mast, boom = rng.uniform(4.6, 6.6), half * rng.uniform(0.75, 0.95)
    main, jib = pick(rng, cloths), pick(rng, cloths)
    behind = [(-0.12, 1.15), *[(-0.12, mast)] * 2, (-boom * 0.6, mast * 0.45), *[(-boom, 1.05)] * 2]
    ahead = [(0.14, 1.15), *[(0.14, mast * 0.9)] * 2, (half * 0.62, mast * 0.36), *[(half * 0.95, 1.05)] * 2]
    return [
        box(-0.07, 0.5, 0.07, mast, WOOD),
        smooth(behind, lighter(main, 0.3), darker(main, 0.12)),
        *([smooth(ahead, lighter(jib, 0.25), darker(jib, 0.15))] if rng.random() < 0.8 else []),
        box(-boom, 0.98, 0, 1.1, WOOD),
        polygon([(0, mast), (0, mast + 0.35), (-0.6, mast + 0.18)], pick(rng, PAINTS)),
    ]


def _cabin(rng: np.random.Generator, half: float, night: bool) -> list[Part]:
    paint, top = pick(rng, _CABINS), rng.uniform(1.8, 2.6)
    left, right = -half * rng.uniform(0.5, 0.75), half * rng.uniform(0.2, 0.45)
    pane: Colour = WARM if night else (84, 120, 150)
    funnel = [
        box(left + 0.3, top, left + 0.75, top + 0.8, pick(rng, PAINTS)),
        box(left + 0.3, top + 0.5, left + 0.75, top + 0.65, WHITE),
    ]
    walls = [(left, 0.6), (left, top), (right - 0.1, top), (right + 0.25, 0.6)]
    return [
        *(funnel if rng.random() < 0.5 else []),
        box(right - 0.3, top, right - 0.2, top + 0.9, (90, 90, 96)),
        polygon(walls, lighter(paint, 0.4), darker(paint, 0.12)),
        *(
            box(x, top - 0.62, x + 0.36, top - 0.26, pane, glow=night)
            for x in np.arange(left + 0.2, right - 0.35, 0.55)
        ),
        box(left - 0.12, top - 0.02, right + 0.05, top + 0.12, darker(paint, 0.3)),
    ]


def _hull(rng: np.random.Generator, half: float, high: float) -> list[Part]:
    paint, stripe = pick(rng, PAINTS), pick(rng, PAINTS)
    side = [(-half, high), (-half * 0.86, 0.0), (half * 0.66, 0.0), (half * 1.05, high * 1.18)]
    low = [(-half * 0.9, high * 0.28), (-half * 0.86, -0.05), (half * 0.66, -0.05), (half * 0.79, high * 0.3)]
    rail = [(-half, high), (-half, high * 0.82), (half * 0.98, high * 0.96), (half * 1.05, high * 1.18)]
    return [
        spot(0, -0.1, half * 1.15, half * 0.16, (14, 30, 50), 0.55),
        polygon(side, lighter(paint, 0.25), darker(paint, 0.3)),
        polygon(low, stripe, darker(stripe, 0.3)),
        polygon(rail, lighter(paint, 0.6)),
        spot(-half * 0.2, -0.04, half, 0.14, (236, 244, 248), 0.6),
    ]


def balloon(rng: np.random.Generator, night: bool) -> list[Part]:
    """Draw a hot-air balloon and its basket, the envelope in gores of two or three colours."""
    colours = [pick(rng, PAINTS) for _ in range(int(rng.integers(2, 4)))]
    turn = np.arange(-12, 36) * np.pi / 24
    low = np.minimum(np.sin(turn), 0.0)  # the lower half is longer and runs together to the mouth
    high = 8.6 + rng.uniform(0, 1.2)
    outline = np.stack(
        [5.2 * np.cos(turn) * (1 - 0.42 * low**2), high + 5.4 * (np.sin(turn) + 0.12 * low)], axis=1
    )
    gores = np.linspace(1, 0.14, int(rng.integers(4, 8)))
    shades = [(share, colours[i % len(colours)]) for i, share in enumerate(gores)]
    belt = pick(rng, PAINTS)
    band = outline[(outline[:, 1] > high - 1.6) & (outline[:, 1] < high + 0.6)]
    mouth = float(outline[:, 1].min())
    base = mouth - rng.uniform(1.0, 1.4)
    rope = [(1.2, mouth + 0.35), (1.32, mouth + 0.35), (0.76, base - 0.1), (0.64, base - 0.1)]
    lit = night or rng.random() < 0.25
    return [
        polygon(rope, (88, 72, 58)),
        polygon([(-x, y) for x, y in rope], (88, 72, 58)),
        *([ellipse(0, mouth - 0.1, 0.3, 0.6, (255, 240, 170), (255, 150, 50), glow=True)] if lit else []),
        *(
            Part(outline * (share, 1.0), lighter(colour, 0.18), darker(colour, 0.2))
            for share, colour in shades
        ),
        *([Part(band, belt, darker(belt, 0.2))] if rng.random() < 0.45 else []),
        spot(-1.9, high + 2.0, 2.6, 3.0, (255, 255, 255), 0.42),
        *([spot(0, high - 1.0, 5.2, 6.2, (255, 190, 100), 0.7, glow=True)] if night else []),
        polygon(
            [(-0.9, base), (0.9, base), (0.75, base - 1.3), (-0.75, base - 1.3)],
            (168, 112, 62),
            (112, 70, 40),
        ),
        box(-0.95, base - 0.2, 0.95, base + 0.05, (96, 60, 36)),
    ]


def bird(rng: np.random.Generator, night: bool) -> list[Part]:
    """Draw a bird two units long on the wing: gliding, seen from ahead, or flapping, seen from the side."""
    coat = pick(rng, _COATS)
    coat = lighter(coat, 0.4) if night else coat
    belly = lighter(coat, rng.uniform(0.1, 0.7))
    if rng.random() < 0.35:
        lift, droop, deep = rng.uniform(0.25, 0.6), rng.uniform(-0.25, 0.2), rng.uniform(0.16, 0.26)
        fore, tip = [(0, 0.08), (0.45, lift), (0.8, lift * 0.9)], (1.5, droop)
        wing = [*fore, tip, tip, (0.85, lift * 0.9 - deep), (0.45, lift - deep * 1.2), (0, -0.16)]
        return [
            smooth(wing, coat, darker(coat, 0.3)),
            smooth([(-x, y) for x, y in wing], lighter(coat, 0.1), darker(coat, 0.2)),
            ellipse(0, -0.02, 0.2, 0.2, coat, belly),
            ellipse(0.03, -0.02, 0.06, 0.05, _BEAK),
        ]
    rise, sweep = rng.choice([-1, 1]) * rng.uniform(0.6, 1.05), rng.uniform(-0.5, 0.1)
    tip = (-0.25 + sweep, rise)
    near = [(-0.3, 0.1), (-0.35 + sweep, rise * 0.7), tip, tip, (0.1, rise * 0.6), (0.42, 0.05)]
    tail = [(-0.5, 0.08), (-1.1, 0.2), (-1.02, 0.02), (-1.12, -0.14), (-0.5, -0.1)]
    body = [(-0.9, 0.02), (-0.4, 0.25), (0.4, 0.26), (0.75, 0.12), (0.5, -0.2), (-0.4, -0.24)]
    return [
        smooth([(x + 0.25, y * 0.86) for x, y in near], darker(coat, 0.4), darker(coat, 0.25)),
        polygon(tail, darker(coat, 0.15)),
        smooth(body, coat, belly),
        ellipse(0.66, 0.18, 0.22, 0.2, lighter(coat, 0.08), coat),
        polygon([(0.82, 0.24), (1.16, 0.12), (0.82, 0.08)], _BEAK, darker(_BEAK, 0.2)),
        ellipse(0.73, 0.22, 0.045, 0.045, DARK if sum(coat) > 240 else WHITE),
        smooth(near, lighter(coat, 0.15), darker(coat, 0.2)),
    ]


OBJECTS: dict[str, Callable[[np.random.Generator, bool], list[Part]]] = {
    "balloon": balloon,
    "bird": bird,
    "boat": boat,
    "car": car,
    "house": house,
    "truck": truck,
}
