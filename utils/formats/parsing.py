"""Safe parsing of values in untrusted text, JSON and YAML."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from utils.cli.class_names import normalize_name
from utils.cli.files import MAX_TEXT_BYTES, on_disk, plain_float
from utils.data.folder_walk import IMAGE_SUFFIXES, walk_folder
from utils.data.layouts import SPLIT_NAMES, split_of
from utils.data.voc_xml import SCORE_NAMES, Box, is_true, parse_score

MAX_JSON_BYTES = 1_000_000_000
_LARGEST_NUMBER = 1e6  # as in VOC annotations
_NOT_IN_XML = re.compile("[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\x7f-\x9f\u2028\u2029]")
_SPLIT_WORDS = SPLIT_NAMES | {"valid": "val"}


def contains(path: Path, text: bytes) -> bool:
    """Tell whether the beginning of a file has a text in it; False if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return text in file.read(MAX_TEXT_BYTES)
    except OSError:
        return False


def to_numbers(values: Any) -> list[float] | None:
    """Return a JSON list as floats; None if it is no list, or a value is no finite number up to a million."""
    numbers = []
    for value in values if isinstance(values, list) else [None]:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        if not abs(value) <= _LARGEST_NUMBER:  # also refuses nan
            return None
        numbers.append(float(value))
    return numbers


def parse_numbers(texts: Sequence[str]) -> list[float] | None:
    """Return texts as floats; None if one is no finite number up to a million."""
    try:
        return to_numbers([plain_float(text) for text in texts])
    except ValueError:
        return None


def find_score(*entries: Any) -> float | None:
    """Return the score of a prediction in JSON objects; NaN if it is no number, None if there is none."""
    values = [
        entry[name] for entry in entries if isinstance(entry, dict) for name in SCORE_NAMES if name in entry
    ]
    scores = (parse_score(str(value)) for value in values)
    return next((score for score in scores if score is not None), None)


def is_marked(name: str, *entries: Any) -> bool:
    """Tell whether a flag such as `difficult` is true in one of some JSON objects."""
    marks = [items for entry in entries if isinstance(entry, dict) for items in entry.items()]
    return any(key.lower() == name and is_true(value) for key, value in marks)


def to_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Return an image size (width, height) from JSON, None if it is not at least 1 x 1."""
    size = to_numbers([width, height])
    return (int(size[0]), int(size[1])) if size and min(size) >= 1 else None


def to_class_name(value: Any) -> str | None:
    """Return a class name as it is stored; None if it is no text, or XML cannot hold it."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    name = normalize_name(str(value))
    return None if not name or _NOT_IN_XML.search(name) else name


def shown(value: Any) -> str:
    """Return an untrusted value for a message, shortened however large it is."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_shown_item, value[:6])) + (", ..." if len(value) > 6 else "") + "]"
    return _shown_item(value)


def _shown_item(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= 10**40:  # str() of thousands of digits raises
        return "a huge number"
    is_plain = value is None or isinstance(value, (str, int, float))
    return repr(value[-80:] if isinstance(value, str) else value) if is_plain else type(value).__name__


def clean_name(text: str) -> str:
    """Return text as a file name that is valid in a split list, in XML and as a path."""
    name = re.sub(r"[\t/\\]", "_", _NOT_IN_XML.sub("_", text)).strip()
    return name if name.strip(".") else "_"


def guess_split(name: str) -> str | None:
    """Find train, val, test or trainval among the words of a file or folder name; valid means val."""
    words = re.findall("[a-z]+", name.lower())
    return next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), None)


def folder_split(path: Path) -> str | None:
    """Return the split of the first folder in a relative path called train, valid, testing2017 or so."""
    return _SPLIT_WORDS.get(split_of(path.as_posix()))


def enclosing_box(points: Sequence[tuple[float, float]]) -> Box:
    """Return the box around at least one point (x, y)."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def path_inside(root: Path, text: Any, base: Path | None = None) -> Path | None:
    """Return an untrusted path, with slashes or backslashes, if it stays inside a folder, else None.

    Its names may be in NFC and NFD. A relative path starts from `base`, by default the folder.
    """
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        return None
    slashed = text.replace("\\", "/")
    if PureWindowsPath(slashed).drive:
        return None
    top = Path(os.path.abspath(root))
    path = Path(os.path.normpath(Path(os.path.abspath(base or root)) / PurePosixPath(slashed)))
    return on_disk(path) if top in path.parents or path == top else None


def list_files(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> Iterator[Path]:
    """Yield the files with one of the suffixes below a folder, sorted; see `walk_folder`."""
    for name in walk_folder(folder).files:
        if name.lower().endswith(suffixes):
            yield folder / name
