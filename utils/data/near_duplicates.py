"""Near-duplicate images, found by difference hashes whatever their size or compression.

Near-duplicates differ in few of the 64 bits (N. Krawetz, "Kind of Like That", 2013).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utils.vision.image_reader import read_thumbnail

_NEAR = 4  # bits of 64; unrelated images differ in about 32


def hash_image(path: Path | str) -> int:
    """Compute the 64-bit difference hash: is each of 8 x 8 gray cells brighter than its left neighbor.

    Raises:
        UserError: the image cannot be read.
    """
    gray = read_thumbnail(path, (8, 9)).astype(np.int16)
    return int.from_bytes(np.packbits(gray[:, 1:] > gray[:, :-1]).tobytes(), "big")


def group_near_duplicates(hashes: Sequence[int]) -> list[list[int]]:
    """Group the indices of hashes that differ in at most four bits, directly or through others.

    Returns:
        The groups, in the order of their first index.
    """
    values, place = np.unique(
        np.array(hashes, dtype=np.uint64), return_inverse=True
    )  # many frames are all dark
    parent = np.arange(len(values))
    for index in range(len(values)):
        distance = np.bitwise_count(values[index + 1 :] ^ values[index])
        for other in np.flatnonzero(distance <= _NEAR) + index + 1:
            parent[_root(parent, int(other))] = _root(parent, index)
    groups: dict[int, list[int]] = {}
    for index, own in enumerate(place.tolist()):
        groups.setdefault(_root(parent, own), []).append(index)
    return list(groups.values())


def _root(parent: NDArray[np.intp], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = int(parent[index])
    return index
