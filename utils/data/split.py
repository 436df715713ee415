"""Holding out a part of the training images for selection: seeded, balanced, near-duplicates together."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from utils.data.scan import Record
from utils.errors import UserError
from utils.images import read_thumbnail

_NEAR = 4  # bits of 64; unrelated pictures differ in about 32


def hold_out(
    records: Sequence[Record], fraction: float = 0.1, seed: int = 0
) -> tuple[list[Record], list[Record]]:
    """Divide records into a part to train on and a part to select on.

    Classes are served from the rarest to the most frequent: groups of near-duplicates are drawn until the
    held-out part has its share of the images that show the class. Images without objects fill the rest.

    Args:
        records: at least two images.
        fraction: share of the images to hold out, in (0, 1).
        seed: determines the draw.

    Returns:
        (to train on, held out), each in the order of the records.

    Raises:
        UserError: fewer than two images that are no duplicates of each other, or an image cannot be read.
    """
    groups = group_near_duplicates(difference_hashes(records))
    if len(groups) < 2:
        raise UserError(f"{len(records)} images are too few to hold some out; give --val, or --val none")
    order = np.random.default_rng(seed).permutation(len(groups)).tolist()
    shown = [Counter(name for i in group for name in set(records[i].names)) for group in groups]
    totals = sum(shown, Counter())
    chosen: set[int] = set()
    held: Counter[str] = Counter()
    for name in sorted(totals, key=lambda name: (totals[name], name)):
        _draw(name, max(1, round(fraction * totals[name])), order, shown, chosen, held)
    wanted = max(1, round(fraction * len(records)))
    for index in order:
        if sum(len(groups[i]) for i in chosen) >= wanted:
            break
        if not shown[index]:
            chosen.add(index)
    if not chosen:
        chosen.add(min(order, key=lambda index: len(groups[index])))
    out = {i for index in chosen for i in groups[index]}
    return [r for i, r in enumerate(records) if i not in out], [r for i, r in enumerate(records) if i in out]


def _draw(
    name: str,
    wanted: int,
    order: Sequence[int],
    shown: Sequence[Counter[str]],
    chosen: set[int],
    held: Counter[str],
) -> None:
    """Add groups that show the class until enough images do; a group that overshoots is passed over."""
    holders = [index for index in order if shown[index][name]]
    for index in holders:
        fits = held[name] + shown[index][name] <= wanted
        if index not in chosen and fits and len(holders) > 1:  # the only group of a class is for training
            chosen.add(index)
            held.update(shown[index])


def difference_hashes(records: Sequence[Record]) -> NDArray[np.uint64]:
    """Compute a 64-bit difference hash an image: is a grey cell, of 8 x 8, brighter than its left neighbour.

    Near-duplicates differ in few bits (N. Krawetz, "Kind of Like That", 2013).

    Returns:
        uint64 (N,).
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        small = list(pool.map(lambda record: read_thumbnail(record.image_path, (8, 9)), records))
    grey = np.stack(small).astype(np.int16)  # (N, 8, 9)
    bits = (grey[:, :, 1:] > grey[:, :, :-1]).reshape(len(records), 64)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def group_near_duplicates(hashes: NDArray[np.uint64]) -> list[list[int]]:
    """Group the indices of hashes that differ in at most four bits, directly or through others.

    Returns:
        The groups, in the order of their first index.
    """
    parent = np.arange(len(hashes))
    for index in range(len(hashes)):
        distance = np.bitwise_count(hashes[index + 1 :] ^ hashes[index])
        for other in np.flatnonzero(distance <= _NEAR) + index + 1:
            parent[_root(parent, int(other))] = _root(parent, index)
    groups: dict[int, list[int]] = {}
    for index in range(len(hashes)):
        groups.setdefault(_root(parent, index), []).append(index)
    return list(groups.values())


def _root(parent: NDArray[np.intp], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = int(parent[index])
    return index
