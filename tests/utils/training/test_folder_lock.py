from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from utils.cli.errors import UserError
from utils.training.run_folder import FolderLock

ROOT = Path(__file__).resolve().parents[3]
HOLD = "import sys, time; from pathlib import Path; from utils.training.run_folder import FolderLock\n"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs fork")


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Give a function that runs Python until it has printed a line; the process ends with the test."""
    started = []

    def run(code: str, folder: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD + code, str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


TAKE = "lock = FolderLock(Path(sys.argv[1])); print('taken', flush=True)\n"


def test_the_file_names_the_holder_and_goes_with_it(tmp_path: Path) -> None:
    held = FolderLock(tmp_path)
    assert (tmp_path / "run.lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
    held.release()
    assert list(tmp_path.iterdir()) == []
    FolderLock(tmp_path).release()


@pytest.mark.slow
def test_another_process_is_refused_and_told_who_holds_it(tmp_path: Path, start: Callable) -> None:
    other = start(TAKE + "sys.stdin.readline(); lock.release(); print('free', flush=True)", tmp_path)
    assert other.stdout.readline() == "taken\n"
    for _ in range(2):  # the first refusal has not let go of it
        with pytest.raises(UserError) as caught:
            FolderLock(tmp_path)
        holder = f"process {other.pid} on {socket.gethostname()}"
        assert str(caught.value).startswith(f"{tmp_path}: {holder} is training here; ")
        assert "--name" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 2
    other.stdin.write("\n")
    other.stdin.flush()
    assert other.stdout.readline() == "free\n"
    FolderLock(tmp_path).release()


@pytest.mark.slow
def test_what_a_killed_process_left_is_taken_over(tmp_path: Path, start: Callable) -> None:
    other = start(TAKE + "time.sleep(60)", tmp_path)
    assert other.stdout.readline() == "taken\n"
    other.kill()
    other.wait()
    assert str(other.pid) in (tmp_path / "run.lock").read_text()
    held = FolderLock(tmp_path)
    assert (tmp_path / "run.lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
    held.release()


@pytest.mark.slow
def test_a_worker_that_outlives_its_run_does_not_hold_the_folder(tmp_path: Path, start: Callable) -> None:
    fork = "import os\nif (child := os.fork()) == 0: time.sleep(60)\nprint(child, flush=True); os._exit(0)"
    other = start(TAKE + fork, tmp_path)
    assert other.stdout.readline() == "taken\n"
    child = int(other.stdout.readline())
    try:
        assert other.wait() == 0
        os.kill(child, 0)  # still there
        FolderLock(tmp_path).release()
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_that_ends_does_not_free_the_folder(tmp_path: Path, start: Callable) -> None:
    fork = "import os\nif os.fork() == 0: sys.exit()\nos.wait(); print('ended', flush=True); time.sleep(60)"
    other = start(TAKE + fork, tmp_path)
    assert other.stdout.readline() == "taken\n"
    while (line := other.stdout.readline()) not in ("ended\n", ""):
        pass
    assert line
    with pytest.raises(UserError, match=f"process {other.pid} on"):
        FolderLock(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.lock").mkdir()
    with pytest.raises(UserError, match=r"run\.lock: cannot write: Is a directory"):
        FolderLock(tmp_path)


@pytest.mark.parametrize("number", ["ENOLCK", "EOPNOTSUPP", "ENOSYS"])
def test_a_file_system_without_locks_does_not_stop_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(getattr(errno, number), "no locks")

    monkeypatch.setattr("fcntl.flock", refuse)
    held = FolderLock(tmp_path)
    assert str(os.getpid()) in (tmp_path / "run.lock").read_text()
    held.release()
    assert list(tmp_path.iterdir()) == []
