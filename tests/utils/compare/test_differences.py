import statistics

import numpy as np
import pytest

from utils.compare.differences import (
    Comparison,
    correct_for_several,
    difference,
    interval_over_images,
    seeds_needed,
    smallest_visible,
)


def test_the_interval_is_students_t_worked_by_hand():
    """Differences 0.01, 0.02, 0.03: mean 0.02, deviation 0.01, t(0.975, 2) = 4.30265 -> 0.02 +- 0.024841."""
    change = difference([(0.51, 0.5), (0.62, 0.6), (0.73, 0.7)])
    assert change.interval == pytest.approx((0.02 - 0.024841, 0.02 + 0.024841), abs=1e-6)


def test_the_p_value_is_that_of_scipys_paired_test():
    from scipy.stats import ttest_rel  # takes seconds to import

    ours, base = (0.52, 0.61, 0.75, 0.4), (0.5, 0.6, 0.7, 0.41)
    pairs = list(zip(ours, base, strict=True))
    assert difference(pairs).p_value == pytest.approx(ttest_rel(ours, base).pvalue)


def test_equal_runs_do_not_differ():
    assert difference([(0.5, 0.5), (0.6, 0.6)]).p_value == 1.0


@pytest.mark.parametrize(("shift", "verdict"), [(0.1, "better"), (-0.1, "worse")])
def test_a_difference_beyond_its_interval_has_a_direction(shift, verdict):
    change = difference([(base + shift, base) for base in (0.501, 0.599, 0.7)])
    assert Comparison(change, change, None, change.p_value).verdict == verdict


def test_holms_correction_worked_by_hand():
    """Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1, never falling: 0.04, 0.06, 0.06, 0.5."""
    assert correct_for_several([]) == []
    assert correct_for_several([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])


def test_the_interval_over_images_pairs_the_draws():
    rng = np.random.default_rng(0)
    noise = rng.normal(0.5, 0.1, 200)  # the same images are hard for all runs
    base = [list(noise), list(noise + 0.01)]
    ours = [[value + 0.02 for value in draws] for draws in base]
    assert interval_over_images(ours, base) == pytest.approx((0.02, 0.02))
    assert interval_over_images(ours, [base[0], base[1][:-1]]) is None
    assert interval_over_images([()], [()]) is None
    assert interval_over_images([[None, 0.5]], [[0.1, 0.2]]) == pytest.approx((0.3, 0.3))


@pytest.mark.parametrize("seeds", [3, 8])
def test_the_smallest_visible_difference_is_seen_four_times_in_five(seeds):
    """Drawn 4,000 times; the approximation by two central quantiles is good to a few percent."""
    rng = np.random.default_rng(seeds)
    true = smallest_visible(0.01, seeds)
    draws = rng.normal(true, 0.01, (4000, seeds))
    seen = 0
    for row in draws.tolist():
        interval = difference([(value, 0.0) for value in row]).interval
        seen += interval is not None and interval[0] > 0
    assert statistics.fmean([seen / 4000]) == pytest.approx(0.8, abs=0.06)


def test_more_seeds_show_smaller_differences():
    needed = seeds_needed(0.008, 0.01)
    assert smallest_visible(0.008, needed) <= 0.01 < smallest_visible(0.008, needed - 1)
    assert seeds_needed(10.0, 1e-6) is None
