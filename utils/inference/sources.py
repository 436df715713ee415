"""Sources of images: files, folders, globs, lists, videos, cameras and URLs; imports nothing heavy."""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from utils.cli.console import log, plural
from utils.cli.errors import UserError
from utils.cli.files import read_bytes
from utils.data.folder_walk import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_image, is_system_file, walk_folder
from utils.inference.image_urls import Kind, probe_url

_ACCEPTED = "give an image, a video, a folder, a glob such as 'photos/*.jpg', a camera number or a URL"
_STDIN = "-"
_LONGEST_NUMBER = 9  # digits of a camera's number, which OpenCV holds in 32 bits
_SUFFIXES = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)


@dataclass(frozen=True)
class Source:
    """An image, a recorded video, or a live source (a camera or a stream)."""

    kind: Kind
    path: Path  # the file; of a URL or a camera the file that a copy of it would be
    address: str = ""  # the URL, or the camera's number; empty for a file
    copy: Path | None = None  # the temporary copy of an image behind a URL, if it is already downloaded

    @property
    def name(self) -> str:
        """Its name in lines and in JSON, without a password."""
        return without_password(self.address) or str(self.path)


def without_password(address: str) -> str:
    """Return the URL of a stream or an image without user and password, anything else unchanged."""
    return re.sub(r"(?<=://)[^/]*@", "***@", address)


def find_sources(sources: Sequence[str]) -> list[Source]:
    """Expand the sources that a user names: each file once, in the given order and by name within a folder.

    Sources are image files of any suffix, video files, folders (not their subfolders), globs (`**` descends),
    numbers of cameras, URLs of images and streams, and lists of all these: text files, and - for standard
    input.

    Raises:
        UserError: a source does not exist, is empty, or is none of these.
    """
    found: dict[str, Source] = {}
    for source in sources:
        listed = _read_list(source)
        for one in _expand(source) if listed is None else _expand_list(source, listed):
            found.setdefault(one.address or os.path.abspath(one.path), one)
    return _with_paths_of_their_own(found.values())


def _read_list(source: str) -> list[str] | None:
    """Return the sources in a text file or in standard input (a line each, or separated by null bytes).

    None is another source, also a text file without the name of a file in it, such as labels of YOLO.
    """
    if source == _STDIN:
        if sys.stdin is None:
            raise UserError(f"{_STDIN}: standard input is closed; {_ACCEPTED}")
        data, folder = sys.stdin.buffer.read(), ""
    elif source.lower().endswith(".txt") and os.path.isfile(source):
        data, folder = read_bytes(source), os.path.dirname(source)
    else:
        return None
    lines = data.removeprefix(b"\xef\xbb\xbf").replace(b"\0", b"\n").splitlines()
    names = [os.fsdecode(line.strip()) for line in lines if line.strip()]
    beside = [os.path.join(folder, name) for name in names]
    places = [
        other if os.path.lexists(other) and not os.path.lexists(name) else name
        for name, other in zip(names, beside, strict=True)
    ]
    if source != _STDIN and not any(os.path.lexists(place) or "://" in place for place in places):
        log(f"{source}: names no file that is there, so it is not read as a list")
        return None
    return places


def _expand_list(source: str, listed: Sequence[str]) -> list[Source]:
    found = []
    for number, one in enumerate(listed, start=1):
        try:
            found += _expand(one)
        except UserError as error:
            raise UserError(f"{source}, entry {number}: {error}") from None
    if not found:
        raise UserError(f"{source}: no path came on standard input; {_ACCEPTED}")
    return found


def _with_paths_of_their_own(sources: Iterable[Source]) -> list[Source]:
    """Number the paths of URLs that differ only in what a file name cannot hold."""
    taken: set[Path] = set()
    result = []
    for source in sources:
        path, number = source.path, 1
        while source.address and path in taken:
            number += 1
            path = source.path.with_stem(f"{source.path.stem}_{number}")
        taken.add(path)
        result.append(replace(source, path=path))
    return result


