"""Cache of decoded images: one memory-mapped file for all processes of a machine.

All ranks and data workers map the same pages of memory, whatever the start method of the workers. The process
that writes the file removes it at its end; after a kill, the next process that caches images does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from utils.cli.console import progress
from utils.cli.errors import UserError
from utils.vision.image_reader import Pixels

_PREFIX = "yolov4-tiny-cache-"  # of a cache's folder, which contains the images and a lock
_SHARED_MEMORY = Path("/dev/shm")  # a file system in memory; only Linux has it
_SHARED_MEMORY_SHARE = 0.5  # of its free space; data workers also send their batches through it
_MEMINFO = Path("/proc/meminfo")
_MEMORY_SHARE = 0.8  # of the available memory


class ImageCache:
    """Read-only images uint8 (H, W, 3) in one file, mapped by each process that uses them.

    Pickling copies the path and the sizes, not the images.

    Attributes:
        path: the file.
        sizes: int64 (N, 2), height and width of each image in pixels.
        starts: int64 (N + 1,), the first byte of each image in the file, and the end.
    """

    def __init__(self, path: Path, sizes: Sequence[tuple[int, int]] | NDArray[np.int64]) -> None:
        self.path = path
        self.sizes = np.asarray(sizes, dtype=np.int64).reshape(-1, 2)
        self.starts = np.concatenate([[0], 3 * self.sizes.prod(axis=1)]).cumsum()
        self._bytes: Pixels | None = None

    @property
    def nbytes(self) -> int:
        """Size of all images in bytes."""
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> Pixels:
        if self._bytes is None:
            try:
                self._bytes = np.asarray(np.memmap(self.path, np.uint8, "r"))
            except OSError as error:
                reason = f"{self.path}: cannot read: {error.strerror or error}"
                raise UserError(f"--cache: {reason}; run the command again", exit_code=1) from None
        start, stop = self.starts[index : index + 2]
        return self._bytes[start:stop].reshape(*self.sizes[index], 3)

    def __reduce__(self) -> tuple[object, ...]:
        return ImageCache, (self.path, self.sizes)


def cache_images(read: Callable[[int], Pixels], sizes: Sequence[tuple[int, int]]) -> ImageCache:
    """Write images to a new cache; the file is removed with the returned object, at the latest at exit.

    Args:
        read: returns an image uint8 (H, W, 3) by its index; called in threads.
        sizes: (height, width) of each image in pixels.

    Raises:
        UserError: the images need more than 80 % of the available memory or more than the free space, the
            file cannot be written, or an image cannot be read.
    """
    needed = 3 * sum(height * width for height, width in sizes)
    place = _choose_place(needed)
    try:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        lock = FileLock(folder / "lock", fallback_to_soft=False)
        lock.acquire()
        cache = ImageCache(folder / "images", sizes)
        weakref.finalize(cache, _remove, folder, lock, os.getpid())
        _write(cache, read)
    except OSError as error:
        raise UserError(
            f"--cache: {place}: cannot write: {error.strerror or error}; {_advice(needed)}", exit_code=1
        ) from error
    return cache


def available_memory() -> int | None:
    """Return the bytes of memory that a new process can use; None if the system does not tell."""
    try:
        lines = _MEMINFO.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _choose_place(needed: int) -> Path:
    """Return the folder for a cache of so many bytes, after the removal of abandoned ones."""
    temporary = Path(tempfile.gettempdir())
    for place in (_SHARED_MEMORY, temporary):
        _remove_abandoned(place)
    available = available_memory()  # the pages of the file stay in memory wherever the file is
    if available is not None and needed > _MEMORY_SHARE * available:
        raise UserError(
            f"--cache: the images need {needed / 1e9:.1f} GB, more than {_MEMORY_SHARE:.0%} of the "
            f"{available / 1e9:.1f} GB of available memory; leave it out"
        )
    is_usable = _SHARED_MEMORY.is_dir() and os.access(_SHARED_MEMORY, os.W_OK)
    if is_usable and needed <= _SHARED_MEMORY_SHARE * shutil.disk_usage(_SHARED_MEMORY).free:
        return _SHARED_MEMORY
    free = shutil.disk_usage(temporary).free
    if needed > free:
        raise UserError(f"--cache: {temporary} has {free / 1e9:.1f} GB of free space; {_advice(needed)}")
    return temporary


def _advice(needed: int) -> str:
    return f"set TMPDIR to a folder with {needed / 1e9:.1f} GB of free space, or leave it out"


def _write(cache: ImageCache, read: Callable[[int], Pixels]) -> None:
    """Write all images to the file of a cache; the threads write, so that few images wait in memory."""
    with open(cache.path, "wb") as file, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        one_at_a_time = Lock()

        def write(index: int) -> None:
            image = read(index)
            with one_at_a_time:
                file.seek(cache.starts[index])
                file.write(image.tobytes())  # writing to a map on a full disk would be a bus error

        try:
            for _ in progress(pool.map(write, range(len(cache.sizes))), "caching", total=len(cache.sizes)):
                pass
        finally:
            pool.shutdown(cancel_futures=True)  # an unreadable image ends the wait for the others


def _remove(folder: Path, lock: FileLock, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked process
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(place: Path) -> None:
    """Remove the caches of this user whose processes were killed: nobody holds their locks."""
    user = getattr(os, "getuid", int)()  # on Windows every file has user 0
    for path in place.glob(f"{_PREFIX}*/lock"):
        with suppress(OSError, Timeout):
            if path.lstat().st_uid == user:
                with FileLock(path, blocking=False, fallback_to_soft=False):
                    pass
                shutil.rmtree(path.parent, ignore_errors=True)
