"""The demo as a folder: every picture drawn, written and listed, once.

Six classes stand in meadows, towns, deserts, snow, on coasts, at sea and on plain textures, by day and by
night, near and far, behind trees, fences and each other, among things that only look like them.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.data.demo.layout import annotate, place_things
from utils.data.demo.objects import OBJECTS
from utils.data.demo.scenery import paint_scene
from utils.data.voc import VocObject, write_annotation

CLASS_NAMES: tuple[str, ...] = tuple(OBJECTS)
MARKER = "demo.json"
_VERSION = 1  # goes up whenever the pictures change, so that an older folder is made anew
_SPLITS = ("train", "val", "test")
_EMPTY_SHARE = 0.07


def make_demo(folder: Path | str, *, train: int = 240, val: int = 40, test: int = 80, seed: int = 0) -> Path:
    """Draw the data set into one VOC-layout folder, unless it is there already.

    Every picture is a function of (seed, split, index) alone: a larger set begins with the smaller one. A
    marker file is written first and completed last, so an interrupted folder is drawn anew.

    Args:
        folder: gets Annotations/, JPEGImages/, ImageSets/Main/{train,val,test}.txt and the marker demo.json.
        train: number of pictures in the split train.
        val: number of pictures in the split val.
        test: number of pictures in the split test.
        seed: another seed gives another set of the same kind.

    Returns:
        The folder.

    Raises:
        UserError: the folder holds files that are not a demo's, or cannot be written.
    """
    folder = Path(folder)
    names = {
        split: [f"{split}_{index:04d}" for index in range(count)]
        for split, count in zip(_SPLITS, (train, val, test), strict=True)
    }
    state = {
        "made_by": "train.py --demo",
        "version": _VERSION,
        "seed": seed,
        "train": train,
        "val": val,
        "test": test,
    }
    if _is_complete(folder, {**state, "complete": True}, names):
        return folder
    _prepare(folder)
    _write_marker(folder, {**state, "complete": False})
    for split, stems in names.items():
        for index, stem in enumerate(stems):
            image, objects = draw_sample(seed, split, index)
            _write_sample(folder, stem, image, objects)
        with atomic_write(folder / "ImageSets" / "Main" / f"{split}.txt", "w") as file:
            file.writelines(f"{stem}\n" for stem in stems)
    _write_marker(folder, {**state, "complete": True})
    return folder


def draw_sample(seed: int, split: str, index: int) -> tuple[np.ndarray, tuple[VocObject, ...]]:
    """Draw one picture.

    Returns:
        The image, uint8 (H, W, 3) RGB, 240 to 360 pixels high and 320 to 480 wide, and its objects. A box,
        edges in pixels, is tight around the visible part, as VOC's guidelines ask: around the pixels of which
        the object covers more than half. Difficult are the tiny ones and those of which little is seen.
    """
    rng = np.random.default_rng([seed, _SPLITS.index(split), index])
    height, width = int(rng.integers(240, 361)), int(rng.integers(320, 481))
    canvas, scene = paint_scene(rng, height, width)
    count = 0 if rng.random() < _EMPTY_SHARE else int(rng.integers(1, 8))
    things = place_things(rng, scene, width, height, count)
    for owner, thing in enumerate(things, start=1):
        canvas.draw(thing.parts, thing.pose, thing.light, owner)
    return _expose(rng, canvas.finish()), annotate(canvas, things)


def _expose(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Photograph the picture: darker corners, now and then soft focus, a little grain; uint8 in and out."""
    height, width = image.shape[:2]
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None] ** 2
    columns = np.linspace(-1, 1, width, dtype=np.float32) ** 2
    light = rng.uniform(0.97, 1.1) * (1 - rng.uniform(0, 0.09) * (rows + columns))
    exposed = image.astype(np.float32) * light[..., None].astype(np.float32)
    if rng.random() < 0.2:
        exposed = cv2.GaussianBlur(exposed, (0, 0), rng.uniform(0.5, 1.3))
    grain = rng.uniform(0, 5) if rng.random() < 0.7 else rng.uniform(5, 12)
    exposed += rng.standard_normal((height, width, 1), dtype=np.float32) * grain
    return cv2.convertScaleAbs(np.maximum(exposed, 0))


def _prepare(folder: Path) -> None:
    """Make the folders, unless something else lives there."""
    try:
        if folder.exists() and not (folder / MARKER).is_file() and any(folder.iterdir()):
            raise UserError(f"{folder}: holds files that are not the demo's; move them away")
        for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (folder / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot make the demo here: {error.strerror}", exit_code=1) from error


def _write_sample(folder: Path, stem: str, image: np.ndarray, objects: tuple[VocObject, ...]) -> None:
    height, width = image.shape[:2]
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    with atomic_write(folder / "JPEGImages" / f"{stem}.jpg") as file:
        file.write(encoded.tobytes())
    write_annotation(folder / "Annotations" / f"{stem}.xml", f"{stem}.jpg", width, height, objects)


def _write_marker(folder: Path, state: dict[str, object]) -> None:
    with atomic_write(folder / MARKER, "w") as file:
        json.dump(state, file, indent=2)
        file.write("\n")


def _is_complete(folder: Path, state: dict[str, object], names: dict[str, list[str]]) -> bool:
    """Tell whether the folder holds exactly this demo, with no file gone since."""
    try:
        if json.loads((folder / MARKER).read_text(encoding="utf-8")) != state:
            return False
    except (OSError, ValueError):
        return False
    lists = [folder / "ImageSets" / "Main" / f"{split}.txt" for split in names]
    images = [folder / "JPEGImages" / f"{stem}.jpg" for stems in names.values() for stem in stems]
    annotations = [folder / "Annotations" / f"{stem}.xml" for stems in names.values() for stem in stems]
    return all(path.is_file() for path in (*lists, *images, *annotations))
