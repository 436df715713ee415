"""A new folder that appears complete or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.cli.errors import UserError


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Make a folder that is removed with its content when the block ends.

    Raises:
        UserError: it exists (an earlier run was killed), or it cannot be made or filled (exit code 1).
    """
    if path.exists() or path.is_symlink():
        raise UserError(f"{path}: is left by a run that was killed, or is still running; remove it")
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{path}: cannot make the folder: {error.strerror}", exit_code=1) from None
    try:
        yield path
    except OSError as error:
        named = error.filename2 or error.filename or path  # of a copy the second is the output
        raise UserError(f"{named}: {error.strerror or error}", exit_code=1) from error
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Fill `<path>.tmp`, which is renamed to `path` if the block ends without an exception, else removed.

    Raises:
        UserError: `path` is in use, or cannot be written.
    """
    check_unused(path)
    with temporary_folder(path.with_name(path.name + ".tmp")) as folder:
        yield folder
        if path.is_dir():
            path.rmdir()  # is empty; Windows renames nothing onto a folder
        folder.rename(path)


def check_unused(path: Path) -> None:
    """Refuse an --out that is a file, a link, or a folder that is not empty; the UserError names it."""
    is_empty = path.is_dir() and not path.is_symlink() and not any(path.iterdir())
    if not is_empty and (path.is_symlink() or path.exists()):
        raise UserError(f"--out {path}: is not an empty folder; choose another, nothing is overwritten")
