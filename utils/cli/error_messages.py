"""One-line explanations of exceptions from torch and its worker processes."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from types import FrameType

_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "Unable to allocate",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
_SHARED_MEMORY = ("insufficient shared memory", "file </torch", "Bus error")
# Raised by multiprocessing when a worker has just died and torch has not noticed yet.
_WORKER_GONE = (EOFError, FileNotFoundError, ConnectionError)
_PEERS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "gloo",
    "NCCL",
    "DistBackendError",
    "DistNetworkError",
    "DistStoreError",
    "TCPStore",
)


def _texts(error: BaseException | None) -> Iterator[str]:
    """Yield the text of an error, and of those that it came in the handling of."""
    while error is not None:
        yield str(error)
        error = error.__context__


def _raised_in(error: BaseException) -> FrameType | None:
    """Return the innermost frame of an error, None if it was not raised."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1] if frames else None


def _tells_of_a_dead_worker(text: str) -> bool:
    return "DataLoader worker" in text and ("killed" in text or "exited unexpectedly" in text)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the device or the machine ran out of memory; torch has several errors for it."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _MEMORY)


def explain_missing_module(error: ModuleNotFoundError) -> str:
    """Return which package is missing, and what to do."""
    return f"{error}; activate the environment (source .venv/bin/activate) or pip install -r requirements.txt"


def explain_failure(error: Exception) -> str | None:
    """Return what went wrong and what to do, or None for an unknown exception."""
    text, kind = str(error), f"{type(error).__module__}.{type(error).__name__}"
    frame = _raised_in(error)
    if frame and frame.f_code.co_name == "_compile_bytecode":  # in importlib
        return f"{frame.f_locals.get('bytecode_path')}: damaged; remove it, Python writes it again"
    if any(sign in text for sign in _SHARED_MEMORY):
        return (
            "shared memory (/dev/shm), through which workers send images, is full; try fewer --workers, or 0"
        )
    death = next(filter(_tells_of_a_dead_worker, _texts(error)), None)
    is_of_pipe = bool(frame and frame.f_globals.get("__name__", "").startswith("multiprocessing."))
    is_cut_off = is_of_pipe and isinstance(error, _WORKER_GONE)
    if death is not None or is_cut_off:
        cause = "connection lost" if death is None else _cause(death)
        return (
            f"a data worker died ({cause}): it was killed, or the machine ran out of memory; try "
            "fewer --workers, or 0"
        )
    if is_out_of_memory(error):
        return "out of memory; try a smaller --batch-size or --imgsz, or fewer --workers"
    if kind.startswith(("torch._dynamo", "torch._inductor")):
        return f"--compile: not supported here: {_cause(text)}; remove it"
    if any(sign in text or sign in kind for sign in _PEERS):
        return "another process of the run ended or cannot be reached; see its own error message"
    return None


def _cause(text: str) -> str:
    """Return the most useful line: the first, after the compiler's own heading."""
    lines = [line for line in text.strip().splitlines() if not line.endswith("raised:")]
    return lines[0][:200] if lines else "no reason given"
