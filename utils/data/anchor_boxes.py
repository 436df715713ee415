"""Anchor boxes: k-means fitting to the boxes of a data set.

The distance is 1 - IoU of two boxes at one center (Redmon and Farhadi, YOLO9000, 2017,
https://arxiv.org/abs/1612.08242); k-means++ starts it (Arthur and Vassilvitskii, 2007).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nets.config import Anchors, Masks
from utils.cli.errors import UserError

Sizes = NDArray[np.floating]

_RESTARTS = 10
_MAX_ITERATIONS = 100
_TOLERANCE = 0.01  # pixels; anchors are written in tenths


def fit_anchors(sizes: Sizes, number: int, seed: int = 0) -> Anchors:
    """Fit anchors to box sizes (N, 2) in network pixels: the best of ten runs of k-means.

    The seed determines the initial centers. A UserError tells that there are fewer different sizes than
    anchors.

    Returns:
        (width, height) pairs in tenths of a pixel, sorted by area.
    """
    sizes = np.asarray(sizes, dtype=np.float64).reshape(-1, 2)
    distinct = len(np.unique(sizes.round(1), axis=0))
    if distinct < number:
        raise UserError(f"{len(sizes)} objects of {distinct} sizes are too few for {number} anchors")
    rng = np.random.default_rng(seed)
    results = [lloyd(sizes, draw_centers(sizes, number, rng)) for _ in range(_RESTARTS)]
    best = max(results, key=lambda centers: shape_ious(sizes, centers).max(axis=1).mean())
    best = best[np.argsort(best.prod(axis=1), kind="stable")]
    return tuple((max(1.0, width), max(1.0, height)) for width, height in best.round(1).tolist())


def draw_centers(sizes: Sizes, number: int, rng: np.random.Generator) -> Sizes:
    """Draw the initial centers as k-means++ does: weights are squared distances to those drawn."""
    drawn = sizes[rng.integers(len(sizes))][None]
    while len(drawn) < number:
        distance = 1 - shape_ious(sizes, drawn).max(axis=1)
        weight = distance.clip(0) ** 2
        drawn = np.concatenate((drawn, sizes[rng.choice(len(sizes), p=weight / weight.sum())][None]))
    return drawn


def lloyd(sizes: Sizes, centers: Sizes) -> Sizes:
    """Run Lloyd's algorithm on centers (A, 2) until none moves by a hundredth of a pixel.

    A center without boxes keeps its place.
    """
    for _ in range(_MAX_ITERATIONS):
        owner = shape_ious(sizes, centers).argmax(axis=1)
        counts = np.bincount(owner, minlength=len(centers))
        sums = np.stack([np.bincount(owner, column, len(centers)) for column in sizes.T], axis=1)
        moved = np.where(counts[:, None] > 0, sums / counts.clip(1)[:, None], centers)
        converged = np.abs(moved - centers).max() < _TOLERANCE
        centers = moved
        if converged:
            break
    return centers


def shape_ious(sizes: Sizes, anchors: Sizes | Sequence[tuple[float, float]]) -> Sizes:
    """Return the IoU (N, A) of sizes (N, 2) and anchors (A, 2) at one center."""
    shapes = np.asarray(anchors, dtype=np.float64).reshape(-1, 2)
    shared = np.minimum(sizes[:, None, 0], shapes[:, 0]) * np.minimum(sizes[:, None, 1], shapes[:, 1])
    return shared / (sizes.prod(axis=1)[:, None] + shapes.prod(axis=1) - shared)


def used_anchors(anchors: Anchors, masks: Masks) -> Anchors:
    """Return the anchors that a head uses; the official anchor 0 is unused."""
    return tuple(anchors[index] for index in sorted({index for mask in masks for index in mask}))
