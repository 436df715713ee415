from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.data.voc_xml import VocObject, write_annotation

MakeVoc = Callable[..., Path]
Images = Mapping[str, Sequence[VocObject]]


def save_picture(path: Path, width: int, height: int, seed: int) -> None:
    """Write a smooth random picture; two seeds give pictures that no hash confuses."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path, quality=95)


def write_voc(folder: Path, splits: Mapping[str, Images]) -> Path:
    """Write a folder in VOC layout: {split: {id: objects}}, images 40 x 30."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for split, images in splits.items():
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{i}\n" for i in images))
        for image_id, objects in images.items():
            save_picture(folder / "JPEGImages" / f"{image_id}.jpg", 40, 30, zlib.crc32(image_id.encode()))
            write_annotation(folder / "Annotations" / f"{image_id}.xml", f"{image_id}.jpg", 40, 30, objects)
    return folder


@pytest.fixture
def make_voc(tmp_path: Path) -> MakeVoc:
    """Give a function that writes a folder in VOC layout; see `write_voc`."""

    def make(splits: Mapping[str, Images], folder: Path = tmp_path / "voc") -> Path:
        return write_voc(folder, splits)

    return make
