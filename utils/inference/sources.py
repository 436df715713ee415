"""Sources of images: files, folders, globs, videos, cameras and streams; imports nothing heavy."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from utils.cli.console import log, plural
from utils.cli.errors import UserError
from utils.data.folder_walk import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_image, is_system_file, walk_folder

_ACCEPTED = "give an image, a video, a folder, a glob such as 'photos/*.jpg', a camera number or a stream URL"


@dataclass(frozen=True)
class Source:
    """An image file, a video file, or a live source (a camera or a stream).

    Attributes:
        kind: "image", "video" or "live".
        path: the file; of a live source the file that a recording of it would be.
        address: of a live source: the camera's number or the stream's URL.
    """

    kind: Literal["image", "video", "live"]
    path: Path
    address: str = ""

    @property
    def name(self) -> str:
        """Its name in lines and in JSON, without a password."""
        return without_password(self.address) or str(self.path)


def without_password(address: str) -> str:
    """Return the URL of a stream without user and password, anything else unchanged."""
    return re.sub(r"(?<=://)[^/]*@", "***@", address)


def find_sources(sources: Sequence[str]) -> list[Source]:
    """Expand the sources that a user names: each file once, in the given order and by name within a folder.

    Sources are image files of any suffix, video files, folders (not their subfolders), globs (`**` descends),
    numbers of cameras and URLs of streams.

    Raises:
        UserError: a source does not exist, is empty, or is none of these.
    """
    found: dict[str, Source] = {}
    for source in sources:
        for one in _expand(source):
            found.setdefault(one.address or os.path.abspath(one.path), one)
    return list(found.values())


def _expand(source: str) -> list[Source]:
    path = Path(source)
    if path.is_dir():
        found = _visible_among((path / name for name in os.listdir(path)), path)
        deeper = f"'{source.rstrip('/')}/**/*'"
        if not found:
            raise UserError(f"{source}: no images directly in this folder; {deeper} looks below it")
        if below := _count_images_below(path):
            log(f"{source}: {plural(below, 'image')} in subfolders not read; {deeper} reads them too")
        return found
    if os.path.lexists(path):  # a broken link too: reading it says what is wrong
        return [_as_source(path)]
    if source.isascii() and source.isdigit():
        return [Source("live", Path(f"camera{source}.mp4"), source)]
    if "://" in source:
        place = re.sub(r"^[^/]*@|[?#].*", "", source.partition("://")[2])
        return [Source("live", Path(re.sub(r"[^\w.-]+", "_", place).strip("_.") + ".mp4"), source)]
    if not glob.has_magic(source):
        raise UserError(f"{source}: no such file or folder; {_ACCEPTED}")
    named = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)
    found = _visible_among(map(Path, glob.iglob(source, recursive=True)), Path(*named))
    if not found:
        raise UserError(f"{source}: matches no image; {_ACCEPTED}")
    return found


def _count_images_below(folder: Path) -> int:
    """Count the images in subfolders; none if one of them cannot be read, which nobody asked for."""
    try:
        files = walk_folder(folder).files
    except UserError:
        return 0
    return sum(is_image(file) for file in files if "/" in file)


def _visible_among(paths: Iterable[Path], folder: Path) -> list[Source]:
    """Return the images and videos; below `folder`, which the user named, without system files."""
    suffixes = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    found = (path for path in paths if path.suffix.lower() in suffixes and not path.is_dir())
    return [
        _as_source(path)
        for path in sorted(found)
        if not any(map(is_system_file, path.relative_to(folder).parts))
    ]


def _as_source(path: Path) -> Source:
    return Source("video" if path.suffix.lower() in VIDEO_SUFFIXES else "image", path)
