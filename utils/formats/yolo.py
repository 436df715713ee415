"""YOLO's label files: a text an image, a line `class cx cy w h` an object, in fractions of the image.

The layouts are those of ultralytics (images/train beside labels/train), of Roboflow (train/images beside
train/labels), and images with their labels side by side; the last folder `images` of an image's path is
`labels` in its label's. A data.yaml gives names and splits; without it names come from classes.txt or a
.names file, and splits from folders train, val and test. An image without a label file is one without
objects. A line of points, `class x1 y1 x2 y2 x3 y3 ...`, becomes the box around them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from utils.cli.class_names import read_class_names
from utils.cli.errors import UserError
from utils.data.layout import IMAGE_SUFFIXES
from utils.data.voc import Box
from utils.formats.reading import (
    list_files,
    parse_numbers,
    path_inside,
    read_text,
    read_yaml,
    shown,
    to_class_name,
)
from utils.formats.source import Source, SourceImage, SourceObject, folder_split, polygon_box

_SPLITS = ("train", "val", "test")  # keys of data.yaml
_NAMES_FILES = ("classes.txt", "labels/classes.txt")
_TOLERANCE = 0.01  # by which a fraction may miss [0, 1], as rounding makes it


def find_yaml(source: Path) -> Path | None:
    """Return the file that describes a YOLO data set: the source itself, or the one in its folder.

    Raises:
        UserError: there are several, none of which is data.yaml.
    """
    if source.is_file():
        return source
    found = sorted([*source.glob("*.yaml"), *source.glob("*.yml")])
    if len(found) > 1 and source / "data.yaml" not in found:
        raise UserError(f"{source}: name one of {found[0].name} and {found[1].name} as SOURCE")
    return source / "data.yaml" if len(found) > 1 else next(iter(found), None)


def read_yolo(source: Path, class_names: Sequence[str] = (), images: Path | None = None) -> Source:
    """Read a data set of label files.

    Args:
        source: the folder, or the data.yaml in it.
        class_names: behind the class numbers; without them the data set must name its own.
        images: the images where they are not beside the labels; a label has the same place below `source`.

    Raises:
        UserError: no class names, no images, or a data.yaml that leads nowhere.
    """
    yaml_path = find_yaml(source)
    root = yaml_path.parent if yaml_path else source
    config = read_yaml(yaml_path) if yaml_path else {}
    found = Source(class_names=tuple(class_names) or _read_names(yaml_path or root, root, config))
    reader = _Reader(root, found, has_keypoints="kpt_shape" in config)
    if images is not None:
        reader.read_folder(images, None)
    elif any(config.get(split) for split in _SPLITS):
        _read_configured(reader, yaml_path or root, config)
    else:
        reader.read_folder(root / "images" if (root / "images").is_dir() else root, None)
    if not found.images and not found.image_faults:
        raise UserError(f"{source}: no images in it; give --images DIR")
    reader.finish()
    return found


def _read_configured(reader: _Reader, yaml_path: Path, config: dict[str, Any]) -> None:
    for split in _SPLITS:
        entries = config.get(split) or []
        for entry in entries if isinstance(entries, list) else [entries]:
            place = _resolve(yaml_path, config.get("path"), entry)
            if place.is_dir():
                reader.read_folder(place, split)
            else:
                reader.read_list(place, split)


class _Reader:
    """Collects images and their labels into a source."""

    def __init__(self, root: Path, source: Source, has_keypoints: bool) -> None:
        self.root = Path(os.path.abspath(root))
        self.source = source
        self.has_keypoints = has_keypoints
        self.polygons = self.unlabelled = 0
        self.labels: set[Path] = set()  # those of the images that were found
        self.label_folders: set[Path] = set()

    def read_folder(self, folder: Path, split: str | None) -> None:
        """Read all images below a folder; without a split, folders train, val and test are splits."""
        folder = Path(os.path.abspath(folder))
        if split is None:  # these are all the images, so that no label may be left over
            self.label_folders |= {path.parent for path in (self.root / "labels").rglob("*.txt")}
        for path in list_files(folder):
            below = path.relative_to(folder).parts[:-1]
            named = folder_split(below[0]) if below else None
            is_inside = self.root in path.parents
            label = _label_of(path, self.root) if is_inside else self._label_elsewhere(path, folder)
            if not os.path.exists(label) and os.path.exists(other := self._label_elsewhere(path, folder)):
                label = other
            if label.parent != path.parent:
                self.label_folders.add(label.parent)
            self._read_image(path, label, split or named)

    def read_list(self, path: Path, split: str) -> None:
        """Read the images that a text file names, a path a line."""
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            text = line.strip()
            bases = (path.parent, self.root)
            places = [place for base in bases if (place := path_inside(self.root, text, base)) is not None]
            if text and not places:
                fault = f"{path}: line {number}: {text[-80:]!r} leads out of {self.root}"
                self.source.image_faults.append(fault)
            elif text:
                image = next((place for place in places if os.path.exists(place)), places[0])
                self._read_image(image, _label_of(image, self.root), split)

    def finish(self) -> None:
        """Note what was met on the way, and find the labels that have no image."""
        if self.polygons:
            self.source.notes.append(f"{self.polygons} polygons become the box around them")
        if self.unlabelled:
            note = f"{self.unlabelled} images have no label file and count as images without objects"
            self.source.notes.append(note)
        stems = {path.stem for path in self.labels}
        for folder in sorted(self.label_folders):
            for path in sorted(folder.glob("*.txt")):
                if path not in self.labels and path.name != "classes.txt":
                    hint = " (an image of that name has its label elsewhere)" if path.stem in stems else ""
                    self.source.image_faults.append(f"{path}: no image belongs to this label{hint}")

    def _label_elsewhere(self, path: Path, images: Path) -> Path:
        inside = path.relative_to(images).with_suffix(".txt")
        folder = self.root / "labels" if (self.root / "labels").is_dir() else self.root
        return folder / inside

    def _read_image(self, path: Path, label: Path, split: str | None) -> None:
        image = SourceImage(path, splits=(split,) if split else (), fractions=True)
        self.labels.add(label)
        if not os.path.exists(label):
            self.unlabelled += os.path.exists(path)
            self.source.images.append(image)
            return
        try:
            lines = read_text(label).splitlines()
        except UserError as error:
            self.source.image_faults.append(str(error))
            return
        for number, line in enumerate(lines, start=1):
            where = f"{label}: line {number}"
            fault = self._read_object(where, line.split(), image) if line.strip() else ""
            if fault:
                self.source.object_faults.append(f"{where}: {fault}")
        self.source.images.append(image)

    def _read_object(self, where: str, words: list[str], image: SourceImage) -> str:
        """Add one line to its image; return what is wrong with it, if something is."""
        numbers = parse_numbers(words)
        said = " ".join(words)[:60]
        if numbers is None:
            return f"{said!r} is not all numbers"
        label, values = numbers[0], numbers[1:]
        names = self.source.class_names
        if not label.is_integer() or not 0 <= label < len(names):
            return f"class {words[0][:20]}, but there are {len(names)} class names (from 0)"
        if self.has_keypoints:
            values = values[:4]
        is_polygon = len(values) >= 6 and len(values) % 2 == 0
        if len(values) != 4 and not is_polygon:
            return f"{said!r} is neither `class cx cy w h` nor a polygon"
        if not all(-_TOLERANCE <= value <= 1 + _TOLERANCE for value in values):
            return f"{said!r} has a number that is not between 0 and 1, a fraction of the image"
        if not is_polygon and min(values[2:]) <= 0:
            return f"{said!r} has no width or height"
        self.polygons += is_polygon
        box = polygon_box(list(zip(values[::2], values[1::2], strict=True))) if is_polygon else _edges(values)
        image.objects.append(SourceObject(where, names[int(label)], box))
        return ""


def _edges(values: Sequence[float]) -> Box:
    cx, cy, width, height = values
    return cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2


def _label_of(image: Path, root: Path) -> Path:
    """Return where the label of an image lies: the last folder `images` (or JPEGImages) becomes `labels`."""
    parts = list(image.relative_to(root).parts)
    places = [index for index, part in enumerate(parts[:-1]) if part in ("images", "JPEGImages")]
    if places:
        parts[places[-1]] = "labels"
    return root.joinpath(*parts).with_suffix(".txt")


def _resolve(yaml_path: Path, base: Any, entry: Any) -> Path:
    """Find a folder or list of data.yaml without leaving the folder of the file.

    `path` is often another machine's, and Roboflow writes ../train/images for train/images.
    """
    root = yaml_path.parent
    for place in _places(root, base, entry):
        if place.exists():
            return place
    raise UserError(
        f"{yaml_path}: {shown(entry)} is not found in {root}, and nothing outside is read; put the "
        "file into the folder of the data"
    )


def _places(root: Path, base: Any, entry: Any) -> Iterator[Path]:
    if not isinstance(entry, str):
        return
    stripped = entry
    while stripped.startswith("../"):
        stripped = stripped[3:]
    starts = [start for start in (path_inside(root, base), Path(os.path.abspath(root))) if start is not None]
    for start in starts:
        for text in (entry, stripped):
            place = path_inside(root, text, start)
            if place is not None:
                yield place


def _read_names(where: Path, root: Path, config: dict[str, Any]) -> tuple[str, ...]:
    names = config.get("names")
    if names is None:
        files = [path for name in _NAMES_FILES if (path := root / name).is_file()]
        files += sorted(root.glob("*.names"))
        if not files:
            raise UserError(f"{where}: no class names in it; give --classes FILE, a name a line")
        return read_class_names(files[0])
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise UserError(f"{where}: the keys of `names` are not 0, 1, 2 ...; give --classes FILE")
        names = [names[number] for number in range(len(names))]
    usable = [to_class_name(name) for name in names] if isinstance(names, list) else []
    found = tuple(name for name in usable if name is not None)
    if not found or len(found) != len(usable):
        raise UserError(f"{where}: `names` is no list of class names (write no, yes and the like in quotes)")
    if len(set(found)) < len(found):
        raise UserError(f"{where}: `names` has a name twice; give --classes FILE")
    return found


def looks_like_yolo(folder: Path) -> bool:
    """Tell whether a folder is laid out as YOLO's tools do."""
    if any((folder / name).is_file() for name in ("data.yaml", "data.yml", "dataset.yaml")):
        return True
    if any(path.is_dir() for path in [folder / "labels", *folder.glob("*/labels")]):
        return True
    images = [path for path in folder.glob("*.*") if path.suffix.lower() in IMAGE_SUFFIXES]
    return any(path.with_suffix(".txt").is_file() for path in images)
