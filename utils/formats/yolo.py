"""Reader and writer of YOLO label files: one per image, one line `class cx cy w h` per object, normalized.

The layouts are those of ultralytics (images/train beside labels/train), which is written, of Roboflow
(train/images beside train/labels), and images with their labels side by side, as Darknet and CVAT's YOLO 1.1
have them. The last folder `images` in an image's path is `labels` in its label's. A data.yaml or an obj.data
gives names and splits; without it names come from classes.txt or a .names file, and splits from folders
train, val and test. An image without a label file has no objects. A sixth number in a line is a score. A
line of points, `class x1 y1 x2 y2 x3 y3 ...`, becomes its enclosing box.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from utils.cli.class_names import read_class_names
from utils.cli.console import plural
from utils.cli.errors import UserError
from utils.cli.files import atomic_write, on_disk, read_text, read_yaml
from utils.data.folder_walk import IMAGE_SUFFIXES, files_in, is_image
from utils.data.voc_xml import Box
from utils.formats.image_folder import ImageFolder, note_unused
from utils.formats.intermediate import (
    MAX_OBJECTS,
    ConvertedDataset,
    ConvertedImage,
    SourceDataset,
    SourceImage,
    SourceObject,
)
from utils.formats.parsing import (
    clean_name,
    enclosing_box,
    folder_split,
    guess_split,
    list_files,
    parse_numbers,
    path_inside,
    shown,
    to_class_name,
)

_SPLITS = ("train", "val", "test")  # keys of data.yaml
_SIGNS = ("data.yaml", "data.yml", "dataset.yaml", "obj.data", "obj.names")
_NAMES_FILES = ("classes.txt", "labels/classes.txt")
_KEY_OF = {"train": "train", "trainval": "train", "val": "val", "test": "test"}  # by kind of split
_UNLISTED = "images/unlisted"  # images in no split
_TOLERANCE = 0.01  # by which rounding may push a fraction out of [0, 1]


def looks_like_yolo(folder: Path) -> bool:
    """Tell whether a folder has one of the layouts of YOLO tools."""
    if any(on_disk(folder / name).is_file() for name in _SIGNS):
        return True
    places = [path for path in [folder / "labels", *folder.glob("*/labels")] if path.is_dir()]
    if any(any(list_files(path, (".txt",))) for path in places):
        return True
    return any(on_disk(path.with_suffix(".txt")).is_file() for path in files_in(folder, *IMAGE_SUFFIXES))


def read_yolo(source: Path, class_names: tuple[str, ...] = (), images: Path | None = None) -> SourceDataset:
    """Read a folder of label files, or the data.yaml or obj.data in it.

    Without `class_names` the data set must name its own. `images` is the folder of the images if they are not
    beside the labels; a label has the same place below `source`, or the one that a list of obj.data names.

    Raises:
        UserError: no class names, no images, or a data.yaml or obj.data that leads nowhere.
    """
    config_path = _find_config(source)
    root = config_path.parent if config_path else source
    is_darknet = config_path is not None and config_path.suffix.lower() == ".data"
    config = _read_config(config_path) if config_path else {}
    names = class_names or _read_names(config_path or root, root, config)
    count = shown(config.get("nc") or len(names)).strip("'")
    if count != str(len(names)) and not class_names:
        given = plural(len(names), "class name")
        raise UserError(f"{config_path}: {given}, but the number of classes is {count}; give --classes FILE")
    found = SourceDataset(class_names=names)
    reader = _Reader(root, found, ImageFolder(images) if images else None, "kpt_shape" in config)
    if images is not None and not is_darknet:
        reader.read_folder(images, None)
    elif config_path and any(config.get(split) for split in _SPLITS):
        missing: list[UserError] = []
        for split in _SPLITS:
            entries = config.get(split) or []
            for entry in entries if isinstance(entries, list) else [entries]:
                try:
                    place = _resolve(config_path, config.get("path"), entry)
                except UserError as error:
                    missing.append(error)
                    continue
                read = reader.read_folder if place.is_dir() else reader.read_list
                read(place, split)
        if missing and (reader.list_unlisted() or not found.images):
            raise missing[0]  # else it names an empty part, as Roboflow's data.yaml does
        found.notes += [f"skipped: {error}" for error in missing]
    else:
        reader.read_folder(root / "images" if (root / "images").is_dir() else root, None)
    if not found.images and not found.image_faults:
        raise UserError(f"{source}: no images in it; give --images DIR")
    reader.finish(config_path)
    return found


def _find_config(source: Path) -> Path | None:
    """Return the file that describes the data set: the source itself, or the one in its folder."""
    if source.is_file():
        return source
    darknet, own = on_disk(source / "obj.data"), on_disk(source / "data.yaml")
    if darknet.is_file():
        return darknet
    found = files_in(source, ".yaml", ".yml")
    if len(found) > 1 and own not in found:
        raise UserError(f"{source}: name one of {found[0].name} and {found[1].name} as SOURCE")
    return own if len(found) > 1 else next(iter(found), None)


def _read_config(path: Path) -> dict[str, Any]:
    """Read a data.yaml, or the lines `name = value` of Darknet's .data."""
    if path.suffix.lower() != ".data":
        return read_yaml(path)
    pairs = (line.partition("=") for line in read_text(path).splitlines())
    config: dict[str, Any] = {name.strip(): value.strip() for name, _, value in pairs}
    return {**config, "val": config.get("valid") or config.get("val"), "nc": config.get("classes")}


