"""A small folder in VOC layout to train and select on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from utils.data.voc_xml import VocObject, write_annotation


def make_voc_folder(folder: Path, train_images: int, val_images: int) -> None:
    """Make pictures of noise, 80 x 60 pixels, with a cat or a dog in each, and the lists train and val."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    names = [str(index) for index in range(train_images + val_images)]
    for index, name in enumerate(names):
        pixels = np.random.default_rng(index).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"JPEGImages/{name}.jpg")
        objects = [VocObject(("cat", "dog")[index % 2], (10.0, 10.0, 50.0, 40.0 + index))]
        write_annotation(folder / f"Annotations/{name}.xml", f"{name}.jpg", 80, 60, objects)
    for part, listed in (("train", names[:train_images]), ("val", names[train_images:])):
        (folder / f"ImageSets/Main/{part}.txt").write_text("".join(f"{name}\n" for name in listed))
