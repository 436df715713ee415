"""Reading other people's text, JSON and YAML: bounded, safe, and every fault named in a line."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from utils.cli.errors import UserError
from utils.data.layout import IMAGE_SUFFIXES

MAX_TEXT_BYTES = 16_000_000
MAX_JSON_BYTES = 1_000_000_000
_LARGEST_NUMBER = 1e6  # as the reader of VOC
_NO_XML = re.compile("[^\t\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\x7f-\x9f\u2028\u2029]")


def read_text(path: Path, limit: int = MAX_TEXT_BYTES) -> str:
    """Read a UTF-8 text file, with or without a byte order mark.

    Raises:
        UserError: no regular file, not readable, not UTF-8, or of more than `limit` bytes.
    """
    try:
        if not path.is_file():  # a named pipe would let us wait for ever
            raise UserError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}") from None
    if len(data) > limit:
        raise UserError(f"{path}: more than {limit // 10**6} MB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def read_json(path: Path, limit: int) -> Any:
    """Read a JSON file.

    Raises:
        UserError: as `read_text`, no JSON, or nested too deep.
    """
    text = read_text(path, limit)
    try:
        return json.loads(text)
    except RecursionError:
        raise UserError(f"{path}: JSON nested too deep") from None
    except ValueError as error:  # a number of thousands of digits is one too
        raise UserError(f"{path}: not JSON: {str(error)[:100]}") from None


class _PlainLoader(yaml.SafeLoader):
    """Builds plain values only, and each from its own text: repeated aliases grow without bounds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*name) is refused")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of names and values, safely; aliases are refused.

    Raises:
        UserError: as `read_text`, or no plain YAML mapping.
    """
    try:
        values = yaml.load(read_text(path, 1_000_000), _PlainLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{path}: not a plain YAML file: {' '.join(str(error).split())[:150]}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a YAML file of lines `name: value`")
    return values


def to_number(value: Any) -> float | None:
    """Return a JSON number, or text of a number, as a float; None where it is none or no sensible pixel."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and abs(number) <= _LARGEST_NUMBER else None


def parse_numbers(texts: list[str]) -> list[float] | None:
    """Return texts as floats; None where one is no finite number of at most a million."""
    try:
        numbers = [to_number(float(text)) for text in texts]
    except ValueError:
        return None
    found = [number for number in numbers if number is not None]
    return found if len(found) == len(texts) else None


def to_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Return a stated image size (width, height), None where it makes no sense."""
    numbers = to_number(width), to_number(height)
    if numbers[0] is None or numbers[1] is None or min(numbers[0], numbers[1]) < 1:
        return None
    return int(numbers[0]), int(numbers[1])


def to_class_name(value: Any) -> str | None:
    """Return a class name without surrounding blanks; None where it is no text, or none that XML can hold."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    name = str(value).strip()
    return None if not name or _NO_XML.search(name) or "\t" in name else name


def shown(value: Any) -> str:
    """Return a value of other people's data as it may stand in a message: short, however large it is."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_shown_part, value[:6])) + (", ..." if len(value) > 6 else "") + "]"
    return _shown_part(value)


def _shown_part(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= 10**40:  # Python refuses to write out huge ones
        return "a huge number"
    is_plain = value is None or isinstance(value, (str, int, float))
    return repr(value[-80:] if isinstance(value, str) else value) if is_plain else type(value).__name__


def clean_name(text: str) -> str:
    """Return text as a file name that every part of the program takes: list, XML and folder."""
    name = re.sub(r"[\t/\\]", "_", _NO_XML.sub("_", text)).strip()
    return name if name.strip(".") else "_"


def path_inside(root: Path, text: Any, base: Path | None = None) -> Path | None:
    r"""Return the path that data name, None where it is no path or leads out of the root.

    Args:
        root: the folder that is not to be left.
        text: the path; `\` counts as `/`.
        base: the folder that a relative path starts from, the root when None.
    """
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        return None
    slashed = text.replace("\\", "/")
    if PureWindowsPath(slashed).drive:
        return None
    top = Path(os.path.abspath(root))
    path = Path(os.path.normpath(Path(os.path.abspath(base or root)) / PurePosixPath(slashed)))
    return path if top in path.parents or path == top else None


def list_files(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> Iterator[Path]:
    """Yield the files with one of the endings below a folder, sorted; linked folders are not entered."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(suffixes):
                yield Path(place, name)
