"""What a user points at, turned into image files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from utils.errors import UserError
from utils.images import IMAGE_SUFFIXES

_ACCEPTED = "an image, a folder of images or a glob such as 'photos/*.jpg' is accepted"
_VIDEO_SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".wmv", ".mpg", ".mpeg"}


def find_images(sources: Sequence[str]) -> list[Path]:
    """List the image files behind the sources, each once, in the order of the sources and by name within one.

    Args:
        sources: image files of any suffix, folders (the images directly in them) and globs (`**` descends).

    Raises:
        UserError: a source is not there, holds no image, or is none of the three kinds.
    """
    found: dict[str, Path] = {}
    for source in sources:
        for path in _expand(source):
            found.setdefault(os.path.abspath(path), path)
    return list(found.values())


def _expand(source: str) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        images = _images_among(path / name for name in os.listdir(path))
        if not images:
            raise UserError(
                f"{source}: no images directly in this folder; '{source.rstrip('/')}/**/*' looks below it"
            )
        return images
    if path.suffix.lower() in _VIDEO_SUFFIXES or source.isdigit() or "://" in source:
        raise UserError(f"{source}: videos, cameras and streams are not read yet; {_ACCEPTED}")
    if os.path.lexists(path):  # a broken link is there too: reading it says what is wrong
        return [path]
    if not glob.has_magic(source):
        raise UserError(f"{source}: no such file or folder; {_ACCEPTED}")
    images = _images_among(map(Path, glob.iglob(source, recursive=True)))
    if not images:
        raise UserError(f"{source}: matches no image; {_ACCEPTED}")
    return images


def _images_among(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir())
