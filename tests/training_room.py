"""A room to train in: made data, short commands, and processes that never outlive their test."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.distributed import run as launcher
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import train

QUICK = ("--data", "data", "--imgsz", "64", "--weights", "none", "--device", "cpu", "--batch-size", "2")
Setup = Callable[[], object]
Work = Callable[[list[str]], int]


def folder_of(name: str) -> Path:
    return Path("runs/train", name)


def last_of(name: str) -> Path:
    return folder_of(name) / "weights/last.pth"


def content_of(path: Path) -> dict[str, Any]:
    """Return all of a checkpoint but the settings, which may differ in the number of workers."""
    content = torch.load(path, weights_only=True)
    content.pop("run_config")
    return content


def same(ours: Any, theirs: Any) -> bool:
    """Tell whether two nested values are equal, tensors to the bit."""
    if isinstance(ours, torch.Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[name], theirs[name]) for name in ours)
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return bool(ours == theirs)


def are_same_runs(ours: str, theirs: str) -> bool:
    """Tell whether two runs ended with the same checkpoint and the same table, but for times and memory."""
    return same(content_of(last_of(ours)), content_of(last_of(theirs))) and table_of(ours) == table_of(theirs)


def table_of(name: str) -> list[dict[str, str]]:
    """Return the rows of results.csv without what differs from run to run."""
    lines = (folder_of(name) / "results.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    passing = ("images_per_second", "seconds", "waiting", "memory_gb")
    return [{key: value for key, value in row.items() if key not in passing} for row in rows]


def errors_in(text: str) -> list[str]:
    """Return the error lines; nothing of a traceback may be there."""
    assert "Traceback" not in text, text
    return [line for line in text.splitlines() if line.startswith("error:")]


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Look until it is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"did not come about in {seconds} s"
        time.sleep(0.002)


class Command:
    """A training command in a process and a session of its own.

    It is forked, since importing torch takes longer than the run.
    """

    def __init__(self, argv: Sequence[str], log: Path, before: Setup, work: Work) -> None:
        self._log = log
        fork = multiprocessing.get_context("fork")
        self._process = fork.Process(target=_body, args=(argv, log, before, work))
        self._process.start()
        self.pid = self._process.pid or 0

    @property
    def text(self) -> str:
        """What it has written so far."""
        return self._log.read_text() if self._log.exists() else ""

    def wait(self, seconds: float = 60.0) -> int:
        """Wait for the end; returns the exit status, of a signal's death the negative number."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, f"still runs after {seconds} s: {self.text}"
        return self._process.exitcode

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.text or not self.runs)
        assert text in self.text

    def wait_for_saves(self, path: Path, count: int) -> None:
        """Wait until the file has appeared or been replaced so many times."""
        seen = {_identity(path)}
        wait_until(lambda: seen.add(_identity(path)) or len(seen) > count or not self.runs)
        assert self.runs, f"ended too early: {self.text}"

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def signal_all(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def children(self) -> list[int]:
        """Return the processes of its session that live, without itself."""
        return [pid for pid in session(self.pid) if pid != self.pid]

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def end(self) -> None:
        """Kill what is left of it."""
        self.signal_all(signal.SIGKILL)
        self._process.join(10)


def session(leader: int) -> list[int]:
    """Return the processes of a session that live."""
    return [pid for pid, (_, number) in _living().items() if number == leader]


def children_of(parent: int) -> list[int]:
    """Return the processes that one has started and that live."""
    return [pid for pid, (number, _) in _living().items() if number == parent]


def _living() -> dict[int, tuple[int, int]]:
    """Return parent and session of each process."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent, _, leader = stat.read_text().rpartition(")")[2].split()[:4]
            if state != "Z":
                found[int(stat.parent.name)] = (int(parent), int(leader))
    return found


def _identity(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return stat.st_ino, stat.st_mtime_ns


def _body(argv: Sequence[str], log: Path, before: Setup, work: Work) -> None:
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(file, number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    torch.set_num_threads(1)  # those of the parent did not survive the fork
    try:
        before()
        status = work([*argv])
    except BaseException:
        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(status)


@contextmanager
def started(
    *argv: str, log: str = "log.txt", before: Setup = int, work: Work = train.main
) -> Iterator[Command]:
    """Start a command in the folder of the test; it is killed at the end of the block if it still runs.

    Args:
        argv: of train.py.
        log: the file that it writes to.
        before: called in the new process first.
        work: what to do with the arguments.
    """
    Path(log).unlink(missing_ok=True)
    command = Command(argv, Path(log), before, work)
    try:
        yield command
    finally:
        command.end()


@contextmanager
def joined_processes(*argv: str, number: int = 2, work: Work = train.main) -> Iterator[list[Command]]:
    """Start one command in several processes that know of each other, as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def place(rank: int) -> None:
        known = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": number, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in known.items()}, MASTER_ADDR="127.0.0.1")

    with ExitStack() as stack:
        yield [
            stack.enter_context(started(*argv, log=f"log{rank}.txt", before=partial(place, rank), work=work))
            for rank in range(number)
        ]


def _torchrun(argv: list[str]) -> int:
    os.environ["OMP_NUM_THREADS"] = "1"
    launcher.main(argv)
    return 0


@contextmanager
def torchrun(*argv: str) -> Iterator[Command]:
    """Start train.py in two processes by torchrun, which alone is forked."""
    options = ("--standalone", "--nproc-per-node", "2", train.__file__)
    with started(*options, *argv, work=_torchrun) as command:
        try:
            yield command
        finally:
            for pid in children_of(command.pid):  # they have sessions of their own
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@contextmanager
def forking_torchrun(*argv: str, restarts: int) -> Iterator[Command]:
    """Start train.py in two processes by what is behind torchrun, which can fork them too.

    Each writes its number to pid0.txt or pid1.txt.
    """

    def one(argv: list[str]) -> None:
        torch.set_num_threads(1)
        Path(f"pid{os.environ['RANK']}.txt").write_text(str(os.getpid()))
        status = train.main(argv)
        if status:
            sys.exit(status)

    def launch(argv: list[str]) -> int:
        place = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": "forked"}
        elastic_launch(
            LaunchConfig(1, 1, 2, DefaultLogsSpecs(), max_restarts=restarts, start_method="fork", **place),
            one,
        )(argv)
        return 0

    with started(*argv, work=launch) as command:
        yield command
