"""The world behind, between and before the demo's objects: skies, grounds, water, plain textures, and clutter."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from utils.data.demo.canvas import Canvas, Colour, Light, Part, Pose, box, darker, ellipse, lighter, mix, polygon, smooth
from utils.data.demo.objects import PAINTS

Band = tuple[float, float]  # first and last row, in pixels, on which things may stand

# top of the sky, sky above the horizon, colour factors on everything below
_HOURS: dict[str, tuple[Colour, Colour, Colour]] = {
    "noon": ((66, 136, 206), (196, 224, 240), (1.0, 1.0, 1.0)),
    "morning": ((118, 168, 214), (250, 226, 196), (1.04, 0.98, 0.9)),
    "dusk": ((70, 62, 120), (248, 158, 102), (0.88, 0.7, 0.68)),
    "overcast": ((150, 158, 168), (206, 210, 212), (0.84, 0.86, 0.88)),
    "night": ((12, 16, 44), (48, 58, 104), (0.34, 0.38, 0.58)),
}
_GROUNDS: dict[str, tuple[tuple[Colour, Colour], ...]] = {  # far and near colour
    "meadow": (((150, 176, 104), (74, 124, 52)), ((200, 186, 108), (150, 134, 62)), ((128, 166, 112), (52, 104, 60))),
    "desert": (((226, 196, 146), (196, 140, 84)), ((216, 160, 120), (170, 98, 66))),
    "snow": (((222, 230, 240), (244, 247, 250)),),
    "town": (((150, 150, 152), (104, 104, 110)), ((170, 160, 146), (122, 114, 104))),
    "coast": (((226, 206, 160), (206, 176, 122)), ((146, 170, 110), (96, 130, 70))),
    "sea": (((90, 150, 180), (24, 74, 116)), ((120, 180, 180), (30, 104, 120)), ((70, 110, 150), (20, 44, 90))),
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """Where things may stand in a picture, and its light. A plain texture has neither sky nor ground nor water."""

    kind: str
    night: bool
    light: Light
    sky: Band | None = None
    water: Band | None = None
    land: Band | None = None
    horizon: float = 0.0


def noise(rng: np.random.Generator, height: int, width: int, cell: float, flat: float = 1.0) -> np.ndarray:
    """Return smooth noise, float32 (height, width), mean 0 and about 1 high; `flat` stretches it sideways."""
    total = np.zeros((height, width), np.float32)
    for octave in range(4):
        side = max(cell / 2**octave, 1.0)
        shape = (int(height / side) + 2, int(width / (side * flat)) + 2)
        coarse = rng.standard_normal(shape).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    return total / 1.6


def paint_scene(rng: np.random.Generator, height: int, width: int) -> tuple[Canvas, Scene]:
    """Return a background of one of seven kinds and what may stand where."""
    kind = str(rng.choice(["meadow", "desert", "snow", "town", "coast", "sea", "texture"], p=[0.2, 0.09, 0.1, 0.19, 0.17, 0.13, 0.12]))
    if kind == "texture":
        return Canvas(_texture(rng, height, width)), Scene(kind, False, Light())
    hour = str(rng.choice(list(_HOURS), p=[0.32, 0.2, 0.16, 0.17, 0.15]))
    top, low, tint = _HOURS[hour]
    night, horizon = hour == "night", height * rng.uniform(0.36, 0.62)
    light = Light(tint, haze=mix(low, (128, 128, 128), 0.15))
    rows = np.linspace(0, 1, max(int(horizon), 1), dtype=np.float32)[:, None] ** rng.uniform(0.8, 1.6)
    image = np.zeros((height, width, 3), np.float32)
    image[: int(horizon)] = (np.asarray(top, np.float32) * (1 - rows) + np.asarray(low, np.float32) * rows)[:, None]
    shore = horizon + (height - horizon) * rng.uniform(0.3, 0.55) if kind == "coast" else horizon
    if kind == "coast":
        _lay_ground(rng, image, "sea", horizon, shore, light)
    _lay_ground(rng, image, kind, shore, height, light)
    canvas = Canvas(np.clip(image, 0, 255).astype(np.uint8))
    _hang_sky(rng, canvas, hour, horizon)
    if kind != "sea" or rng.random() < 0.5:
        _raise_hills(rng, canvas, kind, horizon, light)
    if kind in ("meadow", "desert", "snow", "town", "coast") and rng.random() < (1.0 if kind == "town" else 0.5):
        _lay_road(rng, canvas, shore, light)
    if kind != "sea":
        _plant(rng, canvas, kind, shore, horizon, light)
    water = {"sea": (horizon, float(height)), "coast": (horizon, shore)}.get(kind)
    land = None if kind == "sea" else (shore, float(height))
    return canvas, Scene(kind, night, light, (0.0, horizon), water, land, horizon)


def _lay_ground(rng: np.random.Generator, image: np.ndarray, kind: str, first: float, last: float, light: Light) -> None:
    """Paint rows `first` to `last` as ground or water, rougher towards the viewer."""
    y1, y2 = int(first), int(last)
    height, width = y2 - y1, image.shape[1]
    if height < 2:
        return
    far, near = (light.on(colour) for colour in _GROUNDS[kind][rng.integers(len(_GROUNDS[kind]))])
    depth = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    rough = noise(rng, height, width, rng.uniform(12, 40), flat=4.0)[..., None] * (2 + 6 * depth)
    if kind == "sea":
        rough = rough * 0.6 + noise(rng, height, width, 5, flat=9.0)[..., None] * (2 + 9 * depth)
    image[y1:y2] = far * (1 - depth) + near * depth + rough * (0.5 if light.tint[0] < 0.5 else 1.0)


def _hang_sky(rng: np.random.Generator, canvas: Canvas, hour: str, horizon: float) -> None:
    """Put the sun or the moon, stars and clouds into the sky."""
    width = canvas.width
    x, y = rng.uniform(0.05, 0.95) * width, rng.uniform(0.1, 0.75) * horizon
    plain = Light()
    if hour == "night":
        for _ in range(int(rng.integers(20, 70))):
            star = Pose(rng.uniform(0, width), rng.uniform(0, horizon), rng.uniform(0.35, 0.9))
            canvas.draw([box(-0.8, -0.8, 0.8, 0.8, (230, 232, 250))], star, plain)
        canvas.draw([ellipse(0, 0, 3, 3, (120, 130, 180), alpha=0.5, soft=True), ellipse(0, 0, 1, 1, (240, 238, 220), (206, 206, 200))], Pose(x, y, rng.uniform(7, 15)), plain)
    elif hour != "overcast":
        shine: Colour = (255, 214, 150) if hour == "dusk" else (255, 250, 224)
        canvas.draw([ellipse(0, 0, 5, 5, shine, alpha=0.6, soft=True), ellipse(0, 0, 1, 1, lighter(shine, 0.5), shine)], Pose(x, y, rng.uniform(8, 17)), plain)
    cloud = {"night": (60, 66, 100), "dusk": (232, 150, 130), "overcast": (222, 224, 226)}.get(hour, (250, 250, 252))
    for _ in range(int(rng.integers(0, 6))):
        pose = Pose(rng.uniform(0, width), rng.uniform(0.05, 0.85) * horizon, rng.uniform(4, 15))
        canvas.draw(cloud_parts(rng, cloud), pose, plain)


def cloud_parts(rng: np.random.Generator, colour: Colour) -> list[Part]:
    """Draw a cloud some six units wide: overlapping soft puffs."""
    puffs = [(rng.normal(0, 1.6), rng.uniform(0, 0.9), rng.uniform(0.9, 1.7)) for _ in range(6)]
    shadow = [ellipse(x, y - 0.35, r * 1.6, r * 0.8, darker(colour, 0.16), alpha=0.6, soft=True) for x, y, r in puffs[:3]]
    return shadow + [ellipse(x, y, r * 1.4, r * 0.85, colour, alpha=0.8, soft=True) for x, y, r in puffs]


def _raise_hills(rng: np.random.Generator, canvas: Canvas, kind: str, horizon: float, light: Light) -> None:
    """Raise one to three ridges, or a row of roofs and blocks, behind the ground."""
    width = canvas.width
    base: Colour = {"snow": (170, 186, 206), "desert": (190, 130, 96), "town": (112, 116, 130)}.get(kind, (84, 118, 92))
    layers = int(rng.integers(1, 4))
    for layer in range(layers):
        share = (layer + 1) / layers
        colour = light.on(mix(base, light.haze, 0.75 - 0.5 * share))
        high = horizon * rng.uniform(0.12, 0.42) * (1.25 - 0.6 * share)
        if kind == "town":
            x = -10.0
            while x < width:
                wide, tall = rng.uniform(16, 44), high * rng.uniform(0.35, 1.0)
                block = Pose(x, horizon + 1, 1.0)
                canvas.draw(_block(rng, wide, tall, colour_of(colour), light.tint[0] < 0.5), block, Light())
                x += wide + rng.uniform(-4, 3)
            continue
        steps = np.linspace(0, width, 60)
        ridge = noise(rng, 1, 60, rng.uniform(14, 30))[0]
        ridge = horizon - high * (0.55 + 0.4 * (ridge - ridge.min()) / (np.ptp(ridge) + 1e-6))
        outline = np.concatenate([np.stack([steps, ridge], axis=1), [(width, horizon + 1), (0, horizon + 1)]])
        canvas.fill(outline, colour, light.on(mix(base, light.haze, 0.9 - 0.4 * share)))


def _block(rng: np.random.Generator, wide: float, tall: float, colour: Colour, night: bool) -> list[Part]:
    """Draw a distant block of flats, in pixels, some of its windows lit at night."""
    pane = (250, 214, 130) if night else lighter(colour, 0.25)
    places = [(x, y) for x in np.arange(3, wide - 4, 6) for y in np.arange(4, tall - 4, 9)]
    lit = [place for place in places if rng.random() < (0.35 if night else 0.6)]
    return [box(0, 0, wide, tall, colour, darker(colour, 0.12)), *(box(x, y, x + 2.5, y + 4, pane) for x, y in lit)]


def _plant(rng: np.random.Generator, canvas: Canvas, kind: str, first: float, horizon: float, light: Light) -> None:
    """Set a line of trees behind the ground, and tufts, flowers or stones on it."""
    height, width = canvas.height, canvas.width
    if kind in ("meadow", "snow", "coast", "town") and rng.random() < 0.7:
        middle, spread = rng.uniform(0, width), rng.uniform(0.1, 0.5) * width
        for _ in range(int(rng.integers(3, 11))):
            y = first + rng.uniform(0, 0.04) * height
            far = Light(light.tint, light.haze, rng.uniform(0.25, 0.5))
            canvas.draw(_tree(rng), Pose(rng.normal(middle, spread), y, rng.uniform(2.0, 4.5)), far)
    colours: tuple[Colour, ...] = {
        "meadow": ((58, 106, 44), (110, 150, 60), (240, 210, 90), (236, 236, 230), (214, 84, 90)),
        "desert": ((140, 100, 66), (120, 126, 70)),
        "snow": ((196, 208, 226), (160, 150, 140)),
        "coast": ((130, 140, 84), (224, 204, 160)),
    }.get(kind, ())  # fmt: skip
    for _ in range(int(rng.integers(0, 70)) if colours else 0):
        y = rng.uniform(first, height)
        near = (y - horizon) / (height - horizon)
        colour = colours[rng.integers(len(colours))]
        tuft = polygon([(-0.5, 0), (-0.7, 1.0), (-0.1, 0.4), (0.1, 1.2), (0.3, 0.4), (0.7, 0.9), (0.5, 0)], colour)
        canvas.draw([tuft], Pose(rng.uniform(0, width), y, 0.6 + 4.5 * near**1.5), light)


def colour_of(values: np.ndarray) -> Colour:
    """Return three channel values as a plain tuple."""
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _lay_road(rng: np.random.Generator, canvas: Canvas, shore: float, light: Light) -> None:
    """Lay a road across the ground, or towards the horizon."""
    height, width = canvas.height, canvas.width
    grey, line = light.on((92, 92, 98)), light.on((232, 226, 200))
    if rng.random() < 0.5:
        middle, half = shore + (height - shore) * rng.uniform(0.4, 0.8), (height - shore) * rng.uniform(0.1, 0.2)
        canvas.fill(np.asarray([(0, middle - half), (width, middle - half), (width, middle + half), (0, middle + half)]), grey, grey * 0.85)
        for x in np.arange(rng.uniform(-40, 0), width, 44):
            canvas.fill(np.asarray([(x, middle - 1.5), (x + 22, middle - 1.5), (x + 21, middle + 1.5), (x - 1, middle + 1.5)]), line, line)
        return
    far, near, half = rng.uniform(0.2, 0.8) * width, rng.uniform(0, 1) * width, rng.uniform(0.2, 0.4) * width
    canvas.fill(np.asarray([(far - 3, shore), (far + 3, shore), (near + half, height), (near - half, height)]), grey, grey * 0.85)
    for start in np.linspace(0, 1, 7)[:-1] ** 2:
        (x1, x2), (y1, y2) = (far + (near - far) * np.array([start, start + 0.06])), (shore + (height - shore) * np.array([start, start + 0.06]))
        canvas.fill(np.asarray([(x1 - half * start * 0.03, y1), (x1 + half * start * 0.03, y1), (x2 + half * start * 0.035, y2), (x2 - half * start * 0.035, y2)]), line, line)


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a plain background: cloudy noise, stripes, checks, dots, or grain; uint8 (H, W, 3)."""
    first, second = (np.asarray(PAINTS[i], np.float32) for i in rng.choice(len(PAINTS), 2, replace=False))
    pale = rng.uniform(0.0, 0.6)
    first, second = first + (235 - first) * pale, second + (235 - second) * pale
    second = first + (second - first) * rng.uniform(0.15, 0.8)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    period, turn = rng.uniform(14, 50), rng.uniform(0, np.pi)
    along = rows * np.sin(turn) + columns * np.cos(turn)
    across = columns * np.sin(turn) - rows * np.cos(turn)
    wave, other = np.sin(2 * np.pi * along / period), np.sin(2 * np.pi * across / period)
    pattern = [
        noise(rng, height, width, rng.uniform(20, 90)) * 0.5 + 0.5,
        np.clip(wave * 4 + 0.5, 0, 1),
        np.clip(wave * other * 8 + 0.5, 0, 1),
        np.clip((wave + other - rng.uniform(0.6, 1.2)) * 4, 0, 1),
        (rows / height) ** rng.uniform(0.5, 2),
    ][int(rng.integers(5))]
    image = first + (second - first) * pattern[..., None] + noise(rng, height, width, 6)[..., None] * rng.uniform(0, 7)
    return np.clip(image, 0, 255).astype(np.uint8)


