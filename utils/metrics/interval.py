"""Bootstrap interval of mAP50 over the images.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, the percentile interval. An image drawn
twice counts twice. Matches are within an image, so they stay the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from utils.metrics.matching import RECALLS, Floats, Matching, precision_envelope

Counts = NDArray[np.int32]
RESAMPLES = 200
_TAIL = 2.5  # percent on either side
_CELLS_AT_A_TIME = 4_000_000  # bounds the memory


def map50_of_draws(matching: Matching) -> tuple[float | None, ...]:
    """Return mAP50 in each of RESAMPLES draws of the images, None where no object is drawn.

    The draws depend on the number of images alone, so those of two networks on one list of images are paired.
    """
    values = resampled_map50(matching, draw_images(matching.boxes.num_images))
    return tuple(None if np.isnan(value) else float(value) for value in values)


def percentile_interval(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of the values of draws, None if none is known."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, high = np.percentile(known, [_TAIL, 100 - _TAIL])
    return float(low), float(high)


def draw_images(count: int, resamples: int = RESAMPLES, seed: int = 0) -> Counts:
    """Draw `count` images with replacement; returns how often each was drawn, int32 (resamples, count)."""
    rng = np.random.default_rng(seed)
    drawn = np.zeros((resamples, count), dtype=np.int32)
    for row in drawn if count else ():
        row += np.bincount(rng.integers(0, count, count), minlength=count).astype(np.int32)
    return drawn


def resampled_map50(matching: Matching, weights: Counts) -> Floats:
    """Return mAP50 (R,) with each image counted `weights` times, int32 (R, I).

    It is NaN where no image with an object is drawn. Repetitions of a detection rank next to each other.
    """
    total, known = np.zeros(len(weights)), np.zeros(len(weights))
    for label in np.flatnonzero(matching.truths).tolist():
        aps, objects = _resampled_aps(matching, label, weights)
        total += np.where(objects > 0, aps, 0.0)
        known += objects > 0
    return np.where(known > 0, total / np.maximum(known, 1), np.nan)


def _resampled_aps(matching: Matching, label: int, weights: Counts) -> tuple[Floats, Counts]:
    """Return a class's average precision and its objects, both (R,), in each resample."""
    boxes = matching.boxes
    is_object = (boxes.truth_label == label) & ~boxes.difficult
    objects = weights[:, boxes.truth_image[is_object]].sum(axis=1, dtype=np.int32)
    chosen = matching.ranked_labels == label
    images = boxes.image[matching.ranked[chosen]]
    places = np.flatnonzero(matching.right[chosen])  # the best precision is at a right one
    aps = np.zeros(len(weights))
    step = max(1, _CELLS_AT_A_TIME // max(len(images), 1))
    for start in range(0, len(weights) if len(places) else 0, step):
        part = slice(start, start + step)
        drawn = weights[part].take(images, axis=1)  # (r, n), highest score first
        hits = drawn[:, places].cumsum(axis=1, dtype=np.int32)
        ranks = drawn.cumsum(axis=1, dtype=np.int32)[:, places]
        precision = precision_envelope(hits / np.maximum(ranks, 1))
        recall = hits / np.maximum(objects[part], 1)[:, None]
        for row in range(len(drawn)):
            first = np.searchsorted(recall[row], RECALLS, side="left")
            aps[start + row] = precision[row, first[first < len(places)]].sum() / len(RECALLS)
    return aps, objects
