"""COCO JSON for object detection, such as instances_train2017.json: reader and writer.

A box is [x1, y1, w, h] on edges in pixels. VOC's difficult objects are COCO's crowds (`iscrowd`), in both
directions: neither trained on nor scored. `ignore` says the same for readers that know it. An object without
a box gets the one around its polygons; CVAT's attribute `rotation`, in degrees, the one around the result.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from utils.cli.console import plural
from utils.cli.errors import UserError
from utils.cli.files import atomic_write, read_json
from utils.data.voc_xml import rotate
from utils.formats.image_folder import ImageFolder, note_unused
from utils.formats.intermediate import (
    ConvertedDataset,
    ConvertedImage,
    SourceDataset,
    SourceImage,
    SourceObject,
)
from utils.formats.parsing import (
    MAX_JSON_BYTES,
    clean_name,
    contains,
    enclosing_box,
    find_score,
    guess_split,
    is_marked,
    list_files,
    parse_numbers,
    path_inside,
    shown,
    to_class_name,
    to_numbers,
    to_size,
)

_SAMPLED = 100  # images whose files are looked for to find their folder
_OTHER_TASKS = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")
_MOST_FILES = 100  # of one data set beside each other; more JSON files are of another format


def find_coco_files(folder: Path) -> list[Path]:
    """List the JSON files in annotations/, else every _annotations.coco.json, which is Roboflow's.

    Without any, those in the folder itself, such as Label Studio's result.json. Files of COCO's other tasks,
    such as captions, and those without a list `images` count only where there are no others.
    """
    files = list(list_files(folder, (".json",)))
    inside = [path for path in files if path.parent.name.lower() == "annotations"]
    beside = [path for path in files if path.parent == folder]
    shaped = [path for path in inside if contains(path, b'"images"')]
    return (
        [path for path in shaped if not path.name.startswith(_OTHER_TASKS)]
        or shaped
        or inside
        or [path for path in files if path.name.lower() == "_annotations.coco.json"]
        or [path for path in beside if len(beside) <= _MOST_FILES and contains(path, b'"images"')]
    )


def read_coco(paths: Sequence[Path], images: Path | None = None) -> SourceDataset:
    """Read annotation files or those in one folder, each of which is a split if its name or folder says so.

    Each `file_name` is found below the folder `images` by `ImageFolder.find`; None searches the usual places.

    Raises:
        UserError: a file is not COCO JSON for object detection, or the images are not found.
    """
    files = [file for path in paths for file in (find_coco_files(path) if path.is_dir() else [path])]
    if not files:
        raise UserError(f"{paths[0]}: no COCO annotation file in it; give the .json file itself")
    source = SourceDataset()
    folder = ImageFolder(images) if images else None
    crowds: Counter[Path] = Counter()  # by image, which may be in two splits
    polygons: Counter[Path] = Counter()
    rotated: Counter[Path] = Counter()
    places = [images] if images else [path for path in paths if path.is_dir()]
    for file in files:
        reader = _Reader(file, source, folder)
        reader.read(file.stem if len(files) > 1 else None)
        crowds |= reader.crowds
        polygons |= reader.polygons
        rotated |= reader.rotated
        places += [reader.folder] if not images and not any(path.is_dir() for path in paths) else []
    if crowds:
        source.notes.append(f"{crowds.total()} crowds (iscrowd) become difficult objects with one box each")
    if polygons:
        source.notes.append(f"{polygons.total()} polygons without bbox become their enclosing box")
    if rotated:
        source.notes.append(f"{rotated.total()} rotated boxes become their enclosing box")
    source.notes += folder.notes() if folder else []
    there = (path for place in places for path in list_files(place))
    source.notes += note_unused(there, [image.path for image in source.images], "in no JSON file")
    unread = [path for root in paths if root.is_dir() for path in list_files(root, (".json",))]
    if unread := [path for path in unread if path not in files]:
        source.notes.append(f"{plural(len(unread), 'JSON file')} not read, such as {unread[0]}")
    return source


class _Reader:
    """Reads one file into a source data set."""

    def __init__(self, path: Path, source: SourceDataset, images: ImageFolder | None) -> None:
        self.path = path
        self.image_folder = images
        self.source = source
        self.crowds: Counter[Path] = Counter()
        self.polygons: Counter[Path] = Counter()
        self.rotated: Counter[Path] = Counter()
        self.data = read_json(path, MAX_JSON_BYTES)
        if not isinstance(self.data, dict) or not isinstance(self.data.get("images"), list):
            raise UserError(f"{path}: not COCO: it has no list `images`; name its format with --from")
        self.split = self._find_split()
        self.folder = images.folder if images else self._find_folder()
        self.categories = self._read_categories()
        self.images: dict[Any, SourceImage | None] = {}  # by id; None if its entry is faulty

    def read(self, default_split: str | None) -> None:
        """Add the images and their objects to the source."""
        split = self.split or default_split
        for number, entry in enumerate(self.data["images"], start=1):
            if fault := self._read_image(entry, (split,) if split else ()):
                self.source.image_faults.append(f"{self.path}: image {number}: {fault}")
        for number, entry in enumerate(self._list("annotations"), start=1):
            where = f"{self.path}: annotation {number}"
            if fault := self._read_annotation(where, entry):
                self.source.object_faults.append(f"{where}: {fault}")
        self.source.images += [image for image in self.images.values() if image is not None]

    def _list(self, name: str) -> list[Any]:
        found = self.data.get(name, [])
        if not isinstance(found, list):
            raise UserError(f"{self.path}: `{name}` is not a list")
        return found

    def _find_split(self) -> str | None:
        info = self.data.get("info")
        name = info.get("split") if isinstance(info, dict) else None  # written by write_coco
        if isinstance(name, str) and name and clean_name(name) == name:
            return name
        return guess_split(self.path.stem) or guess_split(self.path.parent.name)

    def _find_folder(self) -> Path:
        names = [e.get("file_name") for e in self.data["images"][:_SAMPLED] if isinstance(e, dict)]
        folder = self.path.parent
        stem = self.path.stem.removeprefix("instances_").lower()
        tops = (folder, folder.parent)
        bases = [place for top in tops for place in (top, *_subfolders(top, lambda name: name == "images"))]
        of_stem = [place for base in bases for place in _subfolders(base, lambda name: name == stem)]
        of_split = [place for base in bases for place in _subfolders(base, self._is_of_split)]
        for place in [*bases, *of_stem, *of_split]:
            paths = (path_inside(place, name) for name in names)
            if any(path is not None and os.path.isfile(path) for path in paths):
                return place
        if any(path_inside(folder, name) is not None for name in names):
            raise UserError(
                f"{self.path}: its images, such as {shown(names[0])}, are missing; give --images DIR"
            )
        return folder  # each entry is a fault of its own

    def _is_of_split(self, name: str) -> bool:
        return self.split is not None and self.split in (name, guess_split(name))

    def _read_categories(self) -> dict[Any, str]:
        categories: dict[Any, str] = {}
        for number, entry in enumerate(self._list("categories"), start=1):
            name = to_class_name(entry.get("name")) if isinstance(entry, dict) else None
            if name is None or not _is_id(entry.get("id")):
                raise UserError(f"{self.path}: category {number} has no valid name and id")
            if entry["id"] in categories:
                raise UserError(f"{self.path}: category {number}: duplicate id {shown(entry['id'])}")
            if name in categories.values():
                note = f"{self.path}: several categories are called {name!r} and become one class"
                self.source.notes += [] if note in self.source.notes else [note]
            categories[entry["id"]] = name
        self.source.class_names = tuple(dict.fromkeys([*self.source.class_names, *categories.values()]))
        return categories

    def _read_image(self, entry: Any, splits: tuple[str, ...]) -> str:
        """Keep one image; returns what is wrong with it, if anything."""
        if not isinstance(entry, dict) or not _is_id(entry.get("id")):
            return "has no valid id"
        image_id, name = entry["id"], entry.get("file_name")
        if image_id in self.images:
            return f"duplicate id {shown(image_id)}"
        self.images[image_id] = None
        if self.image_folder:
            try:
                path = self.image_folder.find(name)
            except ValueError as error:
                return f"file_name {error}"
        elif (inside := path_inside(self.folder, name)) is not None:
            path = inside
        else:
            return f"file_name {shown(name)} is no path inside {self.folder}; give --images DIR"
        size = to_size(entry.get("width"), entry.get("height"))
        self.images[image_id] = SourceImage(path, splits=splits, size=size)
        return ""

    def _read_annotation(self, where: str, entry: Any) -> str:
        """Add one object to its image; returns what is wrong with it, if anything."""
        if not isinstance(entry, dict):
            return "is not a JSON object"
        image_id, category = entry.get("image_id"), entry.get("category_id")
        if not _is_id(image_id) or image_id not in self.images:
            return f"image_id {shown(image_id)} is not among the images"
        if not _is_id(category) or category not in self.categories:
            return f"category_id {shown(category)} is not among the categories"
        image = self.images[image_id]
        if entry.get("bbox") is None:
            points = _polygon_points(entry.get("segmentation"))
            if not points:
                return "has no bbox"
            self.polygons.update([image.path] if image else [])
            box = enclosing_box(points)
        else:
            values = to_numbers(entry["bbox"])
            if values is None or len(values) != 4:
                return f"bbox {shown(entry['bbox'])} is not four pixel numbers x, y, width, height"
            if min(values[2:]) <= 0:
                return f"bbox {shown(entry['bbox'])}: width and height must be above 0"
            x, y, width, height = values
            box = x, y, _far_edge(x, width), _far_edge(y, height)
        attributes = entry.get("attributes")  # CVAT's
        rotation = attributes.get("rotation") if isinstance(attributes, dict) else None
        angle = parse_numbers([str(rotation or 0)])
        if angle is None:
            return f"rotation {shown(rotation)} is not a number of degrees"
        if any(angle):
            box = rotate(box, angle[0])
        is_crowd = is_marked("iscrowd", entry)
        if image is not None:  # otherwise the image is already a fault
            self.crowds[image.path] += is_crowd
            self.rotated[image.path] += any(angle)
            marks = (entry, attributes)
            difficult = is_crowd or is_marked("ignore", entry) or is_marked("difficult", *marks)
            score = find_score(*marks)
            image.objects.append(SourceObject(where, self.categories[category], box, difficult, score))
        return ""


def _subfolders(folder: Path, is_wanted: Callable[[str], bool]) -> list[Path]:
    """List the folders in a folder whose name, in lower case, is wanted."""
    return [path for path in sorted(folder.iterdir()) if is_wanted(path.name.lower()) and path.is_dir()]


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _far_edge(start: float, length: float) -> float:
    """Return start + length; edges of up to nine decimals survive a round trip exactly."""
    end = start + length
    short = round(end, 9)
    return short if abs(short - end) <= 4 * math.ulp(end) else end


def _polygon_points(polygons: Any) -> list[tuple[float, float]]:
    """Return the points of a segmentation [[x, y, x, y, ...], ...]; none if it is of another kind."""
    points: list[tuple[float, float]] = []
    for polygon in polygons if isinstance(polygons, list) else []:
        numbers = to_numbers(polygon)
        if numbers is None or len(numbers) % 2:
            return []
        points += zip(numbers[::2], numbers[1::2], strict=True)
    return points


def write_coco(folder: Path, dataset: ConvertedDataset) -> list[str]:
    """Write annotations/instances_<split>.json, whose file names start from images/; returns the files.

    `info.split` is the split's name. Image ids are positions in the list, category ids positions among the
    class names, both from 1.
    """
    (folder / "annotations").mkdir()
    written = []
    for split, images in (dataset.splits or {"all": dataset.images}).items():
        name = f"annotations/instances_{clean_name(split)}.json"
        with atomic_write(folder / name, "w") as file:
            json.dump(_as_coco(clean_name(split), images, dataset.class_names), file, ensure_ascii=False)
        written.append(name)
    return written


def _score_to_json(score: float) -> float | str:
    return score if math.isfinite(score) else str(score)  # JSON has no NaN


def _as_coco(split: str, images: Sequence[ConvertedImage], class_names: Sequence[str]) -> dict[str, Any]:
    ids = {name: number for number, name in enumerate(class_names, start=1)}
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, image in enumerate(images, start=1):
        size = {"width": image.width, "height": image.height}
        entries.append({"id": image_id, "file_name": image.file_name, **size})
        for item in image.objects:
            x1, y1, x2, y2 = item.box
            width, height = x2 - x1, y2 - y1
            annotation = {"id": len(annotations) + 1, "image_id": image_id, "category_id": ids[item.name]}
            box = {"bbox": [x1, y1, width, height], "area": width * height}
            flags = {"iscrowd": int(item.difficult), "ignore": int(item.difficult)}
            score = {} if item.score is None else {"score": _score_to_json(item.score)}
            annotations.append({**annotation, **box, **flags, **score})
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    return {"info": {"split": split}, "images": entries, "categories": categories, "annotations": annotations}
