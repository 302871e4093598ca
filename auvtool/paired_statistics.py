"""Two measurements of the same things: mean difference, its interval, how often which is larger, a signed-rank test."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

Points: TypeAlias = Float[np.ndarray, " pair"]

_FEWEST_RESAMPLED = 4
_BLOCK_NUMBERS = 1 << 22  # of resampled pairs held at once


@dataclass(frozen=True)
class PairedDifference:
    """The second measurement less the first.

    Attributes:
        n: pairs.
        mean_first: over the pairs.
        mean_second: over the pairs.
        difference: mean_second - mean_first.
        low: of the 95 % bootstrap interval of the difference; None with fewer than four pairs, or without resamples.
        high: of the same.
        n_larger: pairs whose second is larger.
        n_smaller: pairs whose second is smaller; the others are equal.
        p: see `signed_rank_p`.
    """

    n: int
    mean_first: float
    mean_second: float
    difference: float
    low: float | None
    high: float | None
    n_larger: int
    n_smaller: int
    p: float


def paired_difference(first: Points, second: Points, *, resamples: int, seed: int) -> PairedDifference | None:
    """Compare two measurements of the same things, in the same order; None without a pair.

    The interval is from the 2.5 % to the 97.5 % quantile of the mean difference over resamples of the pairs, as many
    drawn with replacement as there are (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13). Equal n
    and seed give equal draws, whatever the values, so that measures of the same pairs compare.

    Raises:
        ValueError: the shapes differ, or a number is not finite.
    """
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"expected two lists of one length, got shapes {first.shape} and {second.shape}")
    differences = second - first
    if not np.isfinite(differences).all():
        raise ValueError("expected finite numbers, got one that is not")
    n = len(differences)
    if n == 0:
        return None
    low, high = _interval(differences, resamples, seed)
    return PairedDifference(
        n=n,
        mean_first=float(first.mean()),
        mean_second=float(second.mean()),
        difference=float(differences.mean()),
        low=low,
        high=high,
        n_larger=int((differences > 0).sum()),
        n_smaller=int((differences < 0).sum()),
        p=signed_rank_p(differences),
    )


def signed_rank_p(differences: Points) -> float:
    """Two-sided p of Wilcoxon's signed-rank test that differences lie symmetrically about 0, by SciPy.

    Differences of 0 are ranked with the others and their ranks dropped (Pratt), so that they speak against an effect.
    Exact for up to 50 differences without equal sizes among them (up to 13 with), else from the normal approximation. 1
    where all are 0.

    Raises:
        ValueError: there is no difference.
    """
    if len(differences) == 0:
        raise ValueError("expected a difference, got none")
    if not differences.any():
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(differences, zero_method="pratt").pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p values for being looked at together: the chance of one false find among them stays what p says.

    The i-th smallest of m is multiplied by m - i + 1, and is no smaller than those before it (Holm, Scandinavian
    Journal of Statistics 6, 65-70, 1979). None, where there was no test, stays None and is not counted.
    """
    there = sorted((p, position) for position, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, position) in enumerate(there):
        largest = max(largest, min(1.0, p * (len(there) - rank)))
        corrected[position] = largest
    return corrected


def _interval(differences: Points, resamples: int, seed: int) -> tuple[float | None, float | None]:
    n = len(differences)
    if n < _FEWEST_RESAMPLED or resamples < 1:
        return None, None
    generator = np.random.default_rng(seed)
    step = max(1, _BLOCK_NUMBERS // n)
    means = [
        differences[generator.integers(n, size=(min(step, resamples - start), n))].mean(axis=1)
        for start in range(0, resamples, step)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)
