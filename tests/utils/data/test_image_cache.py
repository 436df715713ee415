from __future__ import annotations

import errno
import gc
import os
import pickle
import shutil
import signal
import tempfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.file_size_limit import file_size_limit
from tests.training_room import session, started, wait_until
from utils.cli.errors import UserError
from utils.data import image_cache
from utils.data.image_cache import cache_images
from utils.vision.image_reader import Pixels

SIZES = [(3, 5), (1, 1), (40, 30), (7, 2)]
NEEDED = sum(3 * height * width for height, width in SIZES)
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the place of caches in shared memory; the temporary folder is beside it."""
    for name in ("memory", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(image_cache, "_SHARED_MEMORY", tmp_path / "memory")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "memory"


def picture(index: int) -> Pixels:
    return np.random.default_rng(index).integers(0, 256, (*SIZES[index], 3), dtype=np.uint8)


def caches_in(folder: Path) -> list[Path]:
    return [path.parent for path in folder.glob("*/images")]


def test_no_images(memory: Path) -> None:
    cache = cache_images(picture, [])
    assert cache.nbytes == 0
    assert caches_in(memory) == [cache.path.parent]


def test_images_come_back_and_cannot_be_written_to() -> None:
    cache = cache_images(picture, SIZES)
    assert cache.nbytes == NEEDED == cache.path.stat().st_size
    for index in reversed(range(len(SIZES))):
        np.testing.assert_array_equal(cache[index], picture(index))
        assert type(cache[index]) is np.ndarray
        with pytest.raises(ValueError, match="read-only"):
            cache[index][0, 0, 0] = 1


def test_the_file_goes_with_the_cache_and_not_with_a_copy(memory: Path) -> None:
    cache = cache_images(picture, SIZES)
    cache[0]  # a map that is open is not pickled either
    pickled = pickle.dumps(cache)
    assert len(pickled) < 1000 < NEEDED
    copy = pickle.loads(pickled)
    np.testing.assert_array_equal(copy[2], picture(2))
    del copy
    assert caches_in(memory) == [cache.path.parent]
    del cache
    assert list(memory.iterdir()) == []


def test_a_forked_process_leaves_the_file(memory: Path) -> None:
    cache = cache_images(picture, SIZES)
    child = os.fork()
    if child == 0:
        del cache
        os._exit(0)
    os.waitpid(child, 0)
    assert caches_in(memory) == [cache.path.parent]


def test_a_lost_file_is_one_line() -> None:
    cache = cache_images(picture, SIZES)
    shutil.rmtree(cache.path.parent)
    with pytest.raises(UserError, match=f"^--cache: {cache.path}: cannot read: ") as caught:
        cache[0]
    assert caught.value.exit_code == 1


def test_an_image_that_cannot_be_read_leaves_nothing(memory: Path) -> None:
    def read(index: int) -> Pixels:
        if index == 2:
            raise UserError("2.jpg: truncated")
        return picture(index)

    with pytest.raises(UserError, match=r"2\.jpg"):
        cache_images(read, SIZES)
    gc.collect()
    assert list(memory.iterdir()) == []


@pytest.mark.parametrize(
    ("in_memory", "on_disk", "place"),
    [
        (2 * NEEDED, 0, "memory"),
        (2 * NEEDED - 2, NEEDED, "temporary"),  # data workers need the other half
        (0, NEEDED - 1, None),
    ],
)
def test_the_place_is_one_with_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int, on_disk: int, place: str | None
) -> None:
    free = {"memory": in_memory, "temporary": on_disk}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, free[Path(path).name]))
    if place is None:
        words = f"^--cache: {tmp_path / 'temporary'} has 0.0 GB of free space; set TMPDIR to .* 0.0 GB"
        with pytest.raises(UserError, match=words):
            cache_images(picture, SIZES)
    else:
        assert cache_images(picture, SIZES).path.parent.parent == tmp_path / place


def test_a_system_without_shared_memory_uses_the_temporary_folder(tmp_path: Path, memory: Path) -> None:
    memory.rmdir()
    assert cache_images(picture, SIZES).path.parent.parent == tmp_path / "temporary"


def test_a_disk_that_fills_up_is_named(memory: Path) -> None:
    with file_size_limit(NEEDED - 1), pytest.raises(UserError) as caught:
        cache_images(picture, SIZES)
    start = f"--cache: {memory}: cannot write: {os.strerror(errno.EFBIG)}; set TMPDIR"
    assert str(caught.value).startswith(start)
    assert caught.value.exit_code == 1
    del caught
    gc.collect()
    assert list(memory.iterdir()) == []


@pytest.mark.parametrize(
    ("meminfo", "fits"),
    [
        ("MemTotal: 9 kB\nMemAvailable:   40 kB\n", True),
        ("MemAvailable:   5 kB\n", True),  # 3.8 of 4.1 kB
        ("MemAvailable:   4 kB\n", False),
        ("MemTotal: 1 kB\n", True),  # the system does not say
        (None, True),
    ],
)
def test_a_cache_leaves_memory_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meminfo: str | None, fits: bool
) -> None:
    monkeypatch.setattr(image_cache, "_MEMINFO", tmp_path / "meminfo")
    if meminfo is not None:
        (tmp_path / "meminfo").write_text(meminfo)
    if fits:
        assert cache_images(picture, SIZES).nbytes == NEEDED
        return
    with pytest.raises(
        UserError, match=r"^--cache: the images need .* GB, more than 80% of the .* GB"
    ) as caught:
        cache_images(picture, SIZES)
    assert caught.value.exit_code == 2


def hold(_: list[str]) -> int:
    """Fill a cache, and stay until killed; so does a forked process, which does not keep the cache."""
    cache = cache_images(picture, SIZES)
    if os.fork() == 0:
        signal.pause()
    Path("path.txt.tmp").write_text(str(cache.path))
    Path("path.txt.tmp").rename("path.txt")
    signal.pause()
    return 0


@contextmanager
def held_until_killed(meanwhile: Callable[[], object] = int) -> Iterator[Path]:
    """Have a process fill a cache, call a function, kill the process and give its file."""
    with started(work=hold) as command:
        wait_until(lambda: Path("path.txt").exists() or not command.runs)
        path = Path(Path("path.txt").read_text())
        meanwhile()
        assert path.exists()
        command.signal(signal.SIGKILL)
        wait_until(lambda: command.pid not in session(command.pid))
        assert len(command.children()) == 1
        yield path


def test_what_a_killed_process_left_is_removed_and_only_that() -> None:
    own = cache_images(picture, SIZES)
    with held_until_killed(lambda: cache_images(picture, SIZES)) as path:
        other = cache_images(picture, SIZES)
        assert not path.parent.exists()
    assert own.path.exists()
    assert other.path.exists()


def test_what_another_user_left_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    with held_until_killed() as path:
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        cache_images(picture, SIZES)
        assert path.exists()
