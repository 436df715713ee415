"""What a reader of a foreign format hands on, before any image file has been looked at."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from utils.data.voc import Box

_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "trainval": "trainval",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


@dataclass(frozen=True)
class SourceObject:
    """One object as the source states it.

    Attributes:
        where: file and entry, for messages.
        name: its class.
        box: (x1, y1, x2, y2) edges, in pixels or in fractions of the image's sides.
        difficult: VOC's flag.
    """

    where: str
    name: str
    box: Box
    difficult: bool = False


@dataclass
class SourceImage:
    """One image as the source states it.

    Attributes:
        path: the image file; nobody has opened it yet.
        objects: what the source says is in it.
        splits: names of the splits it is in; none where the source knows no splits.
        size: (width, height) in pixels where the source states it.
        fractions: whether boxes are fractions of the sides of the image as displayed, not pixels.
    """

    path: Path
    objects: list[SourceObject] = field(default_factory=list)
    splits: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    fractions: bool = False


@dataclass
class Source:
    """All that a reader found.

    Attributes:
        images: in the order of the source; one file may come several times, in different splits.
        class_names: in the order of the source; empty where it has none but the names of its objects.
        image_faults: a line for each image that cannot be used.
        object_faults: a line for each object that cannot be used; its image stays.
        notes: what the user should know, a line each.
    """

    images: list[SourceImage] = field(default_factory=list)
    class_names: tuple[str, ...] = ()
    image_faults: list[str] = field(default_factory=list)
    object_faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def guess_split(name: str) -> str | None:
    """Find train, val, test or trainval among the words of a file's or folder's name; valid means val."""
    words = re.findall("[a-z]+", name.lower())
    return next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), None)


def folder_split(name: str) -> str | None:
    """Return the split that a folder is called by, such as train, valid or train2017."""
    return _SPLIT_WORDS.get(name.lower().rstrip("0123456789"))


def polygon_box(points: list[tuple[float, float]]) -> Box:
    """Return the box around at least one point (x, y)."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)
