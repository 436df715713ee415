"""Helpers for tests of `data.py convert`: write images, run the command, read the result."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import data
from utils.data.voc_xml import VocObject, read_annotation


def save_picture(path: Path, width: int = 40, height: int = 30, orientation: int | None = None) -> Path:
    """Write a picture of noise, with an EXIF orientation if one is given; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes(hashlib.sha256(str(path).encode()).digest()[:4], "big")
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(path, exif=exif)
    return path


def save_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def save_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def run_convert(*argv: object) -> int:
    """Run the command."""
    return data.main(["convert", *map(str, argv)])


def refusal(capsys: pytest.CaptureFixture[str], *argv: object, status: int = 2) -> str:
    """Run the command, which must fail with one error line and without a trace; return all it wrote."""
    capsys.readouterr()
    out = Path(str(argv[list(argv).index("--out") + 1])) if "--out" in argv else None
    before = snapshot(out.parent) if out is not None and out.parent.exists() else {}
    assert run_convert(*argv) == status
    said = capsys.readouterr()
    assert said.out == ""
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert len(errors[0]) <= 420
    assert "Traceback" not in said.err
    assert "unexpected" not in errors[0]
    if out is not None and out.parent.exists():
        assert snapshot(out.parent) == before
    return said.err


def snapshot(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder, and an empty text for every folder, by path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
    }


def boxes_of(folder: Path) -> dict[str, list[VocObject]]:
    """Read the annotations of a folder in VOC layout by id, and hold each to have its image."""
    found = {}
    for path in sorted((folder / "Annotations").glob("*.xml")):
        annotation = read_annotation(path)
        images = [image for image in (folder / "JPEGImages").iterdir() if image.stem == path.stem]
        assert len(images) == 1
        found[path.stem] = list(annotation.objects)
    return found


def lists_of(folder: Path) -> dict[str, list[str]]:
    """Read the split lists of a folder in VOC layout."""
    lists = (folder / "ImageSets" / "Main").glob("*.txt")
    return {path.stem: path.read_text(encoding="utf-8").splitlines() for path in lists}
