"""A folder to predict in: weights and a few pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import predict

EVERYTHING = ("--conf", "1e-6", "--max-det", "4")  # untrained weights are sure of nothing


def furnish(folder: Path, weights: Path) -> Path:
    """Put the weights, best.pth, and two pictures, photos/a.jpg and photos/b c.png, into a folder."""
    (folder / "best.pth").symlink_to(weights)
    (folder / "photos").mkdir()
    for name, size in (("a.jpg", (60, 80)), ("b c.png", (90, 30))):
        pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / name)
    return folder


def run(*argv: str) -> int:
    return predict.main([*argv, "--weights", "best.pth", "--device", "cpu"])
