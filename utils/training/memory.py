"""What the C library does with the memory that a training step frees."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX in glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let glibc keep what a step frees for the next step, instead of giving it back to the system.

    Every step on a CPU takes and frees the same large blocks. By itself glibc maps each block over 32 MiB
    anew and trims its heap, so that the system clears the same pages in every step. The process stays as
    large as its largest step. Source: mallopt(3).

    Returns:
        Whether it was done; not where the C library has no such switch (macOS, Windows, musl).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and mallopt(_MMAP_MAX, 0) == 1 and mallopt(_TRIM_THRESHOLD, -1) == 1
