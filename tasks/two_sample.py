"""Are two samples from one distribution, and if not, how far apart are they? Pure figures, no files.

- MMD with an RBF kernel and the median heuristic (Gretton et al. 2012), judged by permuting the labels. Scale,
  directions and bandwidth come from both samples together: they do not depend on the labels, so the test is exact.
- Distance: how often a stranger could tell the samples apart, see `told_apart`; 0 is never, 1 is always.
- On counts, the Kolmogorov-Smirnov distance of each feature, judged by dealing the pooled counts out again.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def standardised(rows: Values) -> Values:
    """(N,C) with mean 0 and deviation 1 in each column; constant columns are left out."""
    varies = rows.std(axis=0) > 1e-12 * (1 + np.abs(rows).max(axis=0))
    return np.asarray((rows[:, varies] - rows[:, varies].mean(axis=0)) / rows[:, varies].std(axis=0))


def principal_components(rows: Values, keep: int) -> Values:
    """(N,C) -> (N,at most `keep`): the directions in which the standardised columns vary most."""
    scaled = standardised(rows)
    variances, directions = np.linalg.eigh(scaled @ scaled.T)  # ascending; far quicker than an SVD of (N,C)
    varies = np.flatnonzero(variances > 1e-9 * variances[-1])[-keep:]
    return np.asarray(directions[:, varies] * np.sqrt(variances[varies]))


def rbf_kernel(rows: Values) -> Values:
    """(N,C) -> (N,N) in [0,1]: columns standardised, bandwidth the median distance; constant columns do not count."""
    scaled = standardised(rows)
    if not scaled.shape[1]:
        return np.ones((len(rows), len(rows)))
    lengths = np.square(scaled).sum(axis=1)
    squared = np.maximum(lengths[:, None] + lengths[None] - 2 * scaled @ scaled.T, 0.0)
    np.fill_diagonal(squared, 0.0)
    median = float(np.median(squared[np.triu_indices(len(rows), 1)]))
    return np.asarray(np.exp(-squared / (2 * (median or float(squared.mean()) or 1.0))))


def mmd2(kernel: Values, first: Values) -> Values:
    """Unbiased MMD^2 of each labelling: kernel (N,N), first (L,N) with 1 in the first sample, else 0 -> (L,)."""
    bare = kernel - np.diag(np.diag(kernel))
    second = 1.0 - first
    n, m = first.sum(axis=1), second.sum(axis=1)
    to_first = first @ bare
    within_first = (to_first * first).sum(axis=1) / (n * (n - 1))
    across = (to_first * second).sum(axis=1) / (n * m)
    within_second = ((second @ bare) * second).sum(axis=1) / (m * (m - 1))
    return np.asarray(within_first + within_second - 2 * across)


def permutation_p_value(kernel: Values, n: int, permutations: int, seed: int) -> float:
    """P-value of the MMD between the first `n` rows and the others: the share of labellings at least as far apart."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(len(kernel))
    labels[:n] = 1.0
    found = mmd2(kernel, labels[None])[0]
    if not np.isfinite(found):
        return float("nan")
    drawn = mmd2(kernel, np.stack([rng.permutation(labels) for _ in range(permutations)]))
    return float((1 + np.count_nonzero(drawn >= found - 1e-12)) / (1 + permutations))


def told_apart(kernel: Values, n: int) -> float:
    """How far the first `n` rows are from the others: 0 if they cannot be told apart, 1 if always.

    Each row is scored by how much nearer it is to the first sample than to the second (the MMD's witness function,
    the row itself left out). Of one row from each sample, the score then names the right one in a share A of all
    cases; the distance is 2 A - 1 (Somers' D), and 0 where guessing would do as well. It does not grow with N.
    NaN where the kernel holds any.
    """
    if not np.isfinite(kernel).all():
        return float("nan")
    bare = kernel - np.diag(np.diag(kernel))
    first, second = bare[:, :n].sum(axis=1), bare[:, n:].sum(axis=1)
    m = len(kernel) - n
    own_first = first[:n] / (n - 1) - second[:n] / m
    own_second = first[n:] / n - second[n:] / (m - 1)
    share = (own_first[:, None] > own_second).mean() + (own_first[:, None] == own_second).mean() / 2
    return max(0.0, float(2 * share - 1))


def ks_of_counts(first: Counts, second: Counts) -> Values:
    """Largest gap between two cumulated histograms: counts (...,B) each -> (...), 0 is alike, 1 no overlap."""
    gaps = np.cumsum(first, axis=-1) / first.sum(axis=-1, keepdims=True)
    gaps = gaps - np.cumsum(second, axis=-1) / second.sum(axis=-1, keepdims=True)
    return np.asarray(np.abs(gaps).max(axis=-1))


def counts_p_value(first: Counts, second: Counts, draws: int, seed: int) -> float:
    """P-value of `ks_of_counts` of two (B,) histograms: the pooled counts dealt out again at random, `draws` times."""
    filled = first + second > 0  # empty bins change nothing and cost time
    first, second = first[filled], second[filled]
    pooled = first + second
    dealt = np.random.default_rng(seed).multivariate_hypergeometric(pooled, int(first.sum()), size=draws)
    found = ks_of_counts(first, second)
    return float((1 + np.count_nonzero(ks_of_counts(dealt, pooled - dealt) >= found - 1e-12)) / (1 + draws))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for being several (Holm 1979), in the order given."""
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