def _leaves(rng: np.random.Generator) -> Colour:
    return colour_of(np.clip(np.asarray([(66, 120, 58), (96, 140, 60), (44, 92, 66), (190, 120, 44), (140, 150, 70)][rng.integers(5)]) + rng.normal(0, 8, 3), 0, 255))


def _tree(rng: np.random.Generator) -> list[Part]:
    leaf, high = _leaves(rng), rng.uniform(4, 8)
    trunk = box(-0.25, 0, 0.25, high * 0.6, (104, 76, 54), (74, 52, 38))
    shadow = ellipse(0, 0, high * 0.35, 0.4, (10, 14, 20), alpha=0.55, soft=True)
    if rng.random() < 0.4:
        tiers = [polygon([(-high * w, high * y), (0, high * (y + 0.42)), (high * w, high * y)], lighter(leaf, 0.1), darker(leaf, 0.3)) for w, y in ((0.3, 0.16), (0.24, 0.38), (0.17, 0.6))]
        return [shadow, trunk, *tiers]
    puffs = [(rng.normal(0, 0.16) * high, high * rng.uniform(0.55, 0.85), high * rng.uniform(0.17, 0.27)) for _ in range(5)]
    crown = [ellipse(x, y, r, r * 0.9, darker(leaf, 0.15), darker(leaf, 0.4)) for x, y, r in puffs]
    return [shadow, trunk, *crown, *(ellipse(x - r * 0.15, y + r * 0.2, r * 0.75, r * 0.6, lighter(leaf, 0.18), leaf) for x, y, r in puffs)]


