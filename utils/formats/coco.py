"""COCO's JSON for object detection: instances_train2017.json and its like.

A box is [x1, y1, w, h] on edges in pixels. `ignore` is VOC's difficult flag; a crowd (`iscrowd`) becomes a
difficult object, which is neither learnt nor scored. An object without box gets the one around its polygons.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.data.voc import Box
from utils.formats.dataset import Dataset, Picture
from utils.formats.reading import (
    MAX_JSON_BYTES,
    clean_name,
    list_files,
    path_inside,
    read_json,
    shown,
    to_class_name,
    to_number,
    to_size,
)
from utils.formats.source import Source, SourceImage, SourceObject, guess_split, polygon_box

_LOOKED_FOR = 100  # images that are tried to find the folder


def find_files(folder: Path) -> list[Path]:
    """List the annotation files of a data set in one of the usual layouts.

    These are annotations/instances_*.json (else annotations/*.json) and _annotations.coco.json in the folder
    or in folders below it.
    """
    inside = sorted((folder / "annotations").glob("*.json"))
    return (
        [path for path in inside if path.name.startswith("instances_")]
        or inside
        or [path for path in list_files(folder, (".json",)) if path.name == "_annotations.coco.json"]
    )


def read_coco(paths: Sequence[Path], images: Path | None = None) -> Source:
    """Read annotation files, each of which is a split where its name or folder says so.

    Args:
        paths: the JSON files, or one folder that `find_files` understands.
        images: the folder that each `file_name` starts from; None looks in the usual places.

    Raises:
        UserError: a file is no COCO JSON for object detection, or the images are not found.
    """
    files = [file for path in paths for file in (find_files(path) if path.is_dir() else [path])]
    if not files:
        raise UserError(f"{paths[0]}: no annotation file of COCO in it; name the .json file itself")
    source = Source()
    crowds = polygons = 0
    for file in files:
        reader = _Reader(file, source, images)
        split = reader.split or (file.stem if len(files) > 1 else None)
        reader.read(() if split is None else (split,))
        crowds += reader.crowds
        polygons += reader.polygons
    if crowds:
        source.notes.append(f"{crowds} crowds (iscrowd) become difficult objects, as one box each")
    if polygons:
        source.notes.append(f"{polygons} polygons without bbox become the box around them")
    return source


class _Reader:
    """Reads one file into a source."""

    def __init__(self, path: Path, source: Source, images: Path | None) -> None:
        self.path = path
        self.source = source
        self.crowds = self.polygons = 0
        self.data = read_json(path, MAX_JSON_BYTES)
        if not isinstance(self.data, dict) or not isinstance(self.data.get("images"), list):
            raise UserError(f"{path}: not COCO: it has no list `images`; is it another format (--from)?")
        self.split = self._find_split()
        self.images = images or self._find_images()
        self.categories = self._read_categories()

    def read(self, splits: tuple[str, ...]) -> None:
        """Add the images and their objects to the source."""
        known: dict[Any, SourceImage | None] = {}
        for number, entry in enumerate(self.data["images"], start=1):
            self._read_image(f"{self.path}: image {number}", entry, splits, known)
        for number, entry in enumerate(self._list("annotations"), start=1):
            where = f"{self.path}: annotation {number}"
            fault = self._read_annotation(where, entry, known)
            if fault:
                self.source.object_faults.append(f"{where}: {fault}")
        self.source.images += [image for image in known.values() if image is not None]

    def _list(self, name: str) -> list[Any]:
        found = self.data.get(name, [])
        if not isinstance(found, list):
            raise UserError(f"{self.path}: `{name}` is no list")
        return found

    def _find_split(self) -> str | None:
        info = self.data.get("info")
        said = info.get("split") if isinstance(info, dict) else None  # what we write
        if isinstance(said, str) and said and clean_name(said) == said:
            return said
        return guess_split(self.path.stem) or guess_split(self.path.parent.name)

    def _find_images(self) -> Path:
        names = [e.get("file_name") for e in self.data["images"][:_LOOKED_FOR] if isinstance(e, dict)]
        folder = self.path.parent
        stem = self.path.stem.removeprefix("instances_")
        bases = [folder, folder / "images", folder.parent, folder.parent / "images"]
        places = [*bases, *(base / part for part in (stem, self.split) if part for base in bases)]
        for place in places:
            paths = (path_inside(place, name) for name in names)
            if any(path is not None and os.path.isfile(path) for path in paths):
                return place
        if any(isinstance(name, str) and path_inside(folder, name) is not None for name in names):
            raise UserError(
                f"{self.path}: its images, such as {shown(names[0])}, are missing; give --images DIR"
            )
        return folder  # each entry is a fault that says more

    def _read_categories(self) -> dict[Any, str]:
        categories: dict[Any, str] = {}
        for number, entry in enumerate(self._list("categories"), start=1):
            name = to_class_name(entry.get("name")) if isinstance(entry, dict) else None
            if name is None or not _is_id(entry.get("id")):
                raise UserError(f"{self.path}: category {number} has no usable name and id")
            if entry["id"] in categories:
                raise UserError(f"{self.path}: category {number}: the id {shown(entry['id'])} comes twice")
            categories[entry["id"]] = name
        names = dict.fromkeys([*self.source.class_names, *categories.values()])
        self.source.class_names = tuple(names)
        return categories

    def _read_image(
        self, where: str, entry: Any, splits: tuple[str, ...], known: dict[Any, SourceImage | None]
    ) -> None:
        faults = self.source.image_faults
        if not isinstance(entry, dict) or not _is_id(entry.get("id")):
            faults.append(f"{where}: has no usable id")
            return
        name, image_id = entry.get("file_name"), entry["id"]
        if image_id in known:
            faults.append(f"{where}: the id {shown(image_id)} comes twice")
            return
        path = path_inside(self.images, name)
        known[image_id] = None
        if path is None:
            faults.append(f"{where}: file_name {shown(name)} is no path inside {self.images}")
        else:
            size = to_size(entry.get("width"), entry.get("height"))
            known[image_id] = SourceImage(path, splits=splits, size=size)

    def _read_annotation(self, where: str, entry: Any, known: dict[Any, SourceImage | None]) -> str:
        """Add one object to its image; return what is wrong with it, if something is."""
        if not isinstance(entry, dict):
            return "is no object with names and values"
        image_id, category = entry.get("image_id"), entry.get("category_id")
        if not _is_id(image_id) or image_id not in known:
            return f"image_id {shown(image_id)} is not among the images"
        if not _is_id(category) or category not in self.categories:
            return f"category_id {shown(category)} is not among the categories"
        box, fault = self._read_box(entry)
        if box is None:
            return fault
        crowd = entry.get("iscrowd") == 1
        self.crowds += crowd
        image = known[image_id]
        if image is not None:  # else the image has its own fault
            difficult = crowd or entry.get("ignore") == 1
            image.objects.append(SourceObject(where, self.categories[category], box, difficult))
        return ""

    def _read_box(self, entry: dict[str, Any]) -> tuple[Box | None, str]:
        if entry.get("bbox") is None:
            points = _polygon_points(entry.get("segmentation"))
            self.polygons += bool(points)
            return (polygon_box(points), "") if points else (None, "has no bbox")
        values = entry["bbox"] if isinstance(entry["bbox"], list) else []
        numbers = [number for number in map(to_number, values) if number is not None]
        said = shown(entry["bbox"])
        if len(values) != 4 or len(numbers) != 4:
            return None, f"bbox {said} is not four pixel numbers x, y, width, height"
        x, y, width, height = numbers
        if width <= 0 or height <= 0:
            return None, f"bbox {said}: width and height must be above 0"
        return (x, y, _far_edge(x, width), _far_edge(y, height)), ""


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _far_edge(start: float, length: float) -> float:
    """Return start + length; up to nine decimals come out as they were before an edge was taken off."""
    end = start + length
    short = round(end, 9)
    return short if abs(short - end) <= 4 * math.ulp(end) else end


def _polygon_points(polygons: Any) -> list[tuple[float, float]]:
    """Return the points of a segmentation [[x, y, x, y, ...], ...]; nothing if it is of another kind."""
    if not isinstance(polygons, list) or not all(isinstance(part, list) for part in polygons):
        return []
    points: list[tuple[float, float]] = []
    for part in polygons:
        numbers = [number for number in map(to_number, part) if number is not None]
        if len(numbers) != len(part) or len(part) % 2:
            return []
        points += zip(numbers[::2], numbers[1::2], strict=True)
    return points


def write_coco(folder: Path, dataset: Dataset) -> list[str]:
    """Write annotations/instances_<split>.json, whose file names start from images/.

    `info.split` holds the split's name; image ids are the places in the list and category ids the places
    among the class names, from 1.

    Returns:
        The names of the files, from the folder.
    """
    (folder / "annotations").mkdir()
    written = []
    for split, pictures in (dataset.splits or {"all": dataset.pictures}).items():
        name = f"annotations/instances_{clean_name(split)}.json"
        with atomic_write(folder / name, "w") as file:
            json.dump(_lay_out(clean_name(split), pictures, dataset.class_names), file, ensure_ascii=False)
        written.append(name)
    return written


def _lay_out(split: str, pictures: Sequence[Picture], class_names: Sequence[str]) -> dict[str, Any]:
    ids = {name: number for number, name in enumerate(class_names, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, picture in enumerate(pictures, start=1):
        size = {"width": picture.width, "height": picture.height}
        images.append({"id": image_id, "file_name": picture.file_name, **size})
        for item in picture.objects:
            x1, y1, x2, y2 = item.box
            width, height = x2 - x1, y2 - y1
            annotation = {"id": len(annotations) + 1, "image_id": image_id, "category_id": ids[item.name]}
            box = {"bbox": [x1, y1, width, height], "area": width * height}
            annotations.append({**annotation, **box, "iscrowd": 0, "ignore": int(item.difficult)})
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    return {"info": {"split": split}, "images": images, "categories": categories, "annotations": annotations}
