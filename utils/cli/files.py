"""Writing files whole or not at all, and making the folder of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from utils.cli.errors import UserError


@contextmanager
def atomic_write(path: Path | str, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file that appears under its name only when the block ends without an exception.

    The bytes go to `<path>.tmp` in the same folder, are flushed and synced to the disk, then renamed over
    `path`; after a failure the old file is untouched and the temporary one is gone. A link is followed; into
    a pipe or a device the bytes go as they come.

    Args:
        path: the file to write; its folder must exist.
        mode: "wb" for bytes or "w" for UTF-8 text.

    Raises:
        UserError: the file cannot be written (exit code 1); names the file and the reason.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"mode must be 'wb' or 'w', got {mode!r}")
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        with _open(path, mode) as file:  # a pipe or a device: never replaced, never removed
            yield file
        return
    target = Path(os.path.realpath(path))
    temporary = target.with_name(target.name + ".tmp")
    try:
        with _open(temporary, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BrokenPipeError:
        _remove(temporary)
        raise
    except OSError as error:
        _remove(temporary)
        if error.filename not in (None, os.fspath(temporary)):
            raise  # the block's own trouble with another file
        raise UserError(f"{path}: cannot write: {error.strerror or error}", exit_code=1) from error
    except BaseException:
        _remove(temporary)
        raise


def check_place(flag: str, path: str | None) -> None:
    """Hold, before any work, that a file can be written where a flag says.

    Raises:
        UserError: it is a folder, or the folder that would hold it is not there.
    """
    if path is None:
        return
    if Path(path).is_dir():
        raise UserError(f"{flag} {path}: is a folder; name a file")
    if not Path(path).parent.is_dir():
        raise UserError(f"{flag} {path}: there is no such folder to write into")


def new_run_folder(project: Path | str, name: str = "exp", exist_ok: bool = False) -> Path:
    """Make the folder PROJECT/NAME of a run and prove that files can be written into it.

    Args:
        project: the folder that holds the runs; made when missing.
        name: the run's name; where it is taken, NAME2, NAME3 ... is made.
        exist_ok: use PROJECT/NAME even when it is there.

    Raises:
        UserError: the name is no plain folder name, or the folder cannot be made or written to.
    """
    if name in ("", ".", "..") or "/" in name or os.sep in name:
        raise UserError(f"--name {name!r}: not a plain folder name; the folder above it is --project")
    folder = Path(project) / name
    try:
        if exist_ok:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = _make_numbered(folder)
        probe = folder / ".probe.tmp"
        probe.write_bytes(b"probe")
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"{folder}: cannot write here: {reason}; choose another folder with --project"
        ) from error
    return folder


@contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """Remove a folder when the block fails before anything is in it."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            folder.rmdir()
        raise


def _open(path: Path, mode: str) -> IO[Any]:
    return open(path, "wb") if mode == "wb" else open(path, "w", encoding="utf-8", newline="\n")


def _make_numbered(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        candidate = folder if number == 1 else folder.with_name(f"{folder.name}{number}")
        try:
            candidate.mkdir()  # mkdir is the lock: two runs started at once get two folders
        except FileExistsError:
            number += 1
        else:
            return candidate


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
