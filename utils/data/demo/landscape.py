"""What a landscape of the demo is made of: ground and water, sky, hills, far-off blocks, roads, plants."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from utils.data.demo.canvas import Canvas, Colour, Light, Part, Pose
from utils.data.demo.clutter import cloud, tree
from utils.data.demo.shapes import WARM, as_colour, box, darker, ellipse, lighter, mix, polygon, spot

_TUFT = [(-0.5, 0), (-0.7, 1.0), (-0.1, 0.4), (0.1, 1.2), (0.3, 0.4), (0.7, 0.9), (0.5, 0)]


def noise(rng: np.random.Generator, height: int, width: int, cell: float, flat: float = 1.0) -> np.ndarray:
    """Return smooth noise, float32 (height, width), mean 0 and about 1 high; `flat` stretches it sideways."""
    total = np.zeros((height, width), np.float32)
    for octave in range(4):
        side = max(cell / 2**octave, 1.0)
        shape = (int(height / side) + 2, int(width / (side * flat)) + 2)
        coarse = rng.standard_normal(shape).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    return total / 1.6


def lay_ground(
    rng: np.random.Generator,
    rows: np.ndarray,
    shades: Sequence[tuple[Colour, Colour]],
    light: Light,
    *,
    water: bool,
) -> None:
    """Paint rows of a picture, float32 (h, W, 3), as ground or water, rougher towards the viewer."""
    height, width = rows.shape[:2]
    if not height:
        return
    far, near = (light.on(colour) for colour in shades[int(rng.integers(len(shades)))])
    depth = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    rough = noise(rng, height, width, rng.uniform(12, 40), flat=4.0)[..., None] * (2 + 6 * depth)
    if water:
        ripples = noise(rng, height, width, 5, flat=9.0)[..., None] * (2 + 9 * depth)
        rough = rough * 0.6 + ripples
    rows[...] = far * (1 - depth) + near * depth + rough * light.tint[0]


def hang_sky(
    rng: np.random.Generator, canvas: Canvas, horizon: float, colour: Colour, disc: Colour | None, night: bool
) -> None:
    """Put stars, the sun or the moon (`disc`), and clouds of a colour into the sky."""
    width, plain = canvas.width, Light()
    for _ in range(int(rng.integers(20, 70)) if night else 0):
        star = Pose(rng.uniform(0, width), rng.uniform(0, horizon), rng.uniform(0.35, 0.9))
        canvas.draw([box(-0.8, -0.8, 0.8, 0.8, (230, 232, 250))], star, plain)
    if disc is not None:
        shine = spot(0, 0, 5, 5, disc, 0.25 if night else 0.6)
        place = Pose(rng.uniform(0.05, 0.95) * width, rng.uniform(0.1, 0.75) * horizon, rng.uniform(8, 16))
        canvas.draw([shine, ellipse(0, 0, 1, 1, lighter(disc, 0.5), disc)], place, plain)
    for _ in range(int(rng.integers(0, 6))):
        place = Pose(rng.uniform(0, width), rng.uniform(0.05, 0.85) * horizon, rng.uniform(4, 15))
        canvas.draw(cloud(rng, colour), place, plain)


def raise_hills(
    rng: np.random.Generator, canvas: Canvas, horizon: float, colour: Colour, light: Light
) -> None:
    """Raise one to three ridges behind the ground, the farther the hazier."""
    width, layers = canvas.width, int(rng.integers(1, 4))
    steps = np.linspace(0, width, 60)
    for share in np.arange(1, layers + 1) / layers:
        high = horizon * rng.uniform(0.12, 0.42) * (1.25 - 0.6 * share)
        wave = noise(rng, 1, len(steps), rng.uniform(14, 30))[0]
        ridge = horizon - high * (0.55 + 0.4 * (wave - wave.min()) / (np.ptp(wave) + 1e-6))
        outline = np.concatenate([np.stack([steps, ridge], axis=1), [(width, horizon + 1), (0, horizon + 1)]])
        top, foot = (light.on(mix(colour, light.haze, haze - 0.5 * share)) for haze in (0.75, 0.9))
        canvas.fill(outline, top, foot)


def raise_blocks(
    rng: np.random.Generator, canvas: Canvas, horizon: float, colour: Colour, light: Light, night: bool
) -> None:
    """Raise one to three rows of blocks of flats behind the ground, the farther the hazier."""
    layers = int(rng.integers(1, 4))
    for share in np.arange(1, layers + 1) / layers:
        wall = as_colour(light.on(mix(colour, light.haze, 0.75 - 0.5 * share)))
        high, x = horizon * rng.uniform(0.12, 0.42) * (1.25 - 0.6 * share), -10.0
        while x < canvas.width:
            wide, tall = rng.uniform(16, 44), high * rng.uniform(0.35, 1.0)
            canvas.draw(_block(rng, wide, tall, wall, night), Pose(x, horizon + 1, 1.0), Light())
            x += wide + rng.uniform(-4, 3)


def _block(rng: np.random.Generator, wide: float, tall: float, wall: Colour, night: bool) -> list[Part]:
    """Draw a distant block of flats; its metres are pixels."""
    pane, share = (WARM, 0.35) if night else (lighter(wall, 0.25), 0.6)
    panes = [
        (x, y) for x in np.arange(3, wide - 4, 6) for y in np.arange(4, tall - 4, 9) if rng.random() < share
    ]
    return [
        box(0, 0, wide, tall, wall, darker(wall, 0.12)),
        *(box(x, y, x + 2.5, y + 4, pane) for x, y in panes),
    ]


def lay_road(rng: np.random.Generator, canvas: Canvas, shore: float, light: Light) -> None:
    """Lay a road across the ground below row `shore`, or from the viewer towards the horizon."""
    depth, width = canvas.height - shore, canvas.width
    tar, paint = light.on((92, 92, 98)), light.on((232, 226, 200))
    if rng.random() < 0.5:
        middle, half = shore + depth * rng.uniform(0.4, 0.8), depth * rng.uniform(0.1, 0.2)
        canvas.fill(_strip(0, middle, width, middle, half), tar, tar * 0.85)
        for x in np.arange(rng.uniform(-40, 0), width, 44):
            canvas.fill(_strip(x, middle, x + 22, middle, 1.5), paint, paint)
        return
    far, near, half = rng.uniform(0.2, 0.8) * width, rng.uniform(0, 1) * width, rng.uniform(0.2, 0.4) * width
    canvas.fill(_wedge(far, near, half, shore, depth, 0.01, 1.0), tar, tar * 0.85)
    for start in (np.arange(6) / 6) ** 2:
        canvas.fill(_wedge(far, near, half * 0.03, shore, depth, start, start + 0.06), paint, paint)


def _strip(x1: float, y1: float, x2: float, y2: float, half: float) -> np.ndarray:
    return np.array([(x1, y1 - half), (x2, y2 - half), (x2, y2 + half), (x1, y1 + half)])


def _wedge(
    far: float, near: float, half: float, shore: float, depth: float, start: float, end: float
) -> np.ndarray:
    """Return a piece of a stripe that runs towards the viewer, between two shares of its way."""
    rows = [(far + (near - far) * share, shore + depth * share, half * share) for share in (start, end)]
    (x1, y1, half1), (x2, y2, half2) = rows
    return np.array([(x1 - half1, y1), (x1 + half1, y1), (x2 + half2, y2), (x2 - half2, y2)])


def plant(
    rng: np.random.Generator,
    canvas: Canvas,
    shore: float,
    horizon: float,
    tufts: Sequence[Colour],
    trees: float,
    light: Light,
) -> None:
    """Set a line of trees behind the ground, with the probability `trees`, and tufts of the colours on it."""
    height, width = canvas.height, canvas.width
    if rng.random() < trees:
        middle, spread = rng.uniform(0, width), rng.uniform(0.1, 0.5) * width
        for _ in range(int(rng.integers(3, 11))):
            place = Pose(
                rng.normal(middle, spread), shore + rng.uniform(0, 0.04) * height, rng.uniform(2.0, 4.5)
            )
            canvas.draw(tree(rng), place, Light(light.tint, light.haze, rng.uniform(0.25, 0.5)))
    for _ in range(int(rng.integers(0, 70)) if tufts else 0):
        y = rng.uniform(shore, height)
        place = Pose(rng.uniform(0, width), y, 0.6 + 4.5 * ((y - horizon) / (height - horizon)) ** 1.5)
        canvas.draw([polygon(_TUFT, tufts[int(rng.integers(len(tufts)))])], place, light)