def _bush(rng: np.random.Generator) -> list[Part]:
    leaf = _leaves(rng)
    return [ellipse(x, 0.5, rng.uniform(0.6, 1.1), rng.uniform(0.5, 1.1), lighter(leaf, 0.12), darker(leaf, 0.4)) for x in np.linspace(-1.2, 1.2, int(rng.integers(3, 6)))]


def _post(rng: np.random.Generator) -> list[Part]:
    """Draw a street lamp or a round or square sign."""
    grey, paint = (96, 98, 106), PAINTS[rng.integers(len(PAINTS))]
    pole = box(-0.09, 0, 0.09, 3.0, lighter(grey, 0.2), grey)
    if rng.random() < 0.4:
        return [box(-0.1, 0, 0.1, 5.6, lighter(grey, 0.2), grey), box(0, 5.4, 1.3, 5.6, grey), ellipse(1.2, 5.3, 0.4, 0.24, (255, 240, 190), glow=True)]
    sign = ellipse(0, 3.2, 0.7, 0.7, paint, darker(paint, 0.2)) if rng.random() < 0.5 else box(-1.1, 2.4, 1.1, 3.8, paint, darker(paint, 0.2))
    return [pole, sign, ellipse(0, 3.2, 0.4, 0.4, (240, 240, 236))]


