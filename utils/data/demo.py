"""A small drawn data set of six classes for `train.py --demo`: made in seconds, works offline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.data.demo_drawings import COLORS, Part, draw, palette, tone
from utils.data.voc_xml import VocObject, write_annotation

CLASS_NAMES = ("balloon", "bird", "boat", "car", "house", "truck")
_VERSION = 2  # raise it whenever the pictures change: an older folder is then drawn anew
_SPLITS = ("train", "val", "test")
_EMPTY_SHARE = 0.07  # of the pictures have no object
_MIN_PIXELS = 12  # an object with fewer visible pixels is not annotated
_DIFFICULT_VISIBLE = 0.3  # an object is difficult if other things leave less of it visible,
_DIFFICULT_SIDE = 7  # or if its box has a shorter side than these pixels
_FINE = 2  # canvas pixels a side for each pixel of the picture
_EYE = 5.0  # meters above the ground: sets how fast things grow towards the viewer

_HOURS = {  # probability; colors of the upper sky, the lower sky, the light, the clouds, the sun or the moon
    "noon": (0.32, "4288ce c4e0f0 ffffff fafafc fffae0"),
    "morning": (0.2, "76a8d6 fae2c4 fff8e6 faf6f2 fffae0"),
    "dusk": (0.16, "463e78 f89e66 e0b2ae e89682 ffd696"),
    "overcast": (0.17, "969ea8 ced2d4 d6dbe0 dee0e2 dee0e2"),
    "night": (0.15, "0c102c 303a68 566194 3c4264 ececd8"),
}
_SEA = "5a96b4 184a74 78b4b4 1e6878 466e96 142c5a"
_LANDS = {  # probability; pairs of a far and a near color of the ground; colors of hills, of plants; clutter
    "meadow": (0.23, "96b068 4a7c34 c8ba6c 96863e 80a670 34683c", "54765c", "6e963c f0d25a ececec d6545a",
               "tree tree fir bush fence rock tent sign"),
    "desert": (0.1, "e2c492 c48c54 d8a078 aa6242", "be8260", "8c6442 787e46", "rock bush tent sign"),
    "snow": (0.12, "dee6f0 f4f7fa", "aabace", "c4d0e2 a0968c", "fir fir bush fence rock tent"),
    "town": (0.22, "969698 68686e aaa092 7a7268", "707482", "5c6e4c", "tree lamppost sign bush container"),
    "coast": (0.18, "e2cea0 ceb07a 92aa6e 608246", "54765c", "828c54 e0cca0", "tree bush fence rock tent"),
    "sea": (0.15, _SEA, "54765c", _SEA, "buoy"),
}  # fmt: skip
_BANDS = {"balloon": "sky", "bird": "sky", "kite": "sky", "plane": "sky", "boat": "water", "buoy": "water"}
_SIZES = {"balloon": (24, 130), "bird": (17, 80)}  # longer side in the sky, in pixels
_TILTS = {"balloon": 5.0, "bird": 16.0, "boat": 4.0, "house": 0.4}  # standard deviation, degrees
_REDUCED = {"house": 0.62, "car": 1.2, "tree": 0.7, "fir": 0.7}  # a real house would fill the picture


class Thing(NamedTuple):
    """Something drawn in one piece, such as an object of a class."""

    name: str
    parts: list[Part]
    x: float  # of its origin, in pixels
    y: float
    scale: float  # pixels per meter
    angle: float = 0.0  # degrees, clockwise
    haze: float = 0.0  # how much the distance pales it, 0 to 1


class Picture:
    """A picture in the making: colors, and for every canvas pixel the owner of what is on top (0: nobody)."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Choose the size, the land and the hour, and paint the background."""
        self.rng, self.height, self.width = rng, int(rng.integers(240, 361)), int(rng.integers(320, 481))
        tables = (_LANDS, _HOURS)
        land, hour = (str(rng.choice([*rows], p=[row[0] for row in rows.values()])) for rows in tables)
        _, ground, hills, plants, self.clutter = _LANDS[land]
        upper, lower, light, cloud, sun = palette(_HOURS[hour][1])
        self.night, self.light, self.haze = hour == "night", light / 255, lower * 0.85 + 19
        scenery = {"cloud": cloud[None], "sun": sun[None], "hill": palette(hills), "plant": palette(plants)}
        self.colors = COLORS | scenery

        self.horizon = horizon = round(self.height * rng.uniform(0.36, 0.62))
        water = {"coast": rng.uniform(0.3, 0.55), "sea": 1}.get(land, 0)  # share of what is below the horizon
        shore = horizon + round((self.height - horizon) * water)
        bands = {"sky": (0, horizon), "water": (horizon, shore), "land": (shore, self.height)}
        self.bands = {name: band for name, band in bands.items() if band[0] < band[1]}
        fade = np.linspace(0, 1, horizon)[:, None, None] ** rng.uniform(0.8, 1.6)
        sky = np.broadcast_to(upper + (lower - upper) * fade, (horizon, self.width, 3))
        sea = self._paint_ground(shore - horizon, _SEA, ripples=1.4)
        image = np.vstack([sky, sea, self._paint_ground(self.height - shore, ground, ripples=0)])
        self.pixels = cv2.resize(np.clip(image, 0, 255).astype(np.uint8), None, fx=_FINE, fy=_FINE)
        self.owner = np.zeros(self.pixels.shape[:2], np.uint8)

        is_land, far = "land" in self.bands, "skyline" if land == "town" else "hills"
        tree, depth, unit = "fir" if land == "snow" else "tree", self.height - shore, self.width / 20
        for name, most, edge, first, last, small, large, haze in (
            ("stars", 20 * self.night, 0, 0, horizon, 0.3, 0.8, 0),
            ("sun", hour != "overcast", 0.1, 0.1 * horizon, 0.7 * horizon, 8, 16, 0),
            ("cloud", 6, 0, 0, 0.8 * horizon, 5, 15, 0),
            (far, 1 + is_land, 0.4, horizon, horizon, unit, 1.4 * unit, 0.7),
            (far, is_land, 0.4, horizon, horizon, 0.75 * unit, unit, 0.4),
            ("road", is_land, 0.2, shore, shore, depth, depth, 0),
            (tree, 8 * is_land, 0, shore, shore + 0.04 * self.height, 2, 4.5, 0.4),
        ):
            for _ in range(round(most * rng.uniform(0.3, 1))):
                x, y = rng.uniform(edge, 1 - edge) * self.width, rng.uniform(first, last)
                parts = draw(rng, name, self.colors, night=self.night)
                self.draw(Thing(name, parts, x, y, rng.uniform(small, large), haze=haze))
        for _ in range(rng.integers(25) * is_land):
            self.draw(self.place("plants"))

    def _paint_ground(self, height: int, colors: str, ripples: float) -> np.ndarray:
        """Return rows of ground or water, (height, W, 3), rougher towards the viewer."""
        far, near = self.rng.choice(palette(colors).reshape(-1, 2, 3))
        depth, rough = np.linspace(0, 1, height)[:, None, None], np.zeros((height, self.width))
        for size, weight in ((32, 1), (16, 0.5), (8, 0.3), (4, ripples), (2, ripples / 2)):
            noise = self.rng.normal(0, weight, (height // size + 2, self.width // (size * 5) + 2))
            rough += cv2.resize(noise, (self.width, height or 1), interpolation=cv2.INTER_CUBIC)[:height]
        return (far + (near - far) * depth + rough[..., None] * (2 + 6 * depth)) * self.light

    def place(self, name: str, neighbor: Thing | None = None) -> Thing:
        """Put a thing where it belongs, at the side of its neighbor if it has one."""
        rng, band = self.rng, _BANDS.get(name, "land")
        parts = draw(rng, name, self.colors, night=self.night)
        points = np.vstack([part.points for part in parts if not part.opacity])
        length = np.ptp(points, axis=0).max()
        first, last = self.bands[band]
        x, y = rng.uniform(0.04, 0.96) * self.width, first + (last - first) * rng.uniform(0.08, 1.04)
        if band == "sky":
            low, high = _SIZES.get(name, (16, 60))
            size = low * (high / low) ** rng.uniform()
            scale, haze = size / length, 0.4 * (1 - size / high)
            y += scale * points[:, 1].mean()
        else:
            if neighbor and _BANDS.get(neighbor.name, "land") == band:
                y = neighbor.y + rng.uniform(-0.05, 0.08) * self.height
            below = max(y - self.horizon, 0.04 * self.height)
            scale = below / _EYE * _REDUCED.get(name, 1) * np.exp(rng.normal(0, 0.15))
            scale = np.clip(scale, 11 / length if name in CLASS_NAMES else 0, 0.7 * self.width / length)
            haze = 0.5 * max(1 - below / (self.height - self.horizon), 0) ** 2
        if neighbor:
            side = rng.choice([-1, 1]) * rng.uniform(0.3, 0.9) * length * scale
            x = np.clip(neighbor.x + side, 0, self.width)
        return Thing(name, parts, x, y, scale, rng.normal(0, _TILTS.get(name, 1.5)), haze)

    def draw(self, thing: Thing, owner: int = 0) -> int:
        """Draw the parts of a thing one over the other; return how many canvas pixels its owner has then."""
        cosine, sine = np.cos(np.radians(thing.angle)), np.sin(np.radians(thing.angle))
        matrix = np.array([[cosine, sine], [sine, -cosine]]) * thing.scale
        for part in thing.parts:
            points = (part.points @ matrix + (thing.x, thing.y)) * _FINE - 0.5  # whole numbers: pixel centers
            (left, top), (right, foot) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
            x1, y1, x2, y2 = (max(int(edge), 0) for edge in (left - 1, top - 1, right + 3, foot + 3))
            region = self.pixels[y1:y2, x1:x2]
            if not region.size:
                continue
            rows, columns = region.shape[:2]
            weight = np.zeros((rows, columns), np.float32)
            down = (np.arange(y1, y1 + rows)[:, None] - top) / max(foot - top, 1)  # from 0 to 1
            if part.opacity:
                across = (np.arange(x1, x1 + columns) - left) / max(right - left, 1)
                weight[:] = part.opacity * np.maximum(1 - (2 * across - 1) ** 2 - (2 * down - 1) ** 2, 0)
            else:
                outline = [np.round((points - (x1, y1)) * 16).astype(np.int32)]
                cv2.fillPoly(weight, outline, 1, shift=4)
                cv2.fillPoly(self.owner[y1:y2, x1:x2], outline, owner, shift=4)
            color = part.color * (1 if part.is_bright else self.light)
            color += (self.haze - color) * thing.haze
            shades = tone(color, 0.18) * (1 - down) + tone(color, -0.22) * down  # darker towards the foot
            layer = np.repeat(np.clip(shades, 0, 255).astype(np.uint8)[:, None], columns, axis=1)
            region[:] = cv2.blendLinear(layer, region, weight, 1 - weight)
        return int(np.count_nonzero(self.owner == owner)) if owner else 0

    def annotate(self, things: Sequence[Thing]) -> tuple[VocObject, ...]:
        """Draw things one over the other and describe those of a class that are still visible."""
        drawn = [self.draw(thing, owner) for owner, thing in enumerate(things, start=1)]
        found = []
        for owner, (thing, area) in enumerate(zip(things, drawn, strict=True), start=1):
            mask = cv2.inRange(self.owner, owner, owner)
            seen = cv2.resize(mask, (self.width, self.height), interpolation=cv2.INTER_AREA) > 128
            if thing.name not in CLASS_NAMES or np.count_nonzero(seen) < _MIN_PIXELS:
                continue
            rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
            x1, y1, x2, y2 = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
            hidden = np.count_nonzero(mask) < _DIFFICULT_VISIBLE * area
            difficult = bool(hidden) or min(x2 - x1, y2 - y1) < _DIFFICULT_SIDE
            found.append(VocObject(thing.name, (x1, y1, x2, y2), difficult))
        return tuple(found)


def draw_sample(seed: int, split: str, index: int) -> tuple[np.ndarray, tuple[VocObject, ...]]:
    """Draw one picture.

    Returns:
        The image, uint8 (H, W, 3) RGB, 240 to 360 pixels high and 320 to 480 wide, and its objects. A box,
        edges in pixels, is tight around the visible part: pixels of which the object covers more than half.
        Tiny and mostly hidden objects are difficult.
    """
    rng = np.random.default_rng([seed, _SPLITS.index(split), index])
    picture = Picture(rng)
    names = (*CLASS_NAMES, "boat", "boat"), (*picture.clutter.split(), "kite", "plane", "buoy")
    objects, clutter = ([name for name in row if _BANDS.get(name, "land") in picture.bands] for row in names)
    things: list[Thing] = []
    for name in rng.choice(objects, 0 if rng.random() < _EMPTY_SHARE else rng.integers(1, 8)):
        things.append(picture.place(str(name), things[-1] if things and rng.random() < 0.35 else None))
    things += [picture.place(str(name)) for name in rng.choice(clutter, rng.integers(1, 8))]
    annotations = picture.annotate(sorted(things, key=lambda thing: thing.y))

    size = height, width = picture.height, picture.width
    image = cv2.resize(picture.pixels, size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
    edge = np.linspace(-1, 1, height)[:, None] ** 2 + np.linspace(-1, 1, width) ** 2
    image *= (rng.uniform(0.97, 1.1) * (1 - rng.uniform(0, 0.09) * edge))[..., None]  # darker corners
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.3))
    image += rng.choice([1, 2, 4, 8]) * rng.standard_normal((*size, 1), dtype=np.float32)  # grain
    return np.clip(image, 0, 255).astype(np.uint8), annotations


def make_demo(folder: Path | str, *, train: int = 240, val: int = 40, test: int = 80, seed: int = 0) -> Path:
    """Draw the data set into a folder in VOC layout, unless it is there already; return the folder.

    A picture is a function of (seed, split, index) alone: a larger set begins with the smaller one. The
    marker file demo.json is written first and completed last: an interrupted folder is drawn anew.

    Args:
        folder: gets Annotations/, JPEGImages/, ImageSets/Main/{train,val,test}.txt and demo.json.
        train: number of pictures in the split train.
        val: number of pictures in the split val.
        test: number of pictures in the split test.
        seed: another seed gives another set of the same kind.

    Raises:
        UserError: the folder has files that are not the demo's, or cannot be written.
    """
    folder, counts = Path(folder), dict(zip(_SPLITS, (train, val, test), strict=True))
    state = {"made_by": "train.py --demo", "version": _VERSION, "seed": seed, **counts}
    samples = [(split, index) for split, count in counts.items() for index in range(count)]
    images = {sample: folder / "JPEGImages" / "{}_{:04d}.jpg".format(*sample) for sample in samples}
    xmls = {sample: folder / "Annotations" / f"{path.stem}.xml" for sample, path in images.items()}
    lists = {split: folder / "ImageSets" / "Main" / f"{split}.txt" for split in _SPLITS}
    marker = folder / "demo.json"
    with suppress(OSError, ValueError):
        complete = json.loads(marker.read_text(encoding="utf-8")) == {**state, "complete": True}
        if complete and all(path.is_file() for path in (*images.values(), *xmls.values(), *lists.values())):
            return folder
    try:
        if folder.exists() and not marker.is_file() and any(folder.iterdir()):
            raise UserError(f"{folder}: has files that are not the demo's; move them away")
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot make the demo here: {error.strerror}", exit_code=1) from error
    _write(marker, json.dumps({**state, "complete": False}, indent=2))
    for sample, path in images.items():
        image, objects = draw_sample(seed, *sample)
        _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        with atomic_write(path) as file:
            file.write(encoded.tobytes())
        write_annotation(xmls[sample], path.name, image.shape[1], image.shape[0], objects)
    for split, path in lists.items():
        _write(path, *(images[sample].stem for sample in samples if sample[0] == split))
    _write(marker, json.dumps({**state, "complete": True}, indent=2))
    return folder


def _write(path: Path, *lines: str) -> None:
    with atomic_write(path, "w") as file:
        file.writelines(f"{line}\n" for line in lines)
