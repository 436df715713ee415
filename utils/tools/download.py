"""data.py download: Pascal VOC 2007 and 2012 through torchvision.

torchvision has the addresses and checks the md5 of each archive. Here the folder appears complete or not at
all, and nothing that exists is overwritten.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import sys
import tarfile
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from torchvision.datasets import VOCDetection
from torchvision.datasets.utils import check_md5
from torchvision.datasets.voc import DATASET_YEAR_DICT

from utils.cli.console import log
from utils.cli.errors import UserError
from utils.cli.files import check_free_space
from utils.cli.tool_configs import DownloadConfig
from utils.tools.atomic_folder import temporary_folder
from utils.tools.printing import next_command, print_lines

_TIMEOUT = 60  # seconds without a byte
_SIZES = {"2007": 460_032_000, "2007-test": 451_020_800, "2012": 1_999_639_040}  # bytes by torchvision's key


@dataclass(frozen=True)
class _Archive:
    year: str
    image_set: str
    size: int  # bytes
    url: str
    md5: str
    path: Path  # in the data folder, where the user may have put it
    is_local: bool


def run(config: DownloadConfig) -> int:
    """Download and unpack, and print the next command; returns the exit status.

    Raises:
        UserError: the disk is too small, or an archive cannot be downloaded or read.
    """
    data = Path(config.data)
    archives = _find_archives(data, config.years)
    # The content of an archive is as large as the archive.
    check_free_space(data, sum(one.size * (1 if one.is_local else 2) for one in archives), "--data")
    for year in dict.fromkeys(config.years):
        with temporary_folder(data / f"VOC{year}.tmp") as root:
            for archive in archives:
                if archive.year == year:
                    _unpack(root, archive)
                    if config.keep and not archive.is_local:
                        os.replace(root / archive.path.name, archive.path)
            os.rename(root / DATASET_YEAR_DICT[year]["base_dir"], data / f"VOC{year}")
        print_lines([str(data / f"VOC{year}")])
    print_lines([next_command("data.py", "check", "--data", str(data))])
    return 0


def _find_archives(data: Path, years: tuple[str, ...]) -> list[_Archive]:
    """List and log the archives of these years; one in the folder with another md5 is refused."""
    archives = []
    for key, size in _SIZES.items():
        year, _, test = key.partition("-")
        if year not in years:
            continue
        entry = DATASET_YEAR_DICT[key]
        path, url, md5 = data / entry["filename"], entry["url"], entry["md5"]
        is_local = path.exists()
        if is_local:
            log(f"{path}: checking its md5")
            if not check_md5(path, md5):
                raise UserError(f"{path}: not the whole official file (its md5 is not {md5}); delete it")
        source = f"is here: {path}" if is_local else f"from {url}"
        log(f"{path.name}  {size / 1e6:.0f} MB  md5 {md5}  {source}")
        archives.append(_Archive(year, test or "trainval", size, url, md5, path, is_local))
    return archives


def _unpack(root: Path, archive: _Archive) -> None:
    """Let torchvision download, check and unpack one archive into root.

    Raises:
        UserError: it cannot be downloaded or read; names the address, and where to put the file by hand.
    """
    log(f"downloading and unpacking {archive.path.name}")
    if archive.is_local:  # its md5 is right; torchvision looks for it in root
        try:
            os.link(archive.path, root / archive.path.name)
        except OSError:  # a file system without links
            shutil.copyfile(archive.path, root / archive.path.name)
    shows_bar = sys.stderr.isatty()  # torchvision's progress bar is for a terminal
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)  # torchvision sets none for a silent server
    try:
        with nullcontext() if shows_bar else redirect_stderr(io.StringIO()):
            VOCDetection(str(root), year=archive.year, image_set=archive.image_set, download=True)
    except (OSError, HTTPException, RuntimeError, tarfile.TarError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise UserError(
            f"{archive.url}: cannot download: {' '.join(str(reason).split())[:100]}; put the file (md5 "
            f"{archive.md5}) at {archive.path} by hand and rerun the same command",
            exit_code=1,
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