def _fence(rng: np.random.Generator) -> list[Part]:
    wood, count = mix((236, 232, 222), (130, 92, 60), float(rng.integers(2))), int(rng.integers(6, 16))
    slats = [polygon([(i * 0.5, 0), (i * 0.5, 1.0), (i * 0.5 + 0.13, 1.18), (i * 0.5 + 0.26, 1.0), (i * 0.5 + 0.26, 0)], wood, darker(wood, 0.25)) for i in range(-count // 2, count // 2)]
    return [box(-count * 0.25, 0.3, count * 0.25, 0.44, darker(wood, 0.2)), box(-count * 0.25, 0.76, count * 0.25, 0.9, darker(wood, 0.2)), *slats]


def _rock(rng: np.random.Generator) -> list[Part]:
    grey = mix((150, 146, 142), (110, 92, 80), rng.uniform(0, 1))
    outline = [(-1.3, 0), (-1.1, rng.uniform(0.4, 0.9)), (-0.3, rng.uniform(0.8, 1.4)), (0.6, rng.uniform(0.7, 1.2)), (1.3, 0)]
    return [polygon(outline, lighter(grey, 0.25), darker(grey, 0.35)), polygon([outline[1], outline[2], (-0.1, 0.4)], lighter(grey, 0.4), grey)]


def _tent(rng: np.random.Generator) -> list[Part]:
    """Draw a tent or a haystack, which is nearly a house."""
    paint = PAINTS[rng.integers(len(PAINTS))]
    if rng.random() < 0.5:
        return [smooth([(-1.8, 0), (-1.6, 1.4), (0, 2.8), (1.6, 1.4), (1.8, 0)], (222, 190, 100), (160, 124, 56)), box(-1.5, 1.0, 1.5, 1.12, (150, 112, 52))]
    return [polygon([(-2.2, 0), (0, 2.8), (2.2, 0)], lighter(paint, 0.2), darker(paint, 0.2)), polygon([(-0.6, 0), (0, 1.9), (0.6, 0)], (50, 44, 46))]


def _container(rng: np.random.Generator) -> list[Part]:
    """Draw a shipping container or a billboard, which is nearly a truck."""
    paint = PAINTS[rng.integers(len(PAINTS))]
    if rng.random() < 0.5:
        return [box(-2.6, 0, 2.6, 2.5, lighter(paint, 0.15), darker(paint, 0.25)), *(box(x, 0.15, x + 0.12, 2.35, darker(paint, 0.3)) for x in np.linspace(-2.3, 2.2, 10))]
    return [box(-1.8, 0, -1.6, 3, (90, 84, 80)), box(1.6, 0, 1.8, 3, (90, 84, 80)), box(-2.6, 1.4, 2.6, 3.6, lighter(paint, 0.6), lighter(paint, 0.3)), ellipse(-1.2, 2.5, 0.7, 0.7, paint), box(-0.1, 2.3, 2.0, 2.7, darker(paint, 0.3))]


def _buoy(rng: np.random.Generator) -> list[Part]:
    paint = PAINTS[rng.integers(5)]
    return [ellipse(0, 0, 1.0, 0.25, (20, 40, 60), alpha=0.5, soft=True), polygon([(-0.6, 0), (-0.25, 1.6), (0.25, 1.6), (0.6, 0)], lighter(paint, 0.2), darker(paint, 0.2)), box(-0.5, 0.5, 0.5, 0.85, (240, 240, 236)), ellipse(0, 1.75, 0.22, 0.22, (250, 230, 150))]


def kite_parts(rng: np.random.Generator) -> list[Part]:
    """Draw a kite or a paper plane two units wide, which is nearly a bird or a balloon."""
    first, second = (PAINTS[i] for i in rng.choice(len(PAINTS), 2, replace=False))
    if rng.random() < 0.5:
        tail = [polygon([(-0.1 - 0.2 * i, -1.5 - 0.4 * i), (0.15 - 0.2 * i, -1.4 - 0.4 * i), (-0.05 - 0.2 * i, -1.7 - 0.4 * i)], second) for i in range(4)]
        return [polygon([(0, 1.2), (-0.8, 0.2), (0, -1.3)], first), polygon([(0, 1.2), (0.8, 0.2), (0, -1.3)], second), *tail]
    return [polygon([(-1, 0.5), (1.1, 0), (-0.5, -0.1)], (244, 244, 246), (210, 214, 222)), polygon([(-0.5, -0.1), (1.1, 0), (-0.6, -0.5)], (180, 186, 198))]


def clutter(rng: np.random.Generator, kind: str) -> list[Part]:
    """Draw one thing of no class that suits the scene: `kind` as in Scene, or "water", or "sky"."""
    choices = {"water": (_buoy, _buoy, _rock), "sky": (kite_parts,), "town": (_tree, _post, _post, _bush, _container, _fence), "desert": (_rock, _rock, _bush, _tent, _container),
               "texture": (_tree, _post, _rock, _tent, _container, kite_parts, _buoy)}.get(kind, (_tree, _tree, _bush, _fence, _rock, _tent, _post))  # fmt: skip
    return choices[int(rng.integers(len(choices)))](rng)