class _Reader:
    """Collects images and their labels into a source data set."""

    def __init__(
        self, root: Path, source: SourceDataset, images: ImageFolder | None, has_keypoints: bool
    ) -> None:
        self.root = Path(os.path.abspath(root))
        self.source = source
        self.image_folder = images
        self.has_keypoints = has_keypoints
        self.polygons = self.unlabelled = 0
        self.read: dict[Path, SourceImage] = {}
        self.labels: set[Path] = set()  # of the images that were found
        self.label_folders: set[Path] = set()

    def read_folder(self, folder: Path, split: str | None) -> None:
        """Read all images below a folder; without a split, folders train, val and test are splits."""
        folder = Path(os.path.abspath(folder))
        own = self.root / "labels"
        label_root = own if own.is_dir() else self.root
        if split is None and own.is_dir():  # these are all the images, so every label must have one
            self.label_folders |= {path.parent for path in list_files(own, (".txt",))}
        for path in list_files(folder):
            labels = [_label_of(path, self.root)] if self.root in path.parents else []
            labels.append(on_disk(label_root / path.relative_to(folder).with_suffix(".txt")))
            label = next((label for label in labels if os.path.exists(label)), labels[0])
            self.label_folders.add(label.parent)
            self._read_image(path, label, split or folder_split(path.relative_to(folder)))

    def read_list(self, path: Path, split: str | None) -> None:
        """Read the images that a text file names, a path a line."""
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            text, where = line.strip().strip("\"'"), f"{path}: line {number}"
            bases = (path.parent, self.root)
            inside = [path_inside(self.root, form, base) for form in _forms(text) for base in bases]
            places = [place for place in inside if place is not None]
            if text and not places:
                fault = f"{where}: {text[-80:]!r} leads out of {self.root}"
                self.source.image_faults.append(fault)
            elif text and self.image_folder:
                labels = [_label_of(place, self.root) for place in places]
                label = next((label for label in labels if os.path.exists(label)), labels[0])
                try:
                    self._read_image(self.image_folder.find(text), label, split)
                except ValueError as error:
                    self.source.image_faults.append(f"{where}: {error}")
            elif text:
                image = next((place for place in places if os.path.exists(place)), places[0])
                label = _label_of(image, self.root)
                self.label_folders.add(label.parent)
                self._read_image(image, label, split)

    def list_unlisted(self) -> list[Path]:
        """List the images that were not read."""
        folder = self.image_folder.folder.absolute() if self.image_folder else self.root
        return [path for path in list_files(folder) if path not in self.read]

    def finish(self, config_path: Path | None) -> None:
        """Count images that were not read or have no label, and polygons; report labels without an image."""
        unlisted = self.list_unlisted()
        reason = f"in no split of {config_path}" if config_path else f"outside of {self.root / 'images'}"
        self.source.notes += note_unused(unlisted, (), reason)
        self.source.notes += self.image_folder.notes() if self.image_folder else []
        if self.polygons:
            self.source.notes.append(f"{plural(self.polygons, 'polygon')} replaced by the enclosing box")
        if self.unlabelled:
            note = f"{plural(self.unlabelled, 'image')} without a label file, taken as without objects"
            self.source.notes.append(note)
        stems = {path.stem for path in self.labels}
        known = self.labels | {_label_of(path, self.root) for path in unlisted if self.root in path.parents}
        for folder in sorted(path for path in self.label_folders if path.is_dir()):
            is_mixed = any(map(is_image, folder.iterdir()))
            for path in files_in(folder, ".txt"):
                if path in known or path.name.lower() == "classes.txt":
                    continue
                if not is_mixed or _is_label(path):
                    hint = " (the image of that name has another label)" if path.stem in stems else ""
                    self.source.image_faults.append(f"{path}: no image belongs to this label{hint}")

    def _read_image(self, path: Path, label: Path, split: str | None) -> None:
        splits = (split,) if split else ()
        if path in self.read:  # in another split too
            self.source.images.append(replace(self.read[path], splits=splits))
            return
        image = self.read[path] = SourceImage(path, splits=splits, normalized=True)
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
        if len(lines) > MAX_OBJECTS:
            fault = f"{label}: {len(lines)} lines; an image may have {MAX_OBJECTS} objects"
            self.source.image_faults.append(fault)
            return
        for number, line in enumerate(lines, start=1):
            where = f"{label}: line {number}"
            if line.strip() and (fault := self._read_object(where, line.split(), image)):
                self.source.object_faults.append(f"{where}: {fault}")
        self.source.images.append(image)

    def _read_object(self, where: str, words: list[str], image: SourceImage) -> str:
        """Add one line to its image; returns what is wrong with it, if anything."""
        numbers = parse_numbers(words)
        given = repr(" ".join(words)[:60])
        if numbers is None:
            return f"{given} is not all numbers"
        label, values = numbers[0], numbers[1:]
        names = self.source.class_names
        if not label.is_integer() or not 0 <= label < len(names):
            return f"class {words[0][:20]}, but there are {len(names)} class names (from 0)"
        if self.has_keypoints:
            values = values[:4]
        is_polygon = len(values) >= 6 and len(values) % 2 == 0
        if len(values) not in (4, 5) and not is_polygon:
            return f"{given} is neither `class cx cy w h` nor a polygon"
        if not all(-_TOLERANCE <= value <= 1 + _TOLERANCE for value in values):
            return f"{given} has a number outside 0 to 1; coordinates are fractions of the image"
        if not is_polygon and min(values[2:4]) <= 0:
            return f"{given} has no width or height"
        self.polygons += is_polygon
        if is_polygon:
            box = enclosing_box(list(zip(values[::2], values[1::2], strict=True)))
        else:
            cx, cy, width, height = values[:4]
            box = cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2
        score = values[4] if len(values) == 5 else None
        image.objects.append(SourceObject(where, names[int(label)], box, score=score))
        return ""


