"""tasks/two_sample.py against definitions, scipy and cases whose right answer is known."""

import numpy as np
import pytest
from scipy.stats import binom, hypergeom, ks_2samp

from tasks import two_sample


def rows(seed: int, count: int, shift: float = 0.0, channels: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (count, channels))


def both(seed: int, n: int, m: int, shift: float) -> np.ndarray:
    """A kernel of `n` rows moved by `shift` and `m` others."""
    return two_sample.rbf_kernel(np.concatenate([rows(seed, n, shift), rows(seed + 10_000, m)]))


def test_mmd_is_the_unbiased_estimate_of_its_definition() -> None:
    kernel, n = both(1, 5, 7, 0.5), 5
    within = [kernel[i, j] for i in range(n) for j in range(n) if i != j]
    others = [kernel[i, j] for i in range(n, 12) for j in range(n, 12) if i != j]
    expected = np.mean(within) + np.mean(others) - 2 * kernel[:n, n:].mean()
    labels = np.array([[1.0] * n + [0.0] * 7])
    assert two_sample.mmd2(kernel, labels)[0] == pytest.approx(expected)


def test_kernel_does_not_depend_on_units_and_passes_over_constant_columns() -> None:
    values = rows(2, 20)
    scaled = np.column_stack([values * 1000 + 7, np.full(20, 3.0)])
    assert two_sample.rbf_kernel(scaled) == pytest.approx(two_sample.rbf_kernel(values))
    assert (two_sample.rbf_kernel(np.full((4, 2), 0.3)) == 1).all()


def test_principal_components_are_those_of_the_standardised_columns() -> None:
    mixed = rows(6, 40, channels=3) @ np.array([[5.0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0.1, 0]])  # the last is constant
    found = two_sample.principal_components(mixed, 2)
    scaled = (mixed - mixed.mean(axis=0)) / np.maximum(mixed.std(axis=0), 1e-12)
    lengths = np.linalg.svd(scaled, compute_uv=False)
    assert sorted(np.linalg.norm(found, axis=0), reverse=True) == pytest.approx(lengths[:2])
    assert abs(found[:, 0] @ found[:, 1]) < 1e-9
    assert two_sample.principal_components(mixed, 9).shape == (40, 3), "four columns of rank three"
    assert two_sample.principal_components(np.full((5, 3), 0.1), 2).shape == (5, 0)


def test_false_alarms_are_as_rare_as_promised() -> None:
    draws, limit = 300, 0.05
    alarms = sum(
        two_sample.permutation_p_value(both(seed, 20, 30, 0.0), 20, 99, seed) <= limit for seed in range(draws)
    )
    low, high = binom.interval(0.999, draws, limit)
    assert low <= alarms <= high


def test_a_shift_is_found_and_the_smallest_p_value_is_one_over_the_labellings() -> None:
    kernel = both(3, 30, 30, 1.0)
    assert two_sample.permutation_p_value(kernel, 30, 199, 0) == 1 / 200
    assert two_sample.told_apart(kernel, 30) > 0.8


def test_distance_is_0_for_one_distribution_1_without_overlap_and_does_not_grow_with_n() -> None:
    alike = [two_sample.told_apart(both(seed, 60, 200, 0.0), 60) for seed in range(20)]
    assert np.mean(alike) < 0.06
    assert two_sample.told_apart(both(4, 40, 40, 20.0), 40) == 1.0
    small, large = (np.mean([two_sample.told_apart(both(s, n, n, 0.4), n) for s in range(10)]) for n in (40, 200))
    assert small == pytest.approx(large, abs=0.1)


def test_nan_stays_nan() -> None:
    kernel = both(5, 10, 10, 0.0)
    kernel[0, 1] = np.nan
    assert np.isnan(two_sample.told_apart(kernel, 10))
    assert np.isnan(two_sample.permutation_p_value(kernel, 10, 19, 0))


def test_ks_of_counts_is_that_of_the_values() -> None:
    first, second = np.array([3, 0, 5, 2]), np.array([1, 6, 1, 0])
    values = [np.repeat(np.arange(4), counts) for counts in (first, second)]
    assert two_sample.ks_of_counts(first, second) == pytest.approx(ks_2samp(*values).statistic)


def test_p_value_of_counts_is_the_exact_one_where_that_is_known() -> None:
    first, second = np.array([9, 3]), np.array([4, 10])  # two bins: the hypergeometric distribution
    dealt = np.arange(13)
    chance = hypergeom(26, 13, 12).pmf(dealt)
    gap = np.abs(dealt / 12 - (13 - dealt) / 14)
    exact = chance[gap >= abs(9 / 12 - 4 / 14) - 1e-12].sum()
    assert two_sample.counts_p_value(first, second, 20_000, 0) == pytest.approx(exact, abs=0.005)


def test_holm() -> None:
    assert two_sample.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert two_sample.holm([0.6, 0.5]) == [1.0, 1.0]
