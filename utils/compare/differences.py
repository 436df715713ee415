"""Differences between runs with and without a block: which are more than noise, and what it takes to see one.

Runs of one seed are paired. Over seeds: Student's t on the paired differences. Over images: a bootstrap in
which all runs see the same draws. Several blocks: Holm's correction (Scandinavian Journal of Statistics,
1979), so that five blocks without effect have one false verdict in twenty comparisons, not one in four.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtr, stdtrit  # scipy.stats takes seconds to import

from utils.metrics.interval import percentile_interval

CONFIDENCE = 0.95
POWER = 0.8
FEWEST_SEEDS = 3  # whose spread is worth extrapolating
_MOST_SEEDS = 1000
Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """Paired differences of one metric."""

    mean: float  # over the seeds
    deviation: float | None  # sample standard deviation over the seeds; None for a single one
    seeds: int  # number of pairs

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval of the mean by Student's t; None for a single pair."""
        if self.deviation is None:
            return None
        reach = _quantile(self.seeds, (1 + CONFIDENCE) / 2) * self.deviation / self.seeds**0.5
        return self.mean - reach, self.mean + reach

    @property
    def p_value(self) -> float | None:
        """Two-sided p-value of Student's paired t-test; None for a single pair."""
        if self.deviation is None:
            return None
        if not self.deviation:
            return float(self.mean == 0)
        return float(2 * stdtr(self.seeds - 1, -abs(self.mean) / self.deviation * self.seeds**0.5))


@dataclass(frozen=True)
class Comparison:
    """Comparison of a block's runs with those without it, over the seeds that both have."""

    map50: Difference  # differences of mAP50
    map50_95: Difference  # differences of mAP50-95, which decide: their noise is the smaller
    # The 95 % interval of the mean difference of mAP50 over draws of the evaluated images, for these
    # networks; None if the runs were not evaluated on one split by `--split`.
    over_images: Interval | None = None
    p_value: float | None = None  # that of `map50_95`, corrected for the number of blocks; None for one seed

    @property
    def verdict(self) -> str:
        """Whether mAP50-95 differs by more than noise."""
        if self.p_value is None:
            return "one seed: noise unknown"
        if self.p_value >= 1 - CONFIDENCE:
            return "within noise"
        return "better" if self.map50_95.mean > 0 else "worse"


def difference(pairs: Sequence[tuple[float, float]]) -> Difference:
    """Return the differences of at least one pair (with the block, without it)."""
    values = [ours - base for ours, base in pairs]
    return Difference(*mean_and_deviation(values), len(values))


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and sample standard deviation; the latter is None for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def interval_over_images(
    ours: Sequence[Sequence[float | None]], base: Sequence[Sequence[float | None]]
) -> Interval | None:
    """Return the 95 % interval of the mean difference over draws of the images.

    Both are mAP50 in each draw, a sequence per run, the runs in the same order of seeds. None if the runs do
    not have the same number of draws, or none at all.
    """
    if len({len(draws) for draws in (*ours, *base)}) != 1:
        return None
    means = []
    for values in zip(*ours, *base, strict=True):
        known = [value for value in values if value is not None]
        half = len(values) // 2
        means.append((sum(known[:half]) - sum(known[half:])) / half if len(known) == len(values) else None)
    return percentile_interval(means)


def correct_for_several(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm's step-down method, in the same order."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def smallest_visible(deviation: float, seeds: int) -> float:
    """Return the true difference that a 95 % interval over so many seeds excludes 0 for 4 times in 5."""
    quantiles = _quantile(seeds, (1 + CONFIDENCE) / 2) + _quantile(seeds, POWER)
    return quantiles * deviation / seeds**0.5


def seeds_needed(deviation: float, visible: float) -> int | None:
    """Return the number of seeds that make such a difference visible; None if a thousand do not."""
    counts = range(2, _MOST_SEEDS + 1)
    return next((seeds for seeds in counts if smallest_visible(deviation, seeds) <= visible), None)


def _quantile(seeds: int, probability: float) -> float:
    return float(stdtrit(seeds - 1, probability))
