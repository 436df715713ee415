"""From what a source says to what is written: images looked at, boxes inside them, ids that differ."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from utils.cli.errors import UserError
from utils.data.dataset_report import raise_errors, warn_each
from utils.data.layout import IMAGE_SUFFIXES
from utils.data.sample_report import clip_box, rotate_box
from utils.data.voc import Box, VocObject
from utils.formats.reading import clean_name
from utils.formats.source import Source, SourceImage, SourceObject
from utils.vision.image_reader import ImageHeader, read_header


@dataclass(frozen=True)
class Picture:
    """One image that is written.

    Attributes:
        image_id: the name of its files, unique in the data set.
        path: the source's image file.
        width: columns in pixels, as displayed.
        height: rows in pixels, as displayed.
        objects: boxes as edges in pixels, inside the image.
    """

    image_id: str
    path: Path
    width: int
    height: int
    objects: tuple[VocObject, ...]

    @property
    def file_name(self) -> str:
        """Return the name of its image file."""
        return self.image_id + self.path.suffix


@dataclass
class Dataset:
    """What is written.

    Attributes:
        pictures: in the order of the source.
        class_names: in the order of the source, else sorted.
        splits: the pictures of each split; nothing where the source knows no splits.
        images_left_out: how many images were faulty.
        objects_left_out: how many objects of other images were.
        clipped: how many boxes were cut at the border of their image.
    """

    pictures: list[Picture] = field(default_factory=list)
    class_names: tuple[str, ...] = ()
    splits: dict[str, list[Picture]] = field(default_factory=dict)
    images_left_out: int = 0
    objects_left_out: int = 0
    clipped: int = 0

    def summary(self) -> list[str]:
        """Describe the data in lines: images, objects a class, splits, what was left out."""
        counts = Counter(item.name for picture in self.pictures for item in picture.objects)
        classes = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        lines = [f"{len(self.pictures)} images, {counts.total()} objects: {classes or 'none'}"]
        if self.splits:
            sizes = ", ".join(f"{name} {len(found)}" for name, found in self.splits.items())
            lines.append(f"splits: {sizes}")
            listed = {picture.image_id for found in self.splits.values() for picture in found}
            without = len(self.pictures) - len(listed)
            lines += [f"{without} images are in no split; no list names them"] if without else []
        if self.images_left_out or self.objects_left_out or self.clipped:
            lines.append(
                f"left out: {self.images_left_out} images, {self.objects_left_out} objects; "
                f"clipped: {self.clipped} objects"
            )
        return lines


@dataclass
class _Look:
    """What looking at one image gave."""

    header: ImageHeader | None = None
    fault: str = ""
    objects: list[VocObject] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    clipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def build_dataset(source: Source, *, skip_bad: bool = False) -> Dataset:
    """Look at every image of a source and check every box.

    A box that reaches out of its image is clipped with a warning if at least 1 px and 20 % of its area
    remain; else, and where it is at most one pixel wide or high, it is a fault.

    Args:
        source: what a reader found.
        skip_bad: leave faulty images and objects out with a warning instead of raising.

    Raises:
        UserError: there are faults that may not be skipped (all are listed first), or no image is left.
    """
    images, conflicts = _merge(source.images)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        looks = list(pool.map(_look, images))
    image_faults = _unique(source.image_faults + conflicts + [look.fault for look in looks if look.fault])
    object_faults = _unique(source.object_faults + [line for look in looks for line in look.left_out])
    if not skip_bad:
        raise_errors(image_faults, object_faults)
    clipped = [line for look in looks for line in look.clipped]
    warn_each(image_faults, "left out: ")
    warn_each(object_faults, "left out: ")
    warn_each(clipped)
    warn_each([line for look in looks for line in look.notes])
    good = [(image, look) for image, look in zip(images, looks, strict=True) if look.header]
    if not good:
        raise UserError(f"none of the {len(images)} images can be used; check SOURCE and --images")
    ids, renamed = make_ids([image.path for image, _ in good])
    warn_each(renamed)
    pictures = {image.path: _make_picture(ids[image.path], image, look) for image, look in good}
    names = source.class_names or tuple(sorted({o.name for _, look in good for o in look.objects}))
    splits = _list_splits(source.images, pictures)
    return Dataset(
        list(pictures.values()), names, splits, len(image_faults), len(object_faults), len(clipped)
    )


def _unique(lines: list[str]) -> list[str]:
    return list(dict.fromkeys(lines))  # an image in two splits has been read twice


def make_ids(paths: Sequence[Path]) -> tuple[dict[Path, str], list[str]]:
    """Give each image an id: the stem of its file; images that share one get their folders in front.

    The ids depend on the paths below their common folder only.

    Returns:
        The ids, and a line for each image whose id is not the stem of its file.
    """
    stems: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        stems[path.stem].append(path)
    ids = {found[0]: stem for stem, found in stems.items() if len(found) == 1 and clean_name(stem) == stem}
    taken = set(ids.values())
    others = sorted(set(paths) - set(ids))
    common = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    for path in others:
        parts = path.relative_to(common).with_suffix("").parts if len(stems[path.stem]) > 1 else (path.stem,)
        wanted = clean_name("_".join(parts))
        name, number = wanted, 1
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        ids[path] = name
        taken.add(name)
    return ids, [f"{path}: gets the id {ids[path]!r}" for path in others if ids[path] != path.stem]


def _merge(images: Sequence[SourceImage]) -> tuple[list[SourceImage], list[str]]:
    """Join what is said of one file in several places; return the images, and those said to be two things."""
    merged: dict[Path, SourceImage] = {}
    conflicts: dict[Path, str] = {}
    for image in images:
        first = merged.setdefault(image.path, image)
        if first is image:
            continue
        if _content(first) != _content(image):
            conflicts[image.path] = f"{image.path}: is listed twice, with different objects"
    return [image for path, image in merged.items() if path not in conflicts], list(conflicts.values())


def _list_splits(images: Sequence[SourceImage], pictures: Mapping[Path, Picture]) -> dict[str, list[Picture]]:
    """Return the pictures of each split in the order of the source, each once."""
    splits: dict[str, dict[Path, Picture]] = defaultdict(dict)
    for image in images:
        for split in image.splits if image.path in pictures else ():
            splits[split][image.path] = pictures[image.path]
    return {split: list(found.values()) for split, found in splits.items()}


def _content(image: SourceImage) -> list[tuple[str, Box, bool]]:
    return sorted((item.name, item.box, item.difficult) for item in image.objects)


def _look(image: SourceImage) -> _Look:
    if image.path.suffix.lower() not in IMAGE_SUFFIXES:
        return _Look(fault=f"{image.path}: not a known kind of image file ({' '.join(IMAGE_SUFFIXES)})")
    try:
        header = read_header(image.path)
    except UserError as error:
        return _Look(fault=str(error))
    look = _Look(header)
    stored, displayed = (header.height, header.width), (header.width, header.height)
    turned = header.swapped and stored != displayed and image.size == stored
    if image.size not in (None, displayed) and not turned:
        stated = "x".join(map(str, image.size or ()))
        look.notes.append(f"{image.path}: is {header.width}x{header.height}, the source says {stated}")
    for item in image.objects:
        _place(look, item, _to_pixels(item.box, image, header, turned), header)
    return look


def _to_pixels(box: Box, image: SourceImage, header: ImageHeader, turned: bool) -> Box:
    if image.fractions:
        # Six decimals, as labels have them, are worth less than 0.01 px up to 6000 px: whole pixels return.
        x1, y1, x2, y2 = box
        width, height = header.width, header.height
        return round(x1 * width, 2), round(y1 * height, 2), round(x2 * width, 2), round(y2 * height, 2)
    return rotate_box(box, header) if turned else box


def _place(look: _Look, item: SourceObject, box: Box, header: ImageHeader) -> None:
    inside, reason = clip_box(box, header.width, header.height)
    where = f"{item.where} ({item.name})"
    if inside is None:
        look.left_out.append(f"{where}: {reason}")
        return
    if reason:
        look.clipped.append(f"{where}: clipped, {reason}")
    look.objects.append(VocObject(item.name, inside, item.difficult))


def _make_picture(image_id: str, image: SourceImage, look: _Look) -> Picture:
    assert look.header is not None
    return Picture(image_id, image.path, look.header.width, look.header.height, tuple(look.objects))
