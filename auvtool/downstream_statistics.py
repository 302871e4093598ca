"""Dice of trainings that differ in their cases alone: means, paired differences, and the share of a gain recovered.

Everything here takes Dice as (class, seed, case), nan where it is not defined (a class in neither map), and gives one
more entry than there are classes: the last is the mean of the classes, as `eval` and nnU-Net report it. What is not
defined is nan in an array and None in an estimate, never a number.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

Dice: TypeAlias = Float[np.ndarray, "class seed case"]
Counts: TypeAlias = Int[np.ndarray, "resample pair"]  # how often each (seed, case) is drawn, cases within seeds

_FEWEST_RESAMPLED = 4


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % bootstrap interval; None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def is_above_zero(self) -> bool:
        """Whether the whole interval is."""
        return self.low is not None and self.low > 0

    @property
    def is_below_zero(self) -> bool:
        """Whether the whole interval is."""
        return self.high is not None and self.high < 0


def draw_pairs(n_seeds: int, n_cases: int, *, resamples: int = 2000, seed: int = 0) -> Counts:
    """Bootstrap resamples of the (seed, test case) pairs: as many drawn with replacement as there are.

    Two arms that are resampled with the same counts stay paired by seed and by case. Pairs of one seed share a
    training, and are drawn as if they did not: with few seeds the intervals are too narrow for what another seed would
    do, which is why `seed_means` stands beside them. No resample of fewer than four pairs, and so no interval.
    """
    n = n_seeds * n_cases
    if n < _FEWEST_RESAMPLED:
        return np.empty((0, n), dtype=np.int64)
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)


def resampled_means(dice: Dice, counts: Counts) -> Float[np.ndarray, "resample class_or_all"]:
    """Mean Dice of each class over the pairs drawn where it is defined, then the mean of the classes.

    A class that is defined nowhere is no part of the mean of the classes; one that a resample happens to lack makes
    that resample's nan.
    """
    flat = dice.reshape(len(dice), -1)
    there = ~np.isnan(flat)
    totals = counts @ np.where(there, flat, 0.0).T  # what is not there is drawn no time
    numbers = (counts @ there.T).astype(np.float64)
    means = np.full_like(totals, np.nan)
    np.divide(totals, numbers, out=means, where=numbers > 0)
    measured = means[:, there.any(axis=1)]
    of_classes = measured.mean(axis=1) if measured.shape[1] else np.full(len(counts), np.nan)
    return np.column_stack([means, of_classes])


def mean_dice(dice: Dice) -> Float[np.ndarray, " class_or_all"]:
    """Mean over all seeds and cases."""
    return np.asarray(resampled_means(dice, np.ones((1, dice.shape[1] * dice.shape[2]), dtype=np.int64))[0])


def seed_means(dice: Dice) -> Float[np.ndarray, "seed class_or_all"]:
    """Mean over the cases, of each seed."""
    n_seeds, n_cases = dice.shape[1:]
    return resampled_means(dice, np.repeat(np.eye(n_seeds, dtype=np.int64), n_cases, axis=1))


def seed_deviation(dice: Dice) -> list[float | None]:
    """Standard deviation (n - 1) of `seed_means` over the seeds; None with fewer than two."""
    if dice.shape[1] < 2:
        return [None] * (len(dice) + 1)
    return [_number(value) for value in seed_means(dice).std(axis=0, ddof=1)]


def differences(dice: Dice, base: Dice, counts: Counts) -> list[Estimate]:
    """Mean Dice less that of `base`, with percentile intervals of the paired resamples.

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(dice, base)
    values = mean_dice(dice) - mean_dice(base)
    resampled = resampled_means(dice, counts) - resampled_means(base, counts)
    return [_estimate(value, drawn) for value, drawn in zip(values, resampled.T, strict=True)]


def recovered_fractions(dice: Dice, random: Dice, oracle: Dice, counts: Counts) -> list[Estimate]:
    """(Dice - Dice_random) / (Dice_oracle - Dice_random): 0 is a blind drop, 1 is what the answer key reaches.

    The three are resampled together. Not defined (None) unless the interval of the denominator is above 0: where the
    oracle itself is not better than chance there is no gain to recover a share of, and the quotient is noise.

    Raises:
        ValueError: the shapes differ.
    """
    gains = differences(oracle, random, counts)
    _check_shapes(dice, random)
    with np.errstate(divide="ignore", invalid="ignore"):  # denominators of 0 are left out with the others below
        fractions = (mean_dice(dice) - mean_dice(random)) / (mean_dice(oracle) - mean_dice(random))
        of_random = resampled_means(random, counts)
        resampled = (resampled_means(dice, counts) - of_random) / (resampled_means(oracle, counts) - of_random)
    resampled[~np.isfinite(resampled)] = np.nan
    return [
        _estimate(value, drawn) if gain.is_above_zero else Estimate(None)
        for gain, value, drawn in zip(gains, fractions, resampled.T, strict=True)
    ]


def _check_shapes(dice: Dice, base: Dice) -> None:
    if dice.shape != base.shape:
        raise ValueError(f"expected Dice of the same classes, seeds and cases, got shapes {dice.shape}, {base.shape}")


def _estimate(value: float, resampled: Float[np.ndarray, " resample"]) -> Estimate:
    """No interval without resamples, or where fewer than half of them define it."""
    defined = resampled[~np.isnan(resampled)]
    if np.isnan(value) or not len(defined) or 2 * len(defined) < len(resampled):
        return Estimate(_number(value))
    low, high = np.quantile(defined, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
