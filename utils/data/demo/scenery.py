"""The backgrounds of the demo: six kinds of landscape at five hours, and plain textures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.data.demo.canvas import Canvas, Colour, Light
from utils.data.demo.landscape import hang_sky, lay_ground, lay_road, noise, plant, raise_blocks, raise_hills
from utils.data.demo.shapes import PAINTS, lighter, mix

Band = tuple[float, float]  # first and last row, in pixels, on which things may stand
Shades = tuple[tuple[Colour, Colour], ...]  # far and near colours, to choose one pair from


@dataclass(frozen=True)
class Scene:
    """Where things may stand in a picture, and its light; a plain texture has no sky, water or land."""

    kind: str
    night: bool
    light: Light
    sky: Band | None = None
    water: Band | None = None
    land: Band | None = None
    horizon: float = 0.0


@dataclass(frozen=True)
class _Hour:
    weight: float
    zenith: Colour
    low: Colour  # the sky above the horizon
    tint: Colour  # factors on the colour of everything lit
    cloud: Colour
    disc: Colour | None  # the sun or the moon


@dataclass(frozen=True)
class _Land:
    weight: float
    ground: Shades
    hills: Colour
    tufts: tuple[Colour, ...] = ()
    road: float = 0.5  # how likely there is one
    trees: float = 0.7


_SUN: Colour = (255, 250, 224)
_HOURS = {
    "noon": _Hour(0.32, (66, 136, 206), (196, 224, 240), (1.0, 1.0, 1.0), (250, 250, 252), _SUN),
    "morning": _Hour(0.2, (118, 168, 214), (250, 226, 196), (1.04, 0.98, 0.9), (250, 246, 242), _SUN),
    "dusk": _Hour(0.16, (70, 62, 120), (248, 158, 102), (0.88, 0.7, 0.68), (232, 150, 130), (255, 214, 150)),
    "overcast": _Hour(0.17, (150, 158, 168), (206, 210, 212), (0.84, 0.86, 0.88), (222, 224, 226), None),
    "night": _Hour(0.15, (12, 16, 44), (48, 58, 104), (0.34, 0.38, 0.58), (60, 66, 100), (236, 234, 216)),
}
_SEA: Shades = (
    ((90, 150, 180), (24, 74, 116)),
    ((120, 180, 180), (30, 104, 120)),
    ((70, 110, 150), (20, 44, 90)),
)
_MEADOWS: Shades = (
    ((150, 176, 104), (74, 124, 52)),
    ((200, 186, 108), (150, 134, 62)),
    ((128, 166, 112), (52, 104, 60)),
)
_FLOWERS = ((58, 106, 44), (110, 150, 60), (240, 210, 90), (236, 236, 230), (214, 84, 90))
_SANDS: Shades = (((226, 196, 146), (196, 140, 84)), ((216, 160, 120), (170, 98, 66)))
_SQUARES: Shades = (((150, 150, 152), (104, 104, 110)), ((170, 160, 146), (122, 114, 104)))
_SHORES: Shades = (((226, 206, 160), (206, 176, 122)), ((146, 170, 110), (96, 130, 70)))
_GREEN: Colour = (84, 118, 92)
_LANDS = {
    "meadow": _Land(0.2, _MEADOWS, _GREEN, _FLOWERS),
    "desert": _Land(0.09, _SANDS, (190, 130, 96), ((140, 100, 66), (120, 126, 70)), trees=0.0),
    "snow": _Land(
        0.1, (((222, 230, 240), (244, 247, 250)),), (170, 186, 206), ((196, 208, 226), (160, 150, 140))
    ),
    "town": _Land(0.2, _SQUARES, (112, 116, 130), road=1.0),
    "coast": _Land(0.17, _SHORES, _GREEN, ((130, 140, 84), (224, 204, 160))),
    "sea": _Land(0.13, _SEA, _GREEN, road=0.0, trees=0.0),
    "texture": _Land(0.11, (), _GREEN),
}


def paint_scene(rng: np.random.Generator, height: int, width: int) -> tuple[Canvas, Scene]:
    """Paint a background by lot and say what may stand where on it."""
    kind = str(rng.choice(list(_LANDS), p=[land.weight for land in _LANDS.values()]))
    if kind == "texture":
        return Canvas(_texture(rng, height, width)), Scene(kind, False, Light())
    name = str(rng.choice(list(_HOURS), p=[hour.weight for hour in _HOURS.values()]))
    land, hour, night = _LANDS[kind], _HOURS[name], name == "night"
    light = Light(hour.tint, haze=mix(hour.low, (128, 128, 128), 0.15))
    horizon = round(height * rng.uniform(0.36, 0.62))
    shore = round(horizon + (height - horizon) * rng.uniform(0.3, 0.55)) if kind == "coast" else horizon

    image = np.zeros((height, width, 3), np.float32)
    share = np.linspace(0, 1, horizon, dtype=np.float32)[:, None, None] ** rng.uniform(0.8, 1.6)
    image[:horizon] = (
        np.asarray(hour.zenith, np.float32) * (1 - share) + np.asarray(hour.low, np.float32) * share
    )
    lay_ground(rng, image[horizon:shore], _SEA, light, water=True)
    lay_ground(rng, image[shore:], land.ground, light, water=kind == "sea")
    canvas = Canvas(np.clip(image, 0, 255).astype(np.uint8))

    hang_sky(rng, canvas, horizon, hour.cloud, hour.disc, night)
    if kind == "town":
        raise_blocks(rng, canvas, horizon, land.hills, light, night)
    elif kind != "sea" or rng.random() < 0.5:
        raise_hills(rng, canvas, horizon, land.hills, light)
    if rng.random() < land.road:
        lay_road(rng, canvas, shore, light)
    plant(rng, canvas, shore, horizon, land.tufts, land.trees, light)
    water = {"sea": (horizon, height), "coast": (horizon, shore)}.get(kind)
    return canvas, Scene(
        kind, night, light, (0, horizon), water, None if kind == "sea" else (shore, height), horizon
    )


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return cloudy noise, stripes, checks, dots or a gradient; uint8 (H, W, 3)."""
    pale = rng.uniform(0.0, 0.6)
    first, other = (lighter(PAINTS[i], pale) for i in rng.choice(len(PAINTS), 2, replace=False))
    second = mix(first, other, rng.uniform(0.15, 0.8))
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    turn, pace = rng.uniform(0, np.pi), 2 * np.pi / rng.uniform(14, 50)
    along = np.sin((rows * np.sin(turn) + columns * np.cos(turn)) * pace)
    across = np.sin((columns * np.sin(turn) - rows * np.cos(turn)) * pace)
    pattern = [
        noise(rng, height, width, rng.uniform(20, 90)) * 0.5 + 0.5,
        np.clip(along * 4 + 0.5, 0, 1),
        np.clip(along * across * 8 + 0.5, 0, 1),
        np.clip((along + across - rng.uniform(0.6, 1.2)) * 4, 0, 1),
        (rows / height) ** rng.uniform(0.5, 2),
    ][int(rng.integers(5))]
    image = np.asarray(first) + (np.asarray(second) - first) * pattern[..., None]
    image += noise(rng, height, width, 6)[..., None] * rng.uniform(0, 7)
    return np.clip(image, 0, 255).astype(np.uint8)
