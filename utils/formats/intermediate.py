"""Intermediate data set between the readers and the writers of annotation formats.

A reader returns a `SourceDataset`: annotations as written, no image opened yet. `build_dataset` checks it
against the image files; its `ConvertedDataset` is what a writer takes.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from utils.cli.console import plural, warn
from utils.cli.errors import UserError
from utils.cli.files import free_name
from utils.data.dataset_report import clip_box, raise_errors, rotate_box, warn_each
from utils.data.folder_walk import IMAGE_SUFFIXES
from utils.data.voc_xml import Box, VocObject
from utils.formats.parsing import clean_name
from utils.vision.image_reader import ImageHeader, read_header

MAX_OBJECTS = 50_000  # of an image: more would be a VOC annotation beyond the 16 MB that are read


@dataclass(frozen=True)
class SourceObject:
    """One object as the source describes it; the box is xyxy edges, in pixels or normalized."""

    where: str  # file and entry, for messages
    name: str
    box: Box
    difficult: bool = False
    score: float | None = None  # of a prediction


@dataclass
class SourceImage:
    """One image as the source describes it; its file may be missing or broken."""

    path: Path
    objects: list[SourceObject] = field(default_factory=list)
    splits: tuple[str, ...] = ()
    size: tuple[int, int] | None = None  # (width, height) in pixels, if the source has it
    normalized: bool = False  # boxes are fractions of the sides of the image as displayed


@dataclass
class SourceDataset:
    """What a reader found: images in the order of the source, and a line for each fault."""

    images: list[SourceImage] = field(default_factory=list)  # a file may occur once per split
    class_names: tuple[str, ...] = ()  # empty if only the objects name classes
    image_faults: list[str] = field(default_factory=list)
    object_faults: list[str] = field(default_factory=list)  # of objects whose image can be used
    notes: list[str] = field(default_factory=list)  # what the user should know


@dataclass(frozen=True)
class ConvertedImage:
    """One image to write; boxes are edges in pixels, inside the image as displayed."""

    image_id: str  # stem of its files, unique in the data set
    path: Path  # of the source
    width: int
    height: int
    objects: tuple[VocObject, ...]

    @property
    def file_name(self) -> str:
        """Return the name of its image file."""
        return self.image_id + self.path.suffix


@dataclass
class ConvertedDataset:
    """What a writer takes; `splits` is empty if the source has none."""

    images: list[ConvertedImage]
    class_names: tuple[str, ...]
    splits: dict[str, list[ConvertedImage]]
    images_skipped: int
    objects_skipped: int
    clipped: int

    def summary(self) -> list[str]:
        """Describe the data in lines: images, objects per class, splits, what was skipped."""
        counts = Counter(item.name for image in self.images for item in image.objects)
        classes = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        lines = [
            f"{plural(len(self.images), 'image')}, {plural(counts.total(), 'object')}: {classes or 'none'}"
        ]
        if self.splits:
            sizes = ", ".join(f"{name} {len(found)}" for name, found in self.splits.items())
            lines.append(f"splits: {sizes}")
            listed = {image.image_id for found in self.splits.values() for image in found}
            if unlisted := len(self.images) - len(listed):
                lines.append(f"in no split: {plural(unlisted, 'image')}; no list names them")
        if self.images_skipped or self.objects_skipped or self.clipped:
            skipped = (
                f"skipped: {plural(self.images_skipped, 'image')}, {plural(self.objects_skipped, 'object')}"
            )
            lines.append(f"{skipped}; clipped: {plural(self.clipped, 'object')}")
        return lines


def build_dataset(
    source: SourceDataset, *, skip_bad: bool = False, skip_unreviewed: bool = False
) -> ConvertedDataset:
    """Check every image and every box of a source; with `skip_bad` faulty ones are skipped with a warning.

    `skip_unreviewed` skips objects with a score, and images that have no others.

    A box that reaches out of its image is clipped with a warning if at least 1 px and 20 % of its area
    remain. Otherwise, or if it is at most one pixel wide or high, it is a fault.

    Raises:
        UserError: there are faults and `skip_bad` is False (all are listed first), or no image is left.
    """
    images, conflicts = _merge(source.images)
    images = _select_reviewed(images, skip_unreviewed)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        headers = list(pool.map(_read_header, images))
    image_faults = [*source.image_faults, *conflicts, *(found for found in headers if isinstance(found, str))]
    object_faults, clipped, notes = [*source.object_faults], [], []
    usable: dict[Path, tuple[ImageHeader, tuple[VocObject, ...]]] = {}
    for image, header in zip(images, headers, strict=True):
        if isinstance(header, str):
            continue
        rotated = header.is_stored_size(image.size)
        if image.size not in (None, (header.width, header.height)) and not rotated:
            stated = "x".join(map(str, image.size or ()))
            notes.append(f"{image.path}: is {header.width}x{header.height}, the source says {stated}")
        objects = []
        for item in image.objects:
            where = f"{item.where} ({item.name})"
            box, reason = clip_box(_to_pixels(item.box, image, header, rotated), header.width, header.height)
            if box is None:
                object_faults.append(f"{where}: {reason}")
                continue
            clipped += [f"{where}: clipped, {reason}"] if reason else []
            objects.append(VocObject(item.name, box, item.difficult, item.score))
        usable[image.path] = header, tuple(objects)
    # An image in two splits has been read twice, and so have its faults.
    image_faults, object_faults = list(dict.fromkeys(image_faults)), list(dict.fromkeys(object_faults))
    if not skip_bad:
        raise_errors(image_faults, object_faults)
    for lines, prefix in (
        (image_faults, "skipped: "),
        (object_faults, "skipped: "),
        (clipped, ""),
        (notes, ""),
    ):
        warn_each(lines, prefix)
    if not usable:
        raise UserError(f"none of the {len(images)} images can be used; check SOURCE and --images")
    ids, renamed = make_ids(list(usable))
    warn_each(renamed)
    converted = {
        path: ConvertedImage(ids[path], path, header.width, header.height, objects)
        for path, (header, objects) in usable.items()
    }
    names = source.class_names or tuple(sorted({o.name for _, objects in usable.values() for o in objects}))
    splits = _list_splits(source.images, converted)
    for place, found in (splits or {"the source": list(converted.values())}).items():
        if not any(image.objects for image in found):
            warn(f"{place}: none of its {plural(len(found), 'image')} has an object")
    skipped = len(image_faults), len(object_faults)
    return ConvertedDataset(list(converted.values()), names, splits, *skipped, len(clipped))


def make_ids(paths: Sequence[Path]) -> tuple[dict[Path, str], list[str]]:
    """Give each image an id: the stem of its file, with its folders in front if several share the stem.

    Stems are the same in any case, as in some file systems. The ids depend on the paths below their common
    folder only, not on their order. Returns also a line for each image whose id is not the stem of its file.
    """
    stems = Counter(path.stem.casefold() for path in paths)
    ids = {p: p.stem for p in paths if stems[p.stem.casefold()] == 1 and clean_name(p.stem) == p.stem}
    taken = {name.casefold() for name in ids.values()}
    others = sorted(set(paths) - set(ids))
    common = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    for path in others:
        is_shared = stems[path.stem.casefold()] > 1
        parts = path.relative_to(common).with_suffix("").parts if is_shared else (path.stem,)
        ids[path] = free_name(clean_name("_".join(parts)), taken)
    return ids, [f"{path}: gets the id {ids[path]!r}" for path in others if ids[path] != path.stem]


def _merge(images: Sequence[SourceImage]) -> tuple[list[SourceImage], list[str]]:
    """Return each image file once, and a line for each that is listed with different objects."""
    merged: dict[Path, SourceImage] = {}
    conflicts: dict[Path, str] = {}
    for image in images:
        first = merged.setdefault(image.path, image)
        if first is not image and _content(first) != _content(image):
            conflicts[image.path] = f"{image.path}: is listed twice, with different objects"
    return [image for path, image in merged.items() if path not in conflicts], list(conflicts.values())


def _select_reviewed(images: list[SourceImage], skip: bool) -> list[SourceImage]:
    """Warn about objects with a score, and leave them out if asked to."""
    scored = [(image, [item for item in image.objects if item.score is not None]) for image in images]
    scored = [(image, items) for image, items in scored if items]
    if not scored:
        return images
    objects = plural(sum(len(items) for _, items in scored), "object")
    used = "skipped" if skip else "used; --skip-unreviewed skips them"
    warn(f"{objects} with a score in {plural(len(scored), 'image')}, as unreviewed predictions have: {used}")
    if not skip:
        return images
    unreviewed = {id(image) for image, items in scored if len(items) == len(image.objects)}
    if unreviewed:
        warn(f"{plural(len(unreviewed), 'image')} with such objects only: skipped")
    for image, _ in scored:
        image.objects = [item for item in image.objects if item.score is None]
    return [image for image in images if id(image) not in unreviewed]


def _content(image: SourceImage) -> list[tuple[str, Box, bool]]:
    return sorted((item.name, item.box, item.difficult) for item in image.objects)


def _list_splits(
    images: Sequence[SourceImage], converted: Mapping[Path, ConvertedImage]
) -> dict[str, list[ConvertedImage]]:
    """Return the images of each split in the order of the source, each once."""
    splits: dict[str, dict[Path, ConvertedImage]] = defaultdict(dict)
    for image in images:
        for split in image.splits if image.path in converted else ():
            splits[split][image.path] = converted[image.path]
    return {split: list(found.values()) for split, found in splits.items()}


def _read_header(image: SourceImage) -> ImageHeader | str:
    """Read the header of an image file; returns what is wrong with it, if anything."""
    if image.path.suffix.lower() not in IMAGE_SUFFIXES:
        return f"{image.path}: not a supported image file ({' '.join(IMAGE_SUFFIXES)})"
    if len(image.objects) > MAX_OBJECTS:
        return f"{image.path}: {len(image.objects)} objects; an image may have {MAX_OBJECTS}"
    try:
        return read_header(image.path)
    except UserError as error:
        return str(error)


def _to_pixels(box: Box, image: SourceImage, header: ImageHeader, rotated: bool) -> Box:
    if image.normalized:
        # Six decimals, as labels have them, are below 0.01 px up to 6000 px: whole pixels are restored.
        x1, y1, x2, y2 = box
        width, height = header.width, header.height
        return round(x1 * width, 2), round(y1 * height, 2), round(x2 * width, 2), round(y2 * height, 2)
    return rotate_box(box, header) if rotated else box
