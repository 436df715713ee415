"""Repeat factor sampling: images with rare classes are drawn several times per epoch.

Source: Gupta, Dollár and Girshick, LVIS, https://arxiv.org/abs/1908.03195. A class in a fraction f of the
images has the factor max(1, sqrt(t / f)), an image the largest factor of its classes.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from utils.data.dataset import VocDataset

# LVIS has t = 0.001 for 100,000 images, which repeats nothing among a few hundred. A class in a tenth of the
# images is in one or two images of a batch of 16.
THRESHOLD = 0.1


def repeat_factors(dataset: VocDataset) -> NDArray[np.float64]:
    """Return how often each image (N,) is drawn per epoch, on average; difficult objects do not count."""
    classes = [_classes_of(dataset, index) for index in range(len(dataset))]
    images = Counter(name for names in classes for name in names)
    factor = {name: max(1.0, (THRESHOLD * len(classes) / count) ** 0.5) for name, count in images.items()}
    return np.array([max((factor[name] for name in names), default=1.0) for names in classes])


def draw_repeats(factors: NDArray[np.float64], rng: np.random.Generator) -> list[tuple[int, int]]:
    """Draw the images of an epoch in random order.

    Fractions are rounded at random: an image with the factor 1.3 is drawn twice in three of ten epochs. Their
    sum is the same in each epoch, by systematic sampling.

    Returns:
        (index, copy) each, where copy counts the draws of an image from 0.
    """
    counts = np.floor(factors).astype(np.int64)
    more = images_per_epoch(factors) - int(counts.sum())
    if more:
        shuffled = rng.permutation(len(factors))
        sums = (factors - counts)[shuffled].cumsum()
        points = (np.arange(more) + rng.random()) / more * sums[-1]  # equally spaced
        np.add.at(counts, shuffled[np.searchsorted(sums, points, side="right")], 1)
    drawn = [(index, copy) for index, count in enumerate(counts.tolist()) for copy in range(count)]
    return [drawn[place] for place in rng.permutation(len(drawn)).tolist()]


def images_per_epoch(factors: NDArray[np.float64]) -> int:
    """Return the number of images that each epoch draws."""
    return round(float(factors.sum()))


def describe_balance(dataset: VocDataset, factors: NDArray[np.float64]) -> str:
    """Describe in words how many images with each class an epoch draws."""
    if factors.max(initial=1.0) == 1.0:
        return f"every class is in at least {THRESHOLD:.0%} of the images; no image is repeated"
    before, after = Counter[str](), Counter[str]()
    for index, factor in enumerate(factors.tolist()):
        names = _classes_of(dataset, index)
        before.update(names)
        after.update(dict.fromkeys(names, factor))
    changes = ", ".join(f"{name} {before[name]} -> {after[name]:.0f}" for name in sorted(before))
    return f"an epoch draws {images_per_epoch(factors)} times from {len(factors)} images; with {changes}"


def _classes_of(dataset: VocDataset, index: int) -> set[str]:
    record = dataset.records[index]
    return {name for name, difficult in zip(record.names, record.difficult, strict=True) if not difficult}