def _is_label(path: Path) -> bool:
    """Tell whether a text file among images, where others are too, is empty or begins with numbers."""
    try:
        lines = [line for line in read_text(path).splitlines() if line.strip()]
    except UserError:
        return False
    return not lines or parse_numbers(lines[0].split()) is not None


def _label_of(image: Path, root: Path) -> Path:
    """Return the label path of an image: the last folder `images` (or JPEGImages) becomes `labels`."""
    parts = list(image.relative_to(root).parts)
    places = [index for index, part in enumerate(parts[:-1]) if part in ("images", "JPEGImages")]
    if places:
        parts[places[-1]] = "labels"
    return on_disk(root.joinpath(*parts).with_suffix(".txt"))


def _resolve(config_path: Path, base: Any, entry: Any) -> Path:
    """Find a folder or list that data.yaml or obj.data names, inside the folder of the file only.

    `path` is often of another machine.
    """
    root = Path(os.path.abspath(config_path.parent))
    texts = _forms(entry) if isinstance(entry, str) else ()
    for start in (path_inside(root, base), root):
        for text in texts if start is not None else ():
            place = path_inside(root, text, start)
            if place is not None and os.path.exists(place):  # False for a name that is too long
                return place
    raise UserError(
        f"{config_path}: {shown(entry)} is not found in {config_path.parent}, and nothing outside is read; "
        "put the file into the data folder"
    )


def _forms(text: str) -> tuple[str, ...]:
    """Return a path also without ../, which Roboflow writes in front, and without data/, which CVAT does."""
    return text, re.sub(r"^(\.\./)+", "", text), text.removeprefix("data/")


