"""Anchor boxes: the file of train.py --anchors, and k-means fitting to the boxes of a data set.

The file has width and height of each anchor in network pixels, as in a Darknet .cfg. Masks name the anchors
of each head; they are needed unless six anchors are split between two heads, or nine between three:

    # a comment
    10,14,  23,27,  37,58,  81,82,  135,169,  344,319
    masks = 3,4,5  1,2,3

One pair per line, a trailing comma and `anchors =` in front are read too. Masks count from 0. The head of the
large objects comes first; heads are divided by spaces or brackets.

Fitting is k-means with the distance 1 - IoU of two boxes at one center (Redmon and Farhadi, YOLO9000, 2017,
https://arxiv.org/abs/1612.08242), started by k-means++ (Arthur and Vassilvitskii, 2007).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nets.config import USUAL_ANCHORS, Anchors, Masks, ModelConfig
from utils.cli.errors import UserError
from utils.cli.files import atomic_write, read_text

Sizes = NDArray[np.floating]

_MAX_SIDE = 65536.0  # pixels
_MAX_BYTES = 100_000
_MISSING = "no such anchor file; `python data.py anchors` writes one"
_RESTARTS = 10
_MAX_ITERATIONS = 100
_TOLERANCE = 0.01  # pixels; anchors are written in tenths


def read_anchors(path: Path | str) -> tuple[Anchors, Masks]:
    """Read a file of anchors.

    Without masks the official anchors keep their own; six others are split between two heads, nine between
    three.

    Returns:
        (width, height) pairs in network pixels, and for each head, coarse first, the indices of its anchors.

    Raises:
        UserError: the file is missing, not text, or invalid.
    """
    values: dict[str, list[str]] = {"anchors": [], "masks": []}  # lines
    for line in read_text(path, _MAX_BYTES, _MISSING).splitlines():
        name, equals, rest = line.partition("#")[0].partition("=")
        if equals and name.strip() not in values:
            raise UserError(f"{path}: {name.strip()[:40]!r} is neither anchors nor masks; see --anchors")
        values[name.strip() if equals else "anchors"].append(rest if equals else name)
    anchors = _parse_anchors(path, _words("\n".join(values["anchors"])))
    masks_text = "\n".join(values["masks"])
    masks = _parse_masks(path, masks_text) if _words(masks_text) else _default_masks(path, anchors)
    try:
        ModelConfig(1, anchors=anchors, anchor_masks=masks)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    return anchors, masks


def write_anchors(path: Path | str, anchors: Anchors, masks: Masks, note: str) -> None:
    """Write a comment, anchors and masks; raises a UserError as `atomic_write`."""
    pairs = ",  ".join(f"{width:g},{height:g}" for width, height in anchors)
    lists = "  ".join(",".join(map(str, mask)) for mask in masks)
    with atomic_write(path, "w") as file:
        file.write(f"# {' '.join(note.split())}\n{pairs}\nmasks = {lists}\n")


def split_masks(number: int, num_heads: int) -> Masks:
    """Return masks that split sorted anchors equally between the heads, the largest to the coarse one."""
    share = number // num_heads
    return tuple(tuple(range(first, first + share)) for first in range(number - share, -1, -share))


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


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[,;()\[\]\s]+", text) if word]


def _parse_anchors(path: Path | str, words: Sequence[str]) -> Anchors:
    if not words:
        raise UserError(f"{path}: no anchors in it; write pairs width,height, such as 10,14, 23,27")
    values = []
    for word in words:
        try:
            values.append(float(word))
        except ValueError:
            raise UserError(f"{path}: {word[:40]!r} is not a number; write pairs width,height") from None
        if not (math.isfinite(values[-1]) and 1 <= values[-1] <= _MAX_SIDE):
            raise UserError(
                f"{path}: {word[:40]} is not a valid side; sides of anchors are at least 1 network pixel"
            )
    if len(values) % 2:
        raise UserError(f"{path}: an odd number of values, {len(values)}; write pairs width,height")
    return tuple(zip(values[::2], values[1::2], strict=True))


def _parse_masks(path: Path | str, text: str) -> Masks:
    # A list ends at a bracket, a semicolon, or a space that follows no comma.
    lists = [words for part in re.split(r"[;)\]]|(?<![\s,])\s+(?!,)", text) if (words := _words(part))]
    words = [word for part in lists for word in part]
    if len(lists) not in USUAL_ANCHORS:  # one separator everywhere: two lists of any length
        half = len(words) // 2
        lists = [words[:half], words[half:]]
    if not all(word.isdecimal() and word.isascii() for word in words) or len({*map(len, lists)}) > 1:
        raise UserError(
            f"{path}: masks need equally many anchor indices per head, such as masks = 3,4,5  0,1,2"
        )
    masks = tuple(tuple(map(int, part)) for part in lists)
    if any(len(set(mask)) < len(mask) for mask in masks):
        raise UserError(f"{path}: masks {' '.join(words)} name an anchor twice for one head")
    return masks


def _default_masks(path: Path | str, anchors: Anchors) -> Masks:
    for num_heads, (usual, masks) in USUAL_ANCHORS.items():
        if anchors == usual:
            return masks
        if len(anchors) == len(usual):
            return split_masks(len(anchors), num_heads)
    raise UserError(
        f"{path}: {len(anchors)} anchors, 6 are needed for two heads and 9 for three; or name those of each "
        "head, such as masks = 3,4,5  0,1,2"
    )
