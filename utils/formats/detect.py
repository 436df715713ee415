"""Telling by its looks which format a source is in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from utils.cli.errors import UserError
from utils.cli.tool_configs import SOURCE_FORMATS
from utils.formats.coco import find_files
from utils.formats.reading import list_files
from utils.formats.yolo import looks_like_yolo

_OF_FILES = {".json": "coco", ".yaml": "yolo", ".yml": "yolo", ".txt": "list"}
_FLAT_SPLITS = ("train", "trainval", "valid", "val", "test")
_PEEK = 16_000_000  # bytes of a JSON file in which labelme's `shapes` must show


def detect_format(sources: Sequence[Path]) -> str:
    """Return the format of the sources.

    Raises:
        UserError: a source is missing, of no format, or of more than one.
    """
    found = {path: _formats_of(path) for path in sources}
    for path, names in found.items():
        if not names:
            raise UserError(
                f"{path}: not recognized as any of {', '.join(SOURCE_FORMATS)}; name the format with --from, "
                "or give the folder or file that holds the annotations"
            )
        if len(names) > 1:
            raise UserError(f"{path}: looks like {' and '.join(names)}; choose one with --from")
    kinds = sorted({name for names in found.values() for name in names})
    if len(kinds) > 1:
        raise UserError(f"SOURCE: has several formats ({', '.join(kinds)}); convert them one by one")
    return kinds[0]


def _formats_of(path: Path) -> list[str]:
    if path.is_file():
        if path.suffix.lower() == ".json" and _is_labelme(path):
            return ["labelme"]
        return [_OF_FILES[path.suffix.lower()]] if path.suffix.lower() in _OF_FILES else []
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    signs = {
        "coco": bool(find_files(path)) and not _is_labelme(find_files(path)[0]),
        "yolo": looks_like_yolo(path),
        "labelme": any(_is_labelme(file) for file in list(list_files(path, (".json",)))[:1]),
        "voc": _looks_like_voc(path),
    }
    return [name for name, shows in signs.items() if shows]


def _looks_like_voc(folder: Path) -> bool:
    patterns = ("JPEGImages", "*/JPEGImages", "*.xml", *(f"{name}/*.xml" for name in _FLAT_SPLITS))
    return any(any(folder.glob(pattern)) for pattern in patterns)


def _is_labelme(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return b'"shapes"' in file.read(_PEEK)
    except OSError:
        return False