def _read_names(where: Path, root: Path, config: dict[str, Any]) -> tuple[str, ...]:
    names = config.get("names")
    if isinstance(names, str) and where.suffix.lower() == ".data":
        return read_class_names(_resolve(where, None, names))
    if names is None:
        files = [path for name in _NAMES_FILES if (path := on_disk(root / name)).is_file()]
        files += files_in(root, ".names")
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
        raise UserError(f"{where}: `names` is not a list of class names; put yes, no and the like in quotes")
    if len(set(found)) < len(found):
        raise UserError(f"{where}: `names` has a duplicate name; give --classes FILE")
    return found


def place_images(dataset: ConvertedDataset) -> dict[str, list[ConvertedImage]]:
    """Return the images of each folder that is written: images/<split>, or images without splits.

    A split trainval has only what train and val lack, as it is their sum.
    """
    if list(dataset.splits) in ([], ["all"]):
        return {"images": dataset.images}
    parts = [images for split, images in dataset.splits.items() if guess_split(split) in ("train", "val")]
    in_parts, listed = (
        {image.image_id for images in found for image in images} for found in (parts, dataset.splits.values())
    )
    places = {_UNLISTED: [image for image in dataset.images if image.image_id not in listed]}
    for split, images in dataset.splits.items():
        left_out = in_parts if guess_split(split) == "trainval" else ()
        place = f"images/{clean_name(split)}"
        places[place] = places.get(place, []) + [i for i in images if i.image_id not in left_out]
    return {place: images for place, images in places.items() if images}


def write_yolo(
    folder: Path, places: Mapping[str, Sequence[ConvertedImage]], class_names: Sequence[str], root: Path
) -> list[str]:
    """Write labels/ beside images/, and data.yaml, whose `path` is `root`; returns lines about what is lost.

    An image without objects gets an empty file. Difficult objects are skipped, as by the VOC converter of
    ultralytics: YOLO has no such flag. Objects are written without their scores.
    """
    numbers = {name: number for number, name in enumerate(class_names)}
    difficult: dict[str, int] = {}  # by image, which may be in two splits
    scored: dict[str, int] = {}
    for place, images in places.items():
        labels = folder / place.replace("images", "labels", 1)
        labels.mkdir(parents=True)
        for image in images:
            lines = [_label_line(numbers[o.name], o.box, image) for o in image.objects if not o.difficult]
            difficult[image.image_id] = len(image.objects) - len(lines)
            scored[image.image_id] = sum(o.score is not None for o in image.objects if not o.difficult)
            with atomic_write(labels / f"{image.image_id}.txt", "w") as file:
                file.writelines(lines)
    keys = {place: _KEY_OF.get(guess_split(place) or "") for place in places}
    keys |= {"images": "train"} if "images" in keys else {}
    splits = {split: [place for place, key in keys.items() if key == split] for split in _SPLITS}
    config = {split: found if len(found) > 1 else found[0] for split, found in splits.items() if found}
    names = {"nc": len(class_names), "names": list(class_names)}
    with atomic_write(folder / "data.yaml", "w") as file:
        yaml.safe_dump({"path": str(root), **config, **names}, file, sort_keys=False, allow_unicode=True)
    lost, unscored = sum(difficult.values()), plural(sum(scored.values()), "object")
    unnamed = ", ".join(place for place, key in keys.items() if key is None)
    missing = " and no ".join(split for split in ("train", "val") if split not in config)
    advice = "add the line, or convert data with such lists"
    return [
        *([f"skipped: {plural(lost, 'difficult object')}; YOLO has no such flag"] if lost else []),
        *(
            [f"written without the score: {unscored}; YOLO trainers read none"]
            if any(scored.values())
            else []
        ),
        *([f"not named in data.yaml: {unnamed}; the names do not say train, val or test"] if unnamed else []),
        *([f"data.yaml has no {missing}, which most YOLO trainers need; {advice}"] if missing else []),
    ]


def _label_line(number: int, box: Box, image: ConvertedImage) -> str:
    x1, y1, x2, y2 = box
    center = (x1 + x2) / 2 / image.width, (y1 + y2) / 2 / image.height
    values = *center, (x2 - x1) / image.width, (y2 - y1) / image.height
    return f"{number} {' '.join(f'{value:.8f}' for value in values)}\n"
