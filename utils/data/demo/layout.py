"""Who stands where in a demo picture, and what of each object is seen in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.data.demo.canvas import Canvas, Light, Part, Pose, silhouette_area
from utils.data.demo.clutter import draw_clutter
from utils.data.demo.objects import OBJECTS
from utils.data.demo.scenery import Band, Scene
from utils.data.voc import VocObject

_LEAST_PIXELS = 12  # an object with fewer visible pixels is not marked at all
_DIFFICULT_VISIBLE = 0.3  # share of the whole object below which it is marked difficult
_DIFFICULT_SIDE = 7  # pixels: the same for the shorter side of its box
_EYE = 5.0  # metres above the ground; sets how fast things grow towards the viewer
_SKY_SIZES = {"balloon": (24.0, 130.0), "bird": (17.0, 80.0)}  # longer side, pixels
_KITE_SIZES = (16.0, 60.0)
_STICKER_SIZES = (24.0, 150.0)  # of everything on a plain texture
_STANDING_LEAST = 11.0  # pixels, longer side of what stands on the ground or the water
_TILTS = {"balloon": 5.0, "bird": 18.0, "boat": 4.0, "house": 0.4}  # standard deviation, degrees
_BUILDS = {"house": 0.62, "car": 1.2}  # a real house would fill the picture


@dataclass(frozen=True)
class Thing:
    """Something drawn in one piece: an object of a class, or clutter, whose name is None."""

    parts: list[Part]
    pose: Pose
    light: Light
    name: str | None


def place_things(rng: np.random.Generator, scene: Scene, width: int, height: int, count: int) -> list[Thing]:
    """Choose `count` objects and some clutter, and where they stand; the farthest first."""
    things: list[Thing] = []
    for _ in range(count):
        name = str(rng.choice(_suitable(scene)))
        parts = OBJECTS[name](rng, scene.night)
        neighbour = things[-1].pose if things and rng.random() < 0.35 else None
        band = scene.sky if name in _SKY_SIZES else scene.water if name == "boat" else scene.land
        things.append(_stand(rng, scene, parts, name, band, (width, height), neighbour))
    bands = {"sky": scene.sky, "water": scene.water, scene.kind: scene.land}
    places = [place for place, band in bands.items() if band] or [scene.kind]
    for _ in range(int(rng.integers(1, 8))):
        place = str(rng.choice(places))
        things.append(_stand(rng, scene, draw_clutter(rng, place), None, bands[place], (width, height), None))
    return things if scene.kind == "texture" else sorted(things, key=lambda thing: thing.pose.y)


def annotate(canvas: Canvas, things: Sequence[Thing]) -> tuple[VocObject, ...]:
    """Describe the objects of a finished canvas on which thing number i was drawn with owner i + 1."""
    found = []
    for owner, thing in enumerate(things, start=1):
        if thing.name is None:
            continue
        seen = canvas.visible(owner)
        pixels = int(seen.sum())
        if pixels < _LEAST_PIXELS:
            continue
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        x1, y1, x2, y2 = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
        hidden = pixels < _DIFFICULT_VISIBLE * silhouette_area(thing.parts, thing.pose)
        difficult = hidden or min(x2 - x1, y2 - y1) < _DIFFICULT_SIDE
        found.append(VocObject(thing.name, (x1, y1, x2, y2), difficult))
    return tuple(found)


def _suitable(scene: Scene) -> list[str]:
    """Return the classes that the scene can hold, the likelier ones more than once."""
    if scene.kind == "texture":
        return list(OBJECTS)
    boats = ["boat"] * {"sea": 5, "coast": 3}.get(scene.kind, 0)
    return ["balloon", "bird", *boats, *(["car", "house", "truck"] if scene.land else [])]


def _stand(
    rng: np.random.Generator,
    scene: Scene,
    parts: list[Part],
    name: str | None,
    band: Band | None,
    size: tuple[int, int],
    neighbour: Pose | None,
) -> Thing:
    """Give a thing its place, size and tilt in a picture of (width, height) pixels."""
    width, height = size
    points = np.concatenate([part.points for part in parts if not part.soft])
    low, high = points.min(axis=0), points.max(axis=0)
    longest = float((high - low).max())
    tilt = rng.normal(0, _TILTS.get(name or "", 1.5))
    if band is None or band == scene.sky:
        smallest, largest = _SKY_SIZES.get(name or "", _KITE_SIZES) if band else _STICKER_SIZES
        side = np.exp(rng.uniform(np.log(smallest), np.log(largest)))
        scale, distance = side / longest, 0.4 * (1 - side / largest) if band else 0.0
        top, bottom = band or (0.05 * height, 0.95 * height)
        y = rng.uniform(top, bottom) + scale * (low[1] + high[1]) / 2
        tilt = tilt if band else rng.uniform(-35, 35)
    else:
        start, end = max(band[0], scene.horizon + 0.05 * height), band[1] + 0.03 * height
        y = rng.uniform(start, max(end, start + 1))
        if neighbour is not None and band[0] <= neighbour.y <= band[1]:
            y = neighbour.y + rng.uniform(-0.05, 0.08) * height
        scale = (y - scene.horizon) / _EYE * _BUILDS.get(name or "", 1.0) * np.exp(rng.normal(0, 0.15))
        scale = min(max(scale, _STANDING_LEAST / longest), 0.7 * width / longest)
        distance = 0.5 * np.clip(1 - (y - scene.horizon) / (height - scene.horizon), 0, 1) ** 2
    x = rng.uniform(0.04, 0.96) * width
    if neighbour is not None:
        x = neighbour.x + rng.choice([-1, 1]) * rng.uniform(0.3, 0.9) * scale * longest
    pose = Pose(float(x), float(y), float(scale), float(tilt), bool(rng.random() < 0.5))
    return Thing(parts, pose, Light(scene.light.tint, scene.light.haze, float(distance)), name)