def _expand(source: str) -> list[Source]:
    path = Path(source)
    if path.is_dir():
        inside = [path / name for name in os.listdir(path)]
        found, others = _visible_among(inside, path), _count_others(inside)
        deeper = f"'{source.rstrip('/')}/**/*'"
        if not found:
            only = f", only other files ({others})" if others else ""
            raise UserError(f"{source}: no images directly in this folder{only}; {deeper} looks below it")
        if others:
            log(f"{source}: other files not used: {others}")
        if below := _count_images_below(path):
            log(f"{source}: {plural(below, 'image')} in subfolders not read; {deeper} reads them too")
        return found
    if os.path.lexists(path):  # a broken link too: reading it says what is wrong
        return [_as_source(path)]
    if source.isascii() and source.isdigit():
        if len(source.lstrip("0")) > _LONGEST_NUMBER:
            raise UserError(f"{source}: no such file, and too large for the number of a camera; {_ACCEPTED}")
        return [Source("live", Path(f"camera{source}.mp4"), source)]
    if "://" in source:
        place = re.sub(r"^[^/]*@|[?#].*", "", source.partition("://")[2])
        name = re.sub(r"[^\w.-]+", "_", place).strip("_.")
        kind, copy = probe_url(source)
        if kind == "image":
            return [Source(kind, Path(name if is_image(name) else f"{name}.jpg"), source, copy)]
        return [Source(kind, Path(f"{name}.mp4"), source)]
    if not glob.has_magic(source):
        raise UserError(f"{source}: no such file or folder; {_ACCEPTED}")
    named = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)
    matches = _descend(path.parts) if "**" in path.parts else map(Path, glob.iglob(source))
    found = _visible_among(matches, Path(*named))
    if not found:
        raise UserError(f"{source}: matches no image; {_ACCEPTED}")
    return found


def _descend(parts: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files that fit a glob with `**`; glob itself would follow links that lead back forever."""
    start = parts.index("**")
    for folder in map(Path, glob.iglob(str(Path(*parts[:start])))):
        for file in walk_folder(folder).files if folder.is_dir() else ():
            if _fits(file.split("/"), parts[start:]):
                yield folder / file


def _fits(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Tell whether the names of a path fit the parts of a glob; no wildcard fits a hidden file."""
    if not pattern or not names:
        return not names and all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return _fits(names, pattern[1:]) or (not names[0].startswith(".") and _fits(names[1:], pattern))
    is_hidden = names[0].startswith(".") and not pattern[0].startswith(".")
    return not is_hidden and fnmatch.fnmatch(names[0], pattern[0]) and _fits(names[1:], pattern[1:])


def _count_images_below(folder: Path) -> int:
    """Count the images in subfolders; none if one of them cannot be read, which nobody asked for."""
    try:
        files = walk_folder(folder).files
    except UserError:
        return 0
    return sum(is_image(file) for file in files if "/" in file)


def _count_others(paths: Iterable[Path]) -> str:
    """Count the files that are neither images nor videos by suffix; empty if there are none."""
    plain = (path for path in paths if not path.name.startswith(".") and not is_system_file(path.name))
    suffixes = Counter(path.suffix.lower() or "without suffix" for path in plain if path.is_file())
    others = [(suffix, count) for suffix, count in suffixes.most_common() if suffix not in _SUFFIXES]
    return ", ".join(f"{count} {suffix}" for suffix, count in others[:5]) + ", ..." * (len(others) > 5)


def _visible_among(paths: Iterable[Path], folder: Path) -> list[Source]:
    """Return the images and videos; below `folder`, which the user named, without system files."""
    found = (path for path in paths if path.suffix.lower() in _SUFFIXES and not path.is_dir())
    return [
        _as_source(path)
        for path in sorted(found)
        if not any(map(is_system_file, path.relative_to(folder).parts))
    ]


def _as_source(path: Path) -> Source:
    return Source("video" if path.suffix.lower() in VIDEO_SUFFIXES else "image", path)
