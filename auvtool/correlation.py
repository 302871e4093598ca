"""Correlation of two measurements over the same points: Pearson, Spearman, and either with covariates taken out.

Everywhere below a point with a nan in any of its numbers is left out before anything is computed, and an infinite
number is an error. What is not defined (too few points, a side that does not vary) is None, never a number.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

Points: TypeAlias = Float[np.ndarray, " n"]
Covariates: TypeAlias = Float[np.ndarray, "n k"]
Counts: TypeAlias = Float[np.ndarray, "resample n"]

_LARGEST_EXACT = 8  # 8! = 40320 arrangements; from 9 points on the t approximation is close
_FEWEST_RESAMPLED = 4
# A side whose standard deviation is below this share of its largest value is constant but for rounding.
_CONSTANT = 1e-13
# A number whose residual is below this share of its standard deviation is a linear combination of the others.
_COLLINEAR = 1e-7
_BLOCK_NUMBERS = 1 << 22  # of resampled points held at once


@dataclass(frozen=True)
class Correlation:
    """A coefficient and what it rests on.

    Attributes:
        coefficient: in [-1, 1].
        p: two-sided, of no association.
        n: points that it was taken over, those with a nan not counted.
        n_covariates: linearly independent covariates that were taken out.
    """

    coefficient: float
    p: float
    n: int
    n_covariates: int = 0


@dataclass(frozen=True)
class Interval:
    """A bootstrap interval of a coefficient."""

    low: float
    high: float


def pearson(x: Points, y: Points) -> Correlation | None:
    """Linear correlation; p from t = r sqrt((n - 2) / (1 - r^2)) with n - 2 degrees of freedom, 0 where |r| is 1.

    Returns:
        None with fewer than 3 points, or where x or y is constant.

    Raises:
        ValueError: the shapes differ, or a number is infinite.
    """
    return partial_pearson(x, y, np.empty((len(x), 0)))


def spearman(x: Points, y: Points) -> Correlation | None:
    """Correlation of ranks, equal values sharing their mean rank.

    p is exact up to 8 points (the share of all n! arrangements of y's ranks whose |rho| is at least as large); beyond,
    it is that of `pearson` on the ranks, but not below 2 / n!, the least that any order of n points can reach.

    Returns:
        None with fewer than 3 points, or where x or y is constant.

    Raises:
        ValueError: the shapes differ, or a number is infinite.
    """
    x, y, _ = _complete(x, y, np.empty((len(x), 0)))
    return _spearman(x, y)


def partial_pearson(x: Points, y: Points, covariates: Covariates) -> Correlation | None:
    """Correlation of what a linear regression on the covariates, with an intercept, leaves of x and of y.

    p from t with n - 2 - k degrees of freedom, k the rank of the centred covariates: a constant covariate, or one that
    is a combination of the others, changes nothing. Without any it is `pearson`.

    Returns:
        None where n - 2 - k < 1, or where x or y is constant or a linear combination of the covariates.

    Raises:
        ValueError: the shapes differ, or a number is infinite.
    """
    x, y, covariates = _complete(x, y, covariates)
    basis = orthonormal_basis(covariates)
    rank = basis.shape[1]
    n_free = len(x) - 2 - rank
    if n_free < 1:
        return None
    coefficient = _cosine(_residual(x, basis), _residual(y, basis))
    if coefficient is None:
        return None
    return Correlation(coefficient, _t_test_p(coefficient, n_free), len(x), rank)


def partial_spearman(x: Points, y: Points, covariates: Covariates) -> Correlation | None:
    """`partial_pearson` of mean ranks: those of x and y, each regressed on the ranks of the covariates.

    Without a covariate that varies it is `spearman`, with its exact p.

    Returns:
        None where n - 2 - k < 1, or where the ranks of x or y are constant or a linear combination of the covariates'.

    Raises:
        ValueError: the shapes differ, or a number is infinite.
    """
    x, y, covariates = _complete(x, y, covariates)
    ranks = [mean_ranks(column) for column in covariates.T]
    partial = partial_pearson(mean_ranks(x), mean_ranks(y), np.stack(ranks, axis=1) if ranks else covariates)
    return partial if partial is None or partial.n_covariates else _spearman(x, y)


def bootstrap_intervals(
    x: Points, y: Points, *, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> tuple[Interval | None, Interval | None]:
    """Percentile intervals of `pearson` and of `spearman`, from the same resamples.

    Points are drawn with replacement, x and y of a point together, n of them a resample (Efron and Tibshirani, An
    Introduction to the Bootstrap, chapter 13). Equal n and seed give equal draws, whatever the values, so that two
    quantities measured at the same points compare. A resample in which x or y is constant defines no coefficient and is
    left out.

    Returns:
        The intervals; None with fewer than 4 points, and where fewer than half of the resamples define a coefficient.

    Raises:
        ValueError: the shapes differ, or a number is infinite.
    """
    x, y, _ = _complete(x, y, np.empty((len(x), 0)))
    n = len(x)
    if n < _FEWEST_RESAMPLED or resamples < 1:
        return None, None
    generator = np.random.default_rng(seed)
    of_values, of_ranks = np.empty(resamples), np.empty(resamples)
    step = max(1, _BLOCK_NUMBERS // n)
    for start in range(0, resamples, step):
        block = slice(start, min(start + step, resamples))
        counts = _resample(generator, block.stop - start, n)
        of_values[block] = _resampled_coefficients(counts, x, y)
        of_ranks[block] = _resampled_coefficients(counts, _resampled_ranks(counts, x), _resampled_ranks(counts, y))
    return _percentile_interval(of_values, confidence), _percentile_interval(of_ranks, confidence)


def mean_ranks(values: Points) -> Points:
    """Ranks from 1 to n; equal values share the mean of their ranks."""
    _, position, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[position])


def _complete(x: Points, y: Points, covariates: Covariates) -> tuple[Points, Points, Covariates]:
    """The points whose numbers are all there, as float64."""
    x, y, covariates = (np.asarray(values, dtype=np.float64) for values in (x, y, covariates))
    if x.ndim != 1 or y.shape != x.shape or covariates.ndim != 2 or len(covariates) != len(x):
        raise ValueError(f"expected shapes (n,), (n,) and (n, k), got {x.shape}, {y.shape} and {covariates.shape}")
    if np.isinf(x).any() or np.isinf(y).any() or np.isinf(covariates).any():
        raise ValueError("expected finite numbers or nan, got an infinite one")
    there = ~(np.isnan(x) | np.isnan(y) | np.isnan(covariates).any(axis=1))
    return x[there], y[there], covariates[there]


def _spearman(x: Points, y: Points) -> Correlation | None:
    found = partial_pearson(mean_ranks(x), mean_ranks(y), np.empty((len(x), 0)))
    if found is None:
        return None
    if found.n <= _LARGEST_EXACT:
        return Correlation(found.coefficient, _exact_p(mean_ranks(x), mean_ranks(y)), found.n)
    least = math.exp(math.log(2) - math.lgamma(found.n + 1))
    return Correlation(found.coefficient, max(found.p, least), found.n)


def _unit(values: Points) -> Points:
    """`values` less their mean, at length 1; zeros where they are constant."""
    largest = np.abs(values).max(initial=0.0)
    if largest == 0.0:
        return np.zeros_like(values)
    scaled = values / largest  # the square of a very large or small number is not a number
    centred = scaled - scaled.mean()
    length = np.linalg.norm(centred)
    constant = length <= _CONSTANT * math.sqrt(len(values))
    return np.asarray(np.zeros_like(values) if constant else centred / length)


def orthonormal_basis(covariates: Covariates) -> Float[np.ndarray, "n rank"]:
    """Orthonormal columns that span the centred covariates: none for one that is constant or given by the others."""
    units = [_unit(column) for column in covariates.T]
    if not units or len(covariates) == 0:
        return np.empty((len(covariates), 0))
    columns, lengths, _ = np.linalg.svd(np.stack(units, axis=1), full_matrices=False)
    return np.asarray(columns[:, lengths > _COLLINEAR])


def _residual(values: Points, basis: Float[np.ndarray, "n rank"]) -> Points:
    """What regression on `basis` leaves of `values`, at length 1; zeros where it leaves nothing."""
    unit = _unit(values)
    left = unit - basis @ (basis.T @ unit)
    length = np.linalg.norm(left)
    return np.asarray(np.zeros_like(left) if length <= _COLLINEAR else left / length)


def _cosine(one: Points, other: Points) -> float | None:
    """Of two vectors of length 1; None where one has length 0."""
    if not one.any() or not other.any():
        return None
    return min(1.0, max(-1.0, float(one @ other)))


def _t_test_p(coefficient: float, n_free: int) -> float:
    from scipy.special import betainc

    # The tails of t beyond r sqrt(free / (1 - r^2)), without the division by 0 at |r| = 1.
    return float(betainc(n_free / 2, 0.5, (1.0 - coefficient) * (1.0 + coefficient)))


def _exact_p(ranks_x: Points, ranks_y: Points) -> float:
    # Twice a centred mean rank is a whole number, so equal sums compare equal.
    x, y = (2 * (ranks - ranks.mean()) for ranks in (ranks_x, ranks_y))
    products = x[_arrangements(len(x))] @ y
    return float(np.mean(np.abs(products) >= abs(x @ y)))


@lru_cache(maxsize=_LARGEST_EXACT)
def _arrangements(n: int) -> np.ndarray:
    return np.array(list(permutations(range(n))), dtype=np.intp)


def _resample(generator: np.random.Generator, resamples: int, n: int) -> Counts:
    """How often each point was drawn in each resample."""
    drawn = generator.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, np.newaxis]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)


def _resampled_ranks(counts: Counts, values: Points) -> Counts:
    """Mean rank of each point among the points of each resample (without meaning where it was not drawn)."""
    _, position = np.unique(values, return_inverse=True)
    order = np.argsort(position, kind="stable")
    starts = np.flatnonzero(np.diff(position[order], prepend=-1))
    of_value = np.add.reduceat(counts[:, order], starts, axis=1)
    return np.asarray((np.cumsum(of_value, axis=1) - (of_value - 1) / 2)[:, position])


def _resampled_coefficients(counts: Counts, x: Points | Counts, y: Points | Counts) -> Float[np.ndarray, " resample"]:
    """Pearson's coefficient of each resample; nan where a side is constant in it."""
    n = counts.shape[1]
    sides = []
    constant = np.zeros(len(counts), dtype=bool)
    for values in (x, y):
        scaled = values / (np.abs(values).max() or 1.0)
        centred = scaled - (counts * scaled).sum(axis=1, keepdims=True) / n
        length = np.sqrt((counts * centred**2).sum(axis=1, keepdims=True))
        constant |= length[:, 0] <= _CONSTANT * math.sqrt(n)
        sides.append(centred / np.where(length > 0.0, length, 1.0))
    coefficients = np.clip((counts * sides[0] * sides[1]).sum(axis=1), -1.0, 1.0)
    return np.asarray(np.where(constant, np.nan, coefficients))


def _percentile_interval(coefficients: Float[np.ndarray, " resample"], confidence: float) -> Interval | None:
    defined = coefficients[~np.isnan(coefficients)]
    if 2 * len(defined) < len(coefficients):
        return None
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))
