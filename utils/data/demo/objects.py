"""The six classes of the demo: each function draws one individual, in metres, its colours and build drawn by lot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from utils.data.demo.canvas import Colour, Part, box, darker, ellipse, lighter, mix, polygon, smooth

PAINTS: tuple[Colour, ...] = (
    (200, 40, 42), (232, 118, 36), (240, 190, 48), (62, 142, 76), (34, 128, 138), (46, 98, 178), (70, 58, 140),
    (150, 60, 128), (236, 232, 222), (150, 156, 164), (58, 64, 74), (122, 84, 58), (128, 190, 214), (230, 140, 150),
)  # fmt: skip
WALLS: tuple[Colour, ...] = (
    (238, 226, 200), (224, 196, 150), (206, 120, 90), (190, 204, 210), (236, 236, 232), (170, 98, 78), (216, 176, 96),
    (160, 180, 150), (196, 150, 160),
)  # fmt: skip
ROOFS: tuple[Colour, ...] = ((150, 60, 44), (112, 62, 50), (78, 84, 96), (170, 92, 56), (66, 88, 80), (96, 74, 98))
RUBBER: Colour = (34, 35, 40)
GLASS: Colour = (134, 176, 202)
WARM: Colour = (255, 214, 122)
WOOD: Colour = (120, 82, 50)


def _pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    """Return one of the colours, a little off."""
    red, green, blue = np.clip(np.asarray(colours[rng.integers(len(colours))]) + rng.normal(0, 9, 3), 8, 250)
    return float(red), float(green), float(blue)


def _wheel(x: float, radius: float) -> list[Part]:
    return [
        ellipse(x, radius * 1.05, radius * 1.2, radius * 1.2, (28, 28, 32)),
        ellipse(x, radius, radius, radius, RUBBER),
        ellipse(x, radius, radius * 0.6, radius * 0.6, (206, 208, 212), (128, 130, 136)),
        ellipse(x, radius, radius * 0.2, radius * 0.2, (70, 72, 78)),
    ]


def _ground_shadow(half_width: float) -> Part:
    return ellipse(0.0, 0.02, half_width, max(half_width * 0.13, 0.25), (10, 12, 24), alpha=0.6, soft=True)


def _beam(x: float, y: float, radius: float, night: bool) -> list[Part]:
    """Return the shine of a lamp, at night only."""
    return [ellipse(x, y, radius, radius, WARM, alpha=0.55, soft=True, glow=True)] if night else []


def _car_side(rng: np.random.Generator, night: bool) -> list[Part]:
    paint, glass = _pick(rng, PAINTS), mix(GLASS, (40, 56, 76), rng.uniform(0, 0.8))
    long, waist, roof = rng.uniform(1.9, 2.25), rng.uniform(0.82, 0.98), rng.uniform(1.36, 1.7)
    back = rng.uniform(-1.95, -1.2)  # where the cabin ends: from a saloon with a boot to an estate
    hood, front = rng.uniform(0.9, 1.25), rng.uniform(0.25, 0.6)
    rear_top = back + rng.uniform(0.12, 0.5)
    cabin = [(back, waist - 0.1), (rear_top, roof), (rear_top, roof), (front, roof), (hood, waist - 0.1)]
    inner = [(back + 0.22, waist), (rear_top + 0.1, roof - 0.12), (front - 0.05, roof - 0.12), (hood - 0.22, waist)]
    body = [(-long, 0.32), (-long, waist - 0.06), (-long + 0.25, waist + 0.02), (hood, waist + 0.02), (long - 0.25, waist - 0.12),
            (long, waist - 0.3), (long + 0.03, 0.32), (long, 0.24), (-long, 0.24)]  # fmt: skip
    pillar = (rear_top + front) / 2
    wheel, axle = rng.uniform(0.31, 0.38), long * 0.63
    return [
        _ground_shadow(long * 1.15),
        smooth(cabin, lighter(paint, 0.15), paint),
        polygon(inner, lighter(glass, 0.35), glass),
        box(pillar - 0.05, waist, pillar + 0.06, roof - 0.1, darker(paint, 0.2)),
        smooth(body, lighter(paint, 0.28), darker(paint, 0.35)),
        box(-long + 0.2, waist * 0.7, long - 0.3, waist * 0.7 + 0.04, lighter(paint, 0.45), alpha=0.7),
        box(-long + 0.1, 0.24, long - 0.1, 0.36, (44, 46, 52)),
        box(pillar, 0.36, pillar + 0.025, waist, darker(paint, 0.45)),
        box(pillar - 0.3, waist - 0.16, pillar - 0.1, waist - 0.11, darker(paint, 0.5)),
        ellipse(long - 0.12, waist - 0.28, 0.13, 0.09, (255, 244, 206), glow=night),
        ellipse(-long + 0.1, waist - 0.2, 0.08, 0.12, (206, 34, 30), glow=night),
        *_wheel(-axle, wheel),
        *_wheel(axle, wheel),
        *_beam(long + 0.1, waist - 0.28, 0.7, night),
    ]


def _car_end(rng: np.random.Generator, night: bool) -> list[Part]:
    """Return a car seen from the front or from behind."""
    paint, glass = _pick(rng, PAINTS), mix(GLASS, (40, 56, 76), rng.uniform(0, 0.8))
    front = rng.random() < 0.5
    half, roof = rng.uniform(0.86, 0.98), rng.uniform(1.36, 1.65)
    lamp: Colour = (255, 244, 206) if front else (206, 34, 30)
    parts = [
        _ground_shadow(half * 1.3),
        box(-half + 0.04, 0.0, -half + 0.3, 0.5, RUBBER),
        box(half - 0.3, 0.0, half - 0.04, 0.5, RUBBER),
        smooth([(-half + 0.06, 0.8), (-half + 0.22, roof), (half - 0.22, roof), (half - 0.06, 0.8)], lighter(paint, 0.2), paint),
        polygon([(-half + 0.16, 0.88), (-half + 0.34, roof - 0.12), (half - 0.34, roof - 0.12), (half - 0.16, 0.88)], lighter(glass, 0.4), glass),
        ellipse(-half - 0.06, 0.95, 0.1, 0.08, darker(paint, 0.2)),
        ellipse(half + 0.06, 0.95, 0.1, 0.08, darker(paint, 0.2)),
        smooth([(-half, 0.2), (-half, 0.92), (-half + 0.1, 0.96), (half - 0.1, 0.96), (half, 0.92), (half, 0.2)], lighter(paint, 0.25), darker(paint, 0.35)),
        box(-half + 0.06, 0.22, half - 0.06, 0.36, (44, 46, 52)),
        ellipse(-half + 0.24, 0.66, 0.17, 0.1, lamp, glow=night),
        ellipse(half - 0.24, 0.66, 0.17, 0.1, lamp, glow=night),
    ]
    if front:
        parts += [box(-0.36, 0.46, 0.36, 0.6, (36, 38, 44)), *_beam(-half + 0.24, 0.66, 0.6, night), *_beam(half - 0.24, 0.66, 0.6, night)]
    else:
        parts += [box(-0.26, 0.5, 0.26, 0.62, (232, 230, 216))]
    return parts


def car(rng: np.random.Generator, night: bool) -> list[Part]:
    """Draw a car: saloon, hatchback or estate from the side, or any from the front or from behind."""
    return _car_side(rng, night) if rng.random() < 0.75 else _car_end(rng, night)


def _load(rng: np.random.Generator, back: float, cab: float) -> list[Part]:
    """Return what a truck carries: a box, a tank, or the open bed of a pickup."""
    paint, kind = _pick(rng, PAINTS), rng.random()
    if kind < 0.5:
        top = rng.uniform(2.5, 3.1)
        stripe = _pick(rng, PAINTS)
        ribs = [box(x, 0.8, x + 0.04, top - 0.1, darker(paint, 0.25), alpha=0.6) for x in np.linspace(back + 0.5, cab - 0.5, 6)]
        return [box(back, 0.62, cab - 0.08, top, lighter(paint, 0.25), darker(paint, 0.2)), *ribs,
                box(back, top * 0.5, cab - 0.08, top * 0.5 + 0.3, stripe), box(back, top - 0.1, cab - 0.08, top, darker(paint, 0.4))]  # fmt: skip
    if kind < 0.72:
        middle, half = (back + cab) / 2 - 0.04, (cab - back) / 2 - 0.08
        outline = [(middle - half, 0.8), (middle - half, 2.2), (middle + half, 2.2), (middle + half, 0.8)]
        return [smooth(outline, lighter(paint, 0.6), darker(paint, 0.35)), box(middle - half * 0.8, 1.42, middle + half * 0.8, 1.6, darker(paint, 0.3)),
                ellipse(middle, 2.2, 0.3, 0.12, darker(paint, 0.4))]  # fmt: skip
    logs = [ellipse(x, y, 0.3, 0.3, (176, 130, 82), (130, 90, 54)) for y in (1.2, 1.7) for x in np.arange(back + 0.4, cab - 0.4, 0.58)]
    return [*logs, box(back, 0.62, cab - 0.08, 1.25, lighter(paint, 0.2), darker(paint, 0.3))]


def truck(rng: np.random.Generator, night: bool) -> list[Part]:
    """Draw a truck from the side: a cab, and a box, a tank or an open bed behind it."""
    paint, glass = _pick(rng, PAINTS), mix(GLASS, (40, 56, 76), rng.uniform(0, 0.8))
    front, back, top = rng.uniform(2.6, 3.1), -rng.uniform(2.2, 3.7), rng.uniform(1.95, 2.5)
    cab, wheel = front - rng.uniform(1.5, 1.8), rng.uniform(0.42, 0.5)
    nose = rng.uniform(0.1, 0.5)
    outline = [(cab, 0.5), (cab, top - 0.1), (cab + 0.15, top), (front - nose - 0.1, top), (front - nose, top - 0.1),
               (front, 1.3), (front + 0.05, 0.6), (front, 0.45)]  # fmt: skip
    window = [(cab + 0.35, 1.35), (cab + 0.35, top - 0.22), (front - nose - 0.14, top - 0.22), (front - 0.14, 1.35)]
    return [
        _ground_shadow((front - back) * 0.56),
        box(back, 0.5, front - 0.2, 0.75, (52, 54, 60)),
        *_load(rng, back, cab),
        smooth(outline, lighter(paint, 0.25), darker(paint, 0.3)),
        polygon(window, lighter(glass, 0.4), glass),
        box(cab + 0.28, 0.6, cab + 0.31, top - 0.15, darker(paint, 0.4)),
        box(cab + 0.1, 0.42, front, 0.58, (60, 62, 68)),
        ellipse(front - 0.06, 0.82, 0.12, 0.14, (255, 244, 206), glow=night),
        *_wheel(front - 0.75, wheel),
        *_wheel(back + 0.75, wheel),
        *(_wheel(back + 0.75 + wheel * 2.3, wheel) if back < -3 else []),
        *_beam(front + 0.1, 0.82, 0.9, night),
    ]


def _window(x: float, y: float, wide: float, high: float, lit: bool) -> list[Part]:
    pane: Colour = WARM if lit else (92, 126, 152)
    return [
        box(x - wide / 2 - 0.1, y - 0.1, x + wide / 2 + 0.1, y + high + 0.1, (244, 242, 234)),
        box(x - wide / 2, y, x + wide / 2, y + high, lighter(pane, 0.3), pane, glow=lit),
        box(x - 0.04, y, x + 0.04, y + high, (244, 242, 234)),
        box(x - wide / 2, y + high / 2 - 0.04, x + wide / 2, y + high / 2 + 0.04, (244, 242, 234)),
    ]


def house(rng: np.random.Generator, night: bool) -> list[Part]:
    """Draw a house of one or two floors, its roof seen from the gable or from the eaves."""
    wall, roof, trim = _pick(rng, WALLS), _pick(rng, ROOFS), _pick(rng, PAINTS)
    half, floors = rng.uniform(2.4, 4.6), int(rng.integers(1, 3))
    eaves, gable = 2.7 * floors, rng.random() < 0.5
    ridge = eaves + (half * rng.uniform(0.6, 1.0) if gable else rng.uniform(1.5, 2.4))
    chimney = rng.choice([-1, 1]) * half * rng.uniform(0.35, 0.55)
    parts = [_ground_shadow(half * 1.25), box(chimney - 0.4, eaves, chimney + 0.4, ridge + 0.5, (150, 82, 66), (112, 60, 50))]
    if gable:
        parts += [polygon([(-half, 0), (-half, eaves), (0, ridge), (half, eaves), (half, 0)], lighter(wall, 0.15), darker(wall, 0.15)),
                  polygon([(-half - 0.5, eaves - 0.5), (0, ridge), (0, ridge + 0.55), (-half - 0.6, eaves)], roof, darker(roof, 0.15)),
                  polygon([(half + 0.5, eaves - 0.5), (0, ridge), (0, ridge + 0.55), (half + 0.6, eaves)], darker(roof, 0.2), darker(roof, 0.35)),
                  *_window(0, eaves + 0.1, 0.9, 0.9, night and rng.random() < 0.6)]  # fmt: skip
    else:
        lean = rng.uniform(0.1, 1.2)
        parts += [box(-half, 0, half, eaves, lighter(wall, 0.15), darker(wall, 0.15)), box(-half, eaves - 0.35, half, eaves, darker(wall, 0.35)),
                  polygon([(-half - 0.4, eaves - 0.1), (-half + lean, ridge), (half - lean, ridge), (half + 0.4, eaves - 0.1)], lighter(roof, 0.15), darker(roof, 0.15))]  # fmt: skip
        rows = [box(-half + lean * s, eaves + (ridge - eaves) * s, half - lean * s, eaves + (ridge - eaves) * s + 0.07, darker(roof, 0.3)) for s in (0.25, 0.5, 0.75)]
        parts += rows
    door = rng.uniform(-0.35, 0.35) * half
    for floor in range(floors):
        for x in np.linspace(-half + 1.1, half - 1.1, max(2, round(half))):
            if floor or abs(x - door) > 1.15:
                parts += _window(float(x), floor * 2.7 + 0.95, 0.85, 1.15, night and rng.random() < 0.6)
    return [*parts, box(door - 0.6, 0, door + 0.6, 2.15, (240, 238, 230)), box(door - 0.48, 0, door + 0.48, 2.05, trim, darker(trim, 0.3)),
            ellipse(door + 0.3, 1.0, 0.08, 0.08, (240, 210, 120))]  # fmt: skip


def _hull(rng: np.random.Generator, half: float, high: float) -> list[Part]:
    paint = _pick(rng, PAINTS)
    outline = [(-half, high), (-half * 0.86, 0.0), (half * 0.66, 0.0), (half * 1.05, high * 1.18)]
    low = [(-half * 0.9, high * 0.28), (-half * 0.86, -0.05), (half * 0.66, -0.05), (half * 0.79, high * 0.3)]
    rail = [(-half, high), (-half, high * 0.82), (half * 0.98, high * 0.96), (half * 1.05, high * 1.18)]
    stripe = _pick(rng, PAINTS)
    return [ellipse(0, -0.1, half * 1.15, half * 0.16, (14, 30, 50), alpha=0.55, soft=True), polygon(outline, lighter(paint, 0.25), darker(paint, 0.3)),
            polygon(low, stripe, darker(stripe, 0.3)), polygon(rail, lighter(paint, 0.6)),
            ellipse(-half * 0.2, -0.04, half * 1.0, 0.14, (236, 244, 248), alpha=0.6, soft=True)]  # fmt: skip


def boat(rng: np.random.Generator, night: bool) -> list[Part]:
    """Draw a boat: under sail, with an engine and a cabin, or a rowing boat."""
    kind, half = rng.random(), rng.uniform(1.9, 2.8)
    if kind < 0.5:
        mast, sail = rng.uniform(4.6, 6.6), _pick(rng, (*PAINTS, (246, 242, 230), (246, 242, 230), (250, 248, 240)))
        jib = _pick(rng, (*PAINTS, (246, 242, 230))) if rng.random() < 0.8 else sail
        boom = half * rng.uniform(0.75, 0.95)
        parts = [box(-0.07, 0.5, 0.07, mast, WOOD), smooth([(-0.12, 1.15), (-0.12, mast), (-0.12, mast), (-boom * 0.6, mast * 0.45), (-boom, 1.05), (-boom, 1.05)], lighter(sail, 0.3), darker(sail, 0.12))]
        parts += [smooth([(0.14, 1.15), (0.14, mast * 0.9), (0.14, mast * 0.9), (half * 0.62, mast * 0.36), (half * 0.95, 1.05), (half * 0.95, 1.05)], lighter(jib, 0.25), darker(jib, 0.15))] if rng.random() < 0.8 else []
        parts += [box(-boom, 0.98, 0, 1.1, WOOD), polygon([(0, mast), (0, mast + 0.35), (-0.6, mast + 0.18)], _pick(rng, PAINTS))]
        return [*parts, *_hull(rng, half, 0.8)]
    if kind < 0.82:
        cabin, deck = _pick(rng, ((244, 242, 236), (230, 214, 180), (200, 214, 222), (214, 90, 70))), 0.85
        left, right, top = -half * rng.uniform(0.5, 0.75), half * rng.uniform(0.2, 0.45), rng.uniform(1.8, 2.6)
        panes = [box(x, top - 0.62, x + 0.36, top - 0.26, WARM if night else (84, 120, 150), glow=night) for x in np.arange(left + 0.2, right - 0.35, 0.55)]
        funnel = [box(left + 0.3, top, left + 0.75, top + 0.8, _pick(rng, PAINTS)), box(left + 0.3, top + 0.5, left + 0.75, top + 0.65, (245, 245, 240))]
        return [*(funnel if rng.random() < 0.5 else []), box(right - 0.3, top, right - 0.2, top + 0.9, (90, 90, 96)),
                polygon([(left, deck * 0.7), (left, top), (right - 0.1, top), (right + 0.25, deck * 0.7)], lighter(cabin, 0.4), darker(cabin, 0.12)), *panes,
                box(left - 0.12, top - 0.02, right + 0.05, top + 0.12, darker(cabin, 0.3)), *_hull(rng, half, deck)]  # fmt: skip
    coat = _pick(rng, PAINTS)
    rower = [smooth([(-0.5, 0.3), (-0.4, 1.2), (0.2, 1.2), (0.3, 0.3)], coat, darker(coat, 0.3)), ellipse(-0.08, 1.4, 0.22, 0.26, (226, 178, 144), (190, 140, 108)),
             polygon([(0.1, 0.95), (1.4, 0.1), (1.5, 0.2), (0.15, 1.08)], WOOD)]  # fmt: skip
    return [*rower, *_hull(rng, half * 0.8, 0.6)]


def balloon(rng: np.random.Generator, night: bool) -> list[Part]:
    """Draw a hot-air balloon 10 m wide with its basket, the envelope in gores of two or three colours."""
    colours = [_pick(rng, PAINTS) for _ in range(int(rng.integers(2, 4)))]
    turn = np.linspace(-np.pi / 2, 1.5 * np.pi, 48, endpoint=False)
    pinch = np.where(np.sin(turn) < 0, 1 - 0.42 * np.sin(turn) ** 2, 1.0)  # the lower half runs together to the mouth
    high = 8.6 + rng.uniform(0, 1.2)
    outline = np.stack([5.2 * np.cos(turn) * pinch, high + 5.4 * np.sin(turn) * np.where(np.sin(turn) < 0, 1.12, 1.0)], axis=1)
    mouth = float(outline[:, 1].min())
    gores = np.linspace(1, 0.14, int(rng.integers(4, 8)))
    envelope = [Part(outline * (share, 1.0), lighter(colours[i % len(colours)], 0.18), darker(colours[i % len(colours)], 0.2)) for i, share in enumerate(gores)]
    band = [(x, y) for x, y in outline if high - 1.6 < y < high + 0.6]
    belt = _pick(rng, PAINTS)
    rows = [polygon(band, belt, darker(belt, 0.2))] if rng.random() < 0.45 else []
    base = mouth - rng.uniform(1.0, 1.4)
    ropes = [polygon([(side * 1.2, mouth + 0.35), (side * 1.32, mouth + 0.35), (side * 0.76, base - 0.1), (side * 0.64, base - 0.1)], (88, 72, 58)) for side in (-1, 1)]
    flame = [ellipse(0, mouth - 0.1, 0.3, 0.6, (255, 240, 170), (255, 150, 50), glow=True)] if night or rng.random() < 0.25 else []
    return [
        *ropes, *flame, *envelope, *rows,
        ellipse(-1.9, high + 2.0, 2.6, 3.0, (255, 255, 255), alpha=0.42, soft=True),
        *([ellipse(0, high - 1.5, 4.6, 6.0, (255, 200, 110), alpha=0.5, soft=True, glow=True)] if night else []),
        polygon([(-0.9, base), (0.9, base), (0.75, base - 1.3), (-0.75, base - 1.3)], (168, 112, 62), (112, 70, 40)),
        box(-0.95, base - 0.2, 0.95, base + 0.05, (96, 60, 36)),
    ]  # fmt: skip


def bird(rng: np.random.Generator, night: bool) -> list[Part]:
    """Draw a bird 2 units long on the wing: flapping, seen from the side, or gliding, seen from ahead."""
    coat = _pick(rng, ((46, 46, 54), (60, 52, 48), (238, 238, 236), (150, 150, 156), (170, 60, 46), (60, 100, 160), (120, 90, 64)))
    belly = lighter(coat, rng.uniform(0.1, 0.7))
    if rng.random() < 0.35:
        lift, droop, deep = rng.uniform(0.25, 0.6), rng.uniform(-0.25, 0.2), rng.uniform(0.16, 0.26)
        wing = [(0, 0.08), (0.45, lift), (0.8, lift * 0.9), (1.5, droop), (1.5, droop), (0.85, lift * 0.9 - deep), (0.45, lift - deep * 1.2), (0, -0.16)]
        return [smooth(wing, coat, darker(coat, 0.3)), smooth([(-x, y) for x, y in wing], lighter(coat, 0.1), darker(coat, 0.2)),
                ellipse(0, -0.02, 0.2, 0.2, coat, belly), ellipse(0.03, -0.02, 0.06, 0.05, (240, 170, 50))]  # fmt: skip
    rise, sweep = rng.choice([-1, 1]) * rng.uniform(0.6, 1.05), rng.uniform(-0.5, 0.1)
    near = [(-0.3, 0.1), (-0.35 + sweep, rise * 0.7), (-0.25 + sweep, rise), (-0.25 + sweep, rise), (0.1, rise * 0.6), (0.42, 0.05)]
    far = [(x + 0.25, y * 0.86) for x, y in near]
    return [
        smooth(far, darker(coat, 0.4), darker(coat, 0.25)),
        polygon([(-0.5, 0.08), (-1.1, 0.2), (-1.02, 0.02), (-1.12, -0.14), (-0.5, -0.1)], darker(coat, 0.15)),
        smooth([(-0.9, 0.02), (-0.4, 0.25), (0.4, 0.26), (0.75, 0.12), (0.5, -0.2), (-0.4, -0.24)], coat, belly),
        ellipse(0.66, 0.18, 0.22, 0.2, lighter(coat, 0.08), coat),
        polygon([(0.82, 0.24), (1.16, 0.12), (0.82, 0.08)], (240, 166, 44), (210, 120, 30)),
        ellipse(0.73, 0.22, 0.045, 0.045, (16, 16, 18) if sum(coat) > 240 else (250, 250, 250)),
        smooth(near, lighter(coat, 0.15), darker(coat, 0.2)),
    ]  # fmt: skip


OBJECTS: dict[str, Callable[[np.random.Generator, bool], list[Part]]] = {
    "balloon": balloon, "bird": bird, "boat": boat, "car": car, "house": house, "truck": truck,
}  # fmt: skip
