"""Stratified splitting of images: every part gets its share of each class, and groups stay together.

As in iterative stratification (Sechidis et al., On the Stratification of Multi-label Data, 2011) the rarest
class is assigned first. Then groups move between parts while that brings the parts closer to their shares.
Near-duplicate images, which have to stay together, differ in few of the 64 bits of their difference hashes
(N. Krawetz, "Kind of Like That", 2013), whatever their size or compression.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from utils.cli.console import warn
from utils.cli.errors import UserError
from utils.data.dataset_report import Record

HELD_OUT = 0.1  # of the training images, for validation if there is no val list
_NEAR = 4  # bits of 64; unrelated images differ in about 32
_MAX_PASSES = 20  # over all groups; three or four usually suffice


def stratified_split(
    records: Sequence[Record], groups: Sequence[Sequence[int]], shares: Mapping[str, float], seed: int = 0
) -> dict[str, list[Record]]:
    """Split records into parts with the same class frequencies, each in the order of the records.

    A part gets at least one image of each class that enough groups show. A class of a single group goes to
    the first part.

    Args:
        records: the images.
        groups: indices of records that stay together; each record is in one group.
        shares: share of the images per part, with sum 1; the first part is for training.
        seed: determines the order in which groups are assigned.

    Raises:
        UserError: fewer groups than parts, or a part would be empty.
    """
    counts = _count(records, groups)
    owners, free = counts[:, :-1] > 0, np.ones(len(groups), bool)
    only = owners & (owners.sum(axis=0) == 1)
    free[only.any(axis=1)] = False  # the only group of a class
    if len(groups) < len(shares) or free.sum() < len(shares) - 1:
        raise UserError(
            f"{len(records)} images in {len(groups)} groups that stay together are too few for "
            f"{len(shares)} parts"
        )
    wanted = _targets(counts, owners.sum(axis=0), np.array(list(shares.values())))
    part_of = _assign(counts, wanted, free, np.random.default_rng(seed))
    places = {place: part for group, part in zip(groups, part_of.tolist(), strict=True) for place in group}
    parts: dict[str, list[Record]] = {name: [] for name in shares}
    names = list(shares)
    for place, record in enumerate(records):
        parts[names[places[place]]].append(record)
    if empty := [name for name, part in parts.items() if not part]:
        raise UserError(f"no image is left for {' and '.join(empty)}: too many stay together")
    return parts


def hold_out(
    records: Sequence[Record], groups: Sequence[Sequence[int]], seed: int = 0
) -> tuple[list[Record], list[Record]]:
    """Split records into a part to train on and a tenth to validate on; raises as `stratified_split`."""
    shares = {"train": 1 - HELD_OUT, "val": HELD_OUT}
    try:
        parts, _ = split_with_fallback(
            records, groups, [[place] for place in range(len(records))], shares, seed
        )
    except UserError as error:
        raise UserError(f"{error}; give --val, or --val none") from None
    return parts["train"], parts["val"]


def split_with_fallback(
    records: Sequence[Record],
    groups: Sequence[Sequence[int]],
    smaller_groups: Sequence[Sequence[int]],
    shares: Mapping[str, float],
    seed: int,
) -> tuple[dict[str, list[Record]], Sequence[Sequence[int]]]:
    """Split records as `stratified_split` does, but separate near-duplicates if too few groups are left.

    Images of a fixed camera, or on a plain background, are all near-duplicates to the hash. `smaller_groups`
    are without near-duplicates. Returns the parts, and the groups that stayed together.
    """
    try:
        parts = stratified_split(records, groups, shares, seed)
        if all(len(parts[name]) >= share * len(records) / 2 for name, share in shares.items()):
            return parts, groups
        reason = "the parts would be far from their shares"
    except UserError as error:
        reason = str(error)
    if len(smaller_groups) <= len(groups):
        return stratified_split(records, groups, shares, seed), groups
    warn(f"near-duplicates are not kept together: {reason}; the score will be optimistic")
    return stratified_split(records, smaller_groups, shares, seed), smaller_groups


def group_near_duplicates(hashes: Sequence[int]) -> list[list[int]]:
    """Group the indices of hashes that differ in at most four bits, directly or through others."""
    values, places = np.unique(np.array(hashes, dtype=np.uint64), return_inverse=True)
    labels = np.arange(len(values))
    for label, value in enumerate(values):
        near = labels[np.bitwise_count(values ^ value) <= _NEAR]
        if len(near) > 1:
            labels[np.isin(labels, near)] = label
    groups: dict[int, list[int]] = {}
    for index, label in enumerate(labels[places].tolist()):
        groups.setdefault(label, []).append(index)
    return list(groups.values())


def merge_groups(*groupings: Sequence[Sequence[int]]) -> list[list[int]]:
    """Join groups that share a member, directly or through others; sorted by their first member."""
    group_of: dict[int, set[int]] = {}
    for group in (group for grouping in groupings for group in grouping):
        joined = set(group).union(*(group_of.get(member, ()) for member in group))
        group_of.update(dict.fromkeys(joined, joined))
    distinct = {min(group): sorted(group) for group in group_of.values()}
    return [distinct[first] for first in sorted(distinct)]


def count_images(records: Iterable[Record]) -> Counter[str]:
    """Count the images that show each class."""
    return Counter(name for record in records for name in set(record.names))


def _count(records: Sequence[Record], groups: Sequence[Sequence[int]]) -> NDArray[np.floating]:
    """Return the images of each group that show each class, (G, K + 1); in the last column all images."""
    column = {
        name: place for place, name in enumerate(sorted({n for record in records for n in record.names}))
    }
    counts = np.zeros((len(groups), len(column) + 1))
    for row, group in zip(counts, groups, strict=True):
        for name, count in count_images(records[place] for place in group).items():
            row[column[name]] = count
        row[-1] = len(group)
    return counts


def _targets(
    counts: NDArray[np.floating], holders: NDArray[np.integer], shares: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Return the wanted number of images of each class in each part, (P, K + 1)."""
    totals = counts.sum(axis=0)
    wanted = shares[:, None] * totals
    for part in range(len(shares) - 1, 0, -1):  # the last part first, if there are too few groups for all
        enough = np.append(holders > len(shares) - part, True)
        wanted[part] = np.where(enough, np.maximum(1, wanted[part]), 0)
    wanted[0] = totals - wanted[1:].sum(axis=0)
    return wanted


def _assign(
    counts: NDArray[np.floating],
    wanted: NDArray[np.floating],
    free: NDArray[np.bool_],
    rng: np.random.Generator,
) -> NDArray[np.integer]:
    """Return the part of each group: rare classes first, then moved while that helps."""
    totals = counts.sum(axis=0)
    weight = 1 / totals**2  # of relative errors
    rarest = np.where(counts > 0, totals, np.inf).min(axis=1)
    order = rng.permutation(len(counts))
    order = order[np.argsort(rarest[order], kind="stable")]
    part_of = np.full(len(counts), -1)
    part_of[~free] = 0
    missing = wanted.copy()  # of each part
    missing[0] -= counts[~free].sum(axis=0)
    for _ in range(_MAX_PASSES):
        has_moved = False
        for group in order[free[order]]:
            own, row = part_of[group], counts[group]
            if own >= 0:
                missing[own] += row
            # (missing - row)^2 - missing^2, without the terms that are equal for all parts
            best = int(((-2 * missing * row) @ weight).argmin())
            if own >= 0 and (missing[best] - missing[own]) @ (row * weight) < 1e-12:
                best = int(own)
            missing[best] -= row
            has_moved |= best != own
            part_of[group] = best
        if not has_moved:
            break
    return part_of
