"""One run a folder: a lock that a process which was killed does not leave behind."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import IO

from utils.cli.errors import UserError

try:
    import fcntl
except ImportError:  # Windows, where two runs in one folder go unnoticed
    fcntl = None  # type: ignore[assignment]


class FolderLock:
    """Hold a folder for this process; the system lets go of it when the process ends in any way.

    The file `run.lock` says who holds it. It stays behind after a kill, but then nobody holds it.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises:
            UserError: another process holds it.
        """
        self._path = folder / "run.lock"
        try:
            self._file: IO[str] = open(self._path, "a+", encoding="utf-8")  # noqa: SIM115 (held open)
        except OSError as error:
            raise UserError(f"{self._path}: cannot write: {error.strerror or error}") from error
        try:
            _lock(self._file)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read(200).strip() or "another process"
            self._file.close()
            raise UserError(
                f"{folder}: {holder} is training here; wait for it, stop it, or choose another --name"
            ) from None
        try:
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self._path}: cannot write: {error.strerror or error}", exit_code=1) from error

    def release(self) -> None:
        """Let go of the folder."""
        self._path.unlink(missing_ok=True)
        self._file.close()


def _lock(file: IO[str]) -> None:
    """Lock a file for this process; a worker that it forks does not have the lock, unlike with flock."""
    if fcntl is None:
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise BlockingIOError from error  # held; other errors mean a file system that has no locks
