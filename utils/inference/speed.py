"""What a prediction takes, part by part."""

from __future__ import annotations

import dataclasses

import numpy as np

from utils.inference.predictor import Predictor, Timings
from utils.vision.image_reader import Pixels

_WARM_UP = 10
_PARTS = ("preprocess", "network", "postprocess")


def measure_speed(predictor: Predictor, image: Pixels, *, runs: int, batch_size: int = 1) -> np.ndarray:
    """Detect objects in one image again and again, after ten runs that are not counted.

    Args:
        predictor: what makes the detections.
        image: uint8 (H, W, 3) in RGB.
        runs: how often.
        batch_size: copies of the image that go through the network at once.

    Returns:
        Milliseconds an image, (runs, 4): preprocess, network, postprocess, total; reading is not in it.
    """
    rows = []
    for _ in range(_WARM_UP + runs):
        timings = Timings()
        predictor.detect([predictor.prepare(image) for _ in range(batch_size)], timings)
        parts = dataclasses.asdict(timings)
        rows.append([1000 * parts[name] / batch_size for name in _PARTS])
    table = np.array(rows[_WARM_UP:])
    return np.column_stack([table, table.sum(axis=1)])


def speed_table(milliseconds: np.ndarray, heading: str) -> str:
    """Write the median and the 95th percentile of each part as a table.

    Args:
        milliseconds: as `measure_speed` returns them.
        heading: a line above it.
    """
    medians, slowest = np.percentile(milliseconds, (50, 95), axis=0)
    lines = [heading, f"{'ms an image':<12} {'median':>8} {'p95':>8}"]
    for name, median, high in zip((*_PARTS, "total"), medians, slowest, strict=True):
        lines.append(f"{name:<12} {median:>8.2f} {high:>8.2f}")
    return "\n".join([*lines, f"{1000 / medians[-1]:.1f} images a second by the median"])
