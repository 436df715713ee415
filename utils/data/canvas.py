"""Choice of the network's input size by the shapes of the images: how much of the letterbox stays gray."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nets.config import LARGEST_SIDE
from utils.data.dataset import VocDataset
from utils.data.input_sizes import STEP, Size

_COST = 0.06  # relative change of the pixels that counts as about the same cost
_WORTHWHILE = 0.1  # of the input, for which train.py names another size


@dataclass(frozen=True)
class CanvasChoice:
    """The input size in use, and the one of about the same cost that the images fill best."""

    current: Size
    best: Size
    gray: tuple[float, float]  # share of the input that stays gray on average, for each of the two sizes
    # Median square root of the objects' areas in network pixels, for each of the two sizes.
    median_side: tuple[float, float]

    @property
    def is_worthwhile(self) -> bool:
        """Whether the other size saves at least a tenth of the input."""
        return self.gray[0] - self.gray[1] >= _WORTHWHILE

    def describe(self) -> str:
        """Return a line that names both sizes."""
        now, best = (" ".join(map(str, size)) for size in (self.current, self.best))
        if self.current == self.best:
            return (
                f"--imgsz {now}: {self.gray[0]:.0%} stays gray, the least of all sizes of about the same cost"
            )
        sides = "{:.0f} -> {:.0f}".format(*self.median_side)
        return (
            f"--imgsz {now}: {self.gray[0]:.0%} stays gray; --imgsz {best} costs about the same: "
            f"{self.gray[1]:.0%}, median side of the objects {sides} pixels"
        )


def choose_canvas(dataset: VocDataset, current: Size) -> CanvasChoice:
    """Compare an input size, (height, width) in pixels, with all sizes of 0.94 to 1.06 times its pixels.

    The data set must have an image.
    """
    pixels = current[0] * current[1]
    candidates = [
        (height, width)
        for height in range(STEP, LARGEST_SIDE + 1, STEP)
        for width in range(STEP, LARGEST_SIDE + 1, STEP)
        if abs(height * width / pixels - 1) <= _COST
    ]
    shapes = np.array([(record.height, record.width) for record in dataset.records], dtype=np.float64)
    best = min([current, *candidates], key=lambda size: _gray_share(shapes, size))  # the current one if equal
    gray = _gray_share(shapes, current), _gray_share(shapes, best)
    return CanvasChoice(current, best, gray, (_median_side(dataset, current), _median_side(dataset, best)))


def _gray_share(shapes: NDArray[np.float64], size: Size) -> float:
    """Return the mean share of the input that images of (height, width), (N, 2), leave gray."""
    ratio = (np.array(size) / shapes).min(axis=1)
    filled = float((shapes.prod(axis=1) * ratio**2).mean() / (size[0] * size[1]))
    return 1 - min(filled, 1.0)


def _median_side(dataset: VocDataset, size: Size) -> float:
    _, boxes = dataset.letterboxed_objects(size)
    return float(np.median((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) ** 0.5)) if len(boxes) else 0.0
