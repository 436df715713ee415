from __future__ import annotations

import importlib
import os
import py_compile
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from utils.cli.console import run_command
from utils.cli.error_messages import explain_failure, is_out_of_memory

MEMORY = "out of memory; try a smaller --batch-size or --imgsz, or fewer --workers"
SHARED = "shared memory (/dev/shm), through which workers send images, is full; try fewer --workers, or 0"
PEER = "another process of the run ended or cannot be reached; see its own error message"
WORKER = "a data worker died ({}): it was killed, or the machine ran out of memory; try fewer --workers, or 0"


# Classes that are slow to import, by their names.
BackendCompilerFailed = type("BackendCompilerFailed", (RuntimeError,), {"__module__": "torch._dynamo.exc"})
DistBackendError = type("DistBackendError", (RuntimeError,), {"__module__": "torch.distributed"})

# Messages as torch 2.x, numpy and Linux give them.
TABLE = [
    (RuntimeError(""), None),
    (KeyError("box"), None),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), None),
    (ValueError("memory of the house"), None),
    (
        torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 15.77 GiB of "
            "which 8.12 MiB is free."
        ),
        MEMORY,
    ),
    (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), MEMORY),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), MEMORY),
    (
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, max allowed: 9.07 GB). Tried ..."),
        MEMORY,
    ),
    (
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
            "tried to allocate 4000000000 bytes. Error code 12 (Cannot allocate memory)"
        ),
        MEMORY,
    ),
    (MemoryError(), MEMORY),
    (
        RuntimeError("Unable to allocate 7.45 GiB for an array with shape (1000000000,) and type float64"),
        MEMORY,
    ),
    (OSError(12, "Cannot allocate memory"), MEMORY),  # a worker that could not be forked
    (
        RuntimeError(
            "DataLoader worker (pid 4711) is killed by signal: Bus error. It is possible that dataloader's "
            "workers are out of shared memory. Please try to raise your shared memory limit."
        ),
        SHARED,
    ),
    (
        RuntimeError("unable to write to file </torch_4711_123_0>: No space left on device (28)"),
        SHARED,
    ),
    (
        RuntimeError("unable to allocate shared memory(shm) for file </torch_4711_1_0>: Success (0)"),
        SHARED,
    ),
    (
        RuntimeError("unable to mmap 2076672 bytes from file </torch_4711_1_0>: Cannot allocate memory (12)"),
        SHARED,
    ),
    (
        RuntimeError("DataLoader worker (pid 4711) is killed by signal: Killed. "),
        WORKER.format("DataLoader worker (pid 4711) is killed by signal: Killed."),
    ),
    (
        RuntimeError("DataLoader worker (pid(s) 4711, 4712) exited unexpectedly"),
        WORKER.format("DataLoader worker (pid(s) 4711, 4712) exited unexpectedly"),
    ),
    (
        BackendCompilerFailed(
            "backend='inductor' raised:\nInvalidCxxCompiler: No working C++ compiler found"
        ),
        "--compile: not supported here: InvalidCxxCompiler: No working C++ compiler found; remove it",
    ),
    (
        BackendCompilerFailed(""),
        "--compile: not supported here: no reason given; remove it",
    ),
    (
        RuntimeError(
            "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1234"
        ),
        PEER,
    ),
    (RuntimeError("[c10d] recvValue failed ... TCPStore ...: Connection reset by peer"), PEER),
    (DistBackendError("ncclUnhandledCudaError: Call to CUDA function failed."), PEER),
]


@pytest.mark.parametrize(("error", "explained"), TABLE, ids=lambda item: str(item)[:40])
def test_what_a_message_means(error: Exception, explained: str | None) -> None:
    assert explain_failure(error) == explained


@pytest.mark.parametrize(("error", "explained"), TABLE, ids=lambda item: str(item)[:40])
def test_out_of_memory_is_what_is_explained_as_such(error: Exception, explained: str | None) -> None:
    if explained not in (SHARED, PEER):
        assert is_out_of_memory(error) == (explained == MEMORY)


def test_the_messages_of_this_torch_and_numpy_are_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**16)
    assert explain_failure(caught.value) == MEMORY
    with pytest.raises(MemoryError) as missing:
        np.empty(10**16)
    assert explain_failure(missing.value) == MEMORY


class Deadly(torch.utils.data.Dataset[int]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        if index == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_a_death_inside_of_a_lock_is_that_of_the_worker() -> None:
    """Python 3.10 then fails to release the lock of the queue, and raises that instead."""
    error = RuntimeError("cannot release un-acquired lock")
    error.__context__ = RuntimeError("DataLoader worker (pid 4711) is killed by signal: Killed. ")
    assert explain_failure(error) == WORKER.format(
        "DataLoader worker (pid 4711) is killed by signal: Killed."
    )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torch, cleaning up
def test_a_worker_that_is_killed_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def train(argv: list[str]) -> None:
        list(DataLoader(Deadly(), num_workers=1))

    assert run_command(train, []) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: a data worker died (")
    assert said.endswith("try fewer --workers, or 0\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize("length", [16, 17, 60])
def test_a_damaged_compiled_file_is_no_dead_worker(
    length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk, or a crash of the machine, can cut the .pyc of a package."""
    source = tmp_path / f"cut_at_{length}.py"
    source.write_text("NAMES = ['one', 'two']\n", encoding="utf-8")
    compiled = Path(py_compile.compile(str(source), doraise=True))
    compiled.write_bytes(compiled.read_bytes()[:length])
    monkeypatch.syspath_prepend(tmp_path)
    assert run_command(lambda _: importlib.import_module(source.stem).NAMES, []) == 1
    assert capsys.readouterr().err == f"error: {compiled}: damaged; remove it, Python writes it again\n"
    compiled.unlink()
    assert run_command(lambda _: len(importlib.import_module(source.stem).NAMES), []) == 2


def test_the_end_of_another_file_is_no_dead_worker(capsys: pytest.CaptureFixture[str]) -> None:
    def read(argv: list[str]) -> None:
        raise EOFError("Ran out of input")

    assert run_command(read, []) == 1
    assert capsys.readouterr().err.startswith("error: unexpected EOFError: Ran out of input")
