"""Pascal VOC 2007 and 2012 through torchvision: python data.py download 2007 2012.

torchvision knows the addresses and checks the md5 of each archive; here the folder appears whole or not at
all, and nothing that exists is touched.
"""

from __future__ import annotations

import io
import os
import shlex
import shutil
import socket
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from torchvision.datasets import VOCDetection
from torchvision.datasets.utils import check_md5
from torchvision.datasets.voc import DATASET_YEAR_DICT

from utils.cli.console import log, one_line
from utils.cli.errors import UserError
from utils.cli.tool_configs import DownloadConfig
from utils.tools.folders import temporary_folder

_TIMEOUT = 60  # seconds without a byte


@dataclass(frozen=True)
class _Archive:
    """One archive: torchvision's key, year and image set for it, and its size in bytes."""

    key: str
    year: str
    image_set: str
    size: int

    @property
    def url(self) -> str:
        return str(DATASET_YEAR_DICT[self.key]["url"])

    @property
    def file_name(self) -> str:
        return str(DATASET_YEAR_DICT[self.key]["filename"])

    @property
    def md5(self) -> str:
        return str(DATASET_YEAR_DICT[self.key]["md5"])


_ARCHIVES = (
    _Archive("2007", "2007", "trainval", 460_032_000),
    _Archive("2007-test", "2007", "test", 451_020_800),
    _Archive("2012", "2012", "trainval", 1_999_639_040),
)


def run(config: DownloadConfig) -> int:
    """Fetch and unpack, and print what to type next; returns the exit status.

    Raises:
        UserError: a folder is there already, the disk is too small, or an archive cannot be had.
    """
    data = Path(config.data)
    years = list(dict.fromkeys(config.years))
    wanted = [archive for archive in _ARCHIVES if archive.year in years]
    by_hand = {archive.key: _is_here(data, archive) for archive in wanted}
    for archive in wanted:
        where = f"is here: {data / archive.file_name}" if by_hand[archive.key] else f"from {archive.url}"
        log(one_line(f"{archive.file_name}  {archive.size / 1e6:.0f} MB  md5 {archive.md5}  {where}"))
    _check_room(data, wanted, by_hand)
    for year in years:
        _fetch_year(data, year, [archive for archive in wanted if archive.year == year], by_hand, config.keep)
        print(one_line(f"{data / f'VOC{year}'}"), flush=True)
    print(one_line(f"next: {shlex.join(['python', 'data.py', 'check', '--data', str(data)])}"))
    return 0


def _is_here(data: Path, archive: _Archive) -> bool:
    """Tell whether the archive was put into the folder by hand; one with another md5 is refused."""
    path = data / archive.file_name
    if not path.exists():
        return False
    log(one_line(f"{path}: checking its md5"))
    if not check_md5(path, archive.md5):
        raise UserError(f"{path}: not the whole official file (its md5 is not {archive.md5}); delete it")
    return True


def _check_room(data: Path, wanted: list[_Archive], by_hand: dict[str, bool]) -> None:
    """Refuse a disk that cannot hold the archives and what is in them, which is as large."""
    needed = sum(archive.size * (1 if by_hand[archive.key] else 2) for archive in wanted)
    place = next(path for path in (data.absolute(), *data.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise UserError(
            f"{data}: {free / 1e9:.1f} GB are free, {needed / 1e9:.1f} GB are needed; choose another --data",
            exit_code=1,
        )


def _fetch_year(
    data: Path, year: str, archives: list[_Archive], by_hand: dict[str, bool], keep: bool
) -> None:
    with temporary_folder(data / f"VOC{year}.tmp") as root:
        for archive in archives:
            log(one_line(f"fetching and unpacking {archive.file_name}"))
            if by_hand[archive.key]:
                _lend(data / archive.file_name, root)
            _unpack(root, archive, data)
            if keep and not by_hand[archive.key]:
                os.replace(root / archive.file_name, data / archive.file_name)
        os.rename(root / DATASET_YEAR_DICT[year]["base_dir"], data / f"VOC{year}")


def _lend(path: Path, root: Path) -> None:
    """Show torchvision an archive that the user owns, without moving it; its md5 is known to be right."""
    try:
        os.link(path, root / path.name)
    except OSError:  # a file system without links
        shutil.copyfile(path, root / path.name)


def _unpack(root: Path, archive: _Archive, data: Path) -> None:
    """Let torchvision fetch, check and unpack one archive into root.

    Raises:
        UserError: it cannot be had or read; names the address and where to put the file by hand.
    """
    try:
        with _patience(), _plain_progress():
            VOCDetection(str(root), year=archive.year, image_set=archive.image_set, download=True)
    except (OSError, HTTPException, RuntimeError, tarfile.TarError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise UserError(
            f"{archive.url}: cannot fetch it: {' '.join(str(reason).split())[:100]}; put the file (md5 "
            f"{archive.md5}) at {data / archive.file_name} by hand and type the command again",
            exit_code=1,
        ) from error


@contextmanager
def _patience() -> Iterator[None]:
    """Bound the wait for a server that is silent; torchvision sets no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _plain_progress() -> redirect_stderr[io.StringIO] | nullcontext[None]:
    """Keep torchvision's progress bar out of a log: it is for a terminal."""
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    return nullcontext() if is_terminal else redirect_stderr(io.StringIO())
