"""Decoded pictures kept in memory, if they fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from utils.cli.console import progress
from utils.cli.errors import UserError
from utils.vision.image_reader import Pixels

_MEMINFO = Path("/proc/meminfo")
_SHARE = 0.8  # of the available memory that pictures may take
_GIGA = 1e9


def available_memory() -> int | None:
    """Return the bytes of memory that a new process could take; None where the system does not say."""
    try:
        lines = _MEMINFO.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def load_all(load: Callable[[int], Pixels], sizes: Sequence[int]) -> list[Pixels]:
    """Load pictures in threads, in order, if they take no more than 80 % of the available memory.

    Args:
        load: gives the picture of an index.
        sizes: bytes that each picture takes.

    Raises:
        UserError: they do not fit, or one cannot be read.
    """
    needed, available = sum(sizes), available_memory()
    if available is not None and needed > _SHARE * available:
        raise UserError(
            f"--cache: the pictures need {needed / _GIGA:.1f} GB, more than {_SHARE:.0%} of the "
            f"{available / _GIGA:.1f} GB of memory that are available; leave it out"
        )
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        return list(progress(pool.map(load, range(len(sizes))), "caching", total=len(sizes)))
    finally:
        pool.shutdown(cancel_futures=True)  # one that cannot be read ends the wait for the others
