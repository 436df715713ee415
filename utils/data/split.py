"""Holding out a part of the training images for selection: seeded, balanced, near-duplicates together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from utils.data.look import Record
from utils.errors import UserError


def hold_out(
    records: Sequence[Record], groups: Sequence[Sequence[int]], fraction: float = 0.1, seed: int = 0
) -> tuple[list[Record], list[Record]]:
    """Divide records into a part to train on and a part to select on.

    Classes are served from the rarest to the most frequent: groups are drawn until the held-out part has its
    share of the images that show the class. Images without objects fill the rest.

    Args:
        records: at least two images.
        groups: places among the records of images that belong together, such as near-duplicates; each image
            is in one.
        fraction: share of the images to hold out, in (0, 1).
        seed: determines the draw.

    Returns:
        (to train on, held out), each in the order of the records.

    Raises:
        UserError: fewer than two groups.
    """
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
