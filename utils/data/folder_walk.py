"""Files of a data folder: all of them listed once, and which of them are images.

Every command sees the same files. Those that macOS, Windows and a NAS leave behind never count, nor does
anything in a hidden folder such as .git.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from utils.cli.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
VIDEO_SUFFIXES = (
    *(".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".wmv", ".mpg", ".mpeg", ".mjpeg", ".flv", ".3gp"),
    *(".ts", ".mts", ".m2ts", ".ogv"),
)
_MAX_DEPTH = 200
_SYSTEM_NAMES = frozenset({".ds_store", "thumbs.db", "desktop.ini", "__macosx", "@eadir", "lost+found"})
_SYSTEM_NAMES |= {"$recycle.bin", "system volume information"}


@dataclass
class FolderWalk:
    """Files below a folder."""

    root: Path
    # Paths below it as on disk, with slashes; those of a folder before those of its subfolders.
    files: list[str] = field(default_factory=list)
    system_files: list[str] = field(default_factory=list)  # paths that never count
    # Names of the folders in each folder; folders end with a slash, "" is the root.
    subfolders: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _ranges: dict[str, slice] = field(default_factory=dict)

    def below(self, folder: str) -> list[str]:
        """Return the files below a folder such as "VOC2007/JPEGImages/"; none if there is no such folder."""
        return self.files[self._ranges.get(folder, slice(0, 0))]


def walk_folder(root: Path | str) -> FolderWalk:
    """List the files below a folder, sorted by name within each folder.

    Linked folders are entered, except for those that lead back to a folder above, also above `root`, and
    those inside a linked folder.

    Raises:
        UserError: a folder cannot be read, or is more than 200 folders deep.
    """
    walk = FolderWalk(Path(root))
    _enter(walk, "", is_system=False, is_linked=False)
    return walk


def is_system_file(name: str) -> bool:
    """Tell whether a file or folder of this name never counts."""
    return name.startswith("._") or name.casefold() in _SYSTEM_NAMES


def files_in(folder: Path, *suffixes: str) -> list[Path]:
    """List the files of a folder, not of its subfolders, with a suffix in any case, without system files."""
    found = (path for path in folder.glob("*") if path.name.lower().endswith(suffixes) and path.is_file())
    return sorted(path for path in found if not is_system_file(path.name))


def is_image(path: Path | str) -> bool:
    """Tell by its suffix whether a file is an image."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


def _enter(walk: FolderWalk, folder: str, *, is_system: bool, is_linked: bool) -> None:
    """List one folder, then its subfolders."""
    path = os.path.join(walk.root, folder)
    if folder.count("/") > _MAX_DEPTH:
        raise UserError(f"{path[:100]}...: more than {_MAX_DEPTH} folders inside each other; move them apart")
    try:
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        if is_system:
            return
        raise UserError(f"{path}: cannot list the files: {error.strerror}") from None
    first, inside = len(walk.files), []
    for entry in entries:
        system = is_system or is_system_file(entry.name)
        if _is_folder(entry):
            if not entry.is_symlink() or not (is_linked or _leads_back(entry.path, path)):
                inside.append((entry, system or entry.name.startswith(".")))
        else:
            (walk.system_files if system else walk.files).append(folder + entry.name)
    for entry, system in inside:
        if not system:
            walk.subfolders[folder].append(entry.name)
        linked = is_linked or entry.is_symlink()
        _enter(walk, f"{folder}{entry.name}/", is_system=system, is_linked=linked)
    walk._ranges[folder] = slice(first, len(walk.files))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _leads_back(link: str, folder: str) -> bool:
    """Tell whether a link in a folder leads to it or to a folder above it, by its real or its given path."""
    forms = Path(folder).absolute(), Path(os.path.realpath(folder))
    return any(os.path.samefile(link, place) for form in forms for place in (form, *form.parents))
