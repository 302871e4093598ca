"""Means and intervals over seeds and cases, by hand and against a plain bootstrap; Dice (class, seed, case)."""

import math

import numpy as np
import pytest

from auvtool import downstream_statistics as statistics


def random_dice(seed: int, *, shift: float = 0.0) -> np.ndarray:
    dice = np.clip(np.random.default_rng(seed).uniform(0.3, 0.9, (2, 3, 5)) + shift, 0, 1)
    dice[1, :, 4] = np.nan
    return dice


def plain_mean(dice: np.ndarray, drawn: list[tuple[int, int]]) -> list[float]:
    means = []
    for of_class in dice:
        values = [of_class[pair] for pair in drawn if not math.isnan(of_class[pair])]
        means.append(sum(values) / len(values) if values else math.nan)
    return [*means, sum(means) / len(means)]


PAIRS = [(seed, case) for seed in range(3) for case in range(5)]


def test_means_by_hand():
    dice = np.array([[[0.8, 0.6], [0.4, 0.2]], [[0.5, np.nan], [0.1, np.nan]]])
    assert statistics.mean_dice(dice) == pytest.approx([0.5, 0.3, 0.4])
    assert statistics.seed_means(dice).tolist() == [pytest.approx([0.7, 0.5, 0.6]), pytest.approx([0.3, 0.1, 0.2])]
    assert statistics.seed_deviation(dice) == pytest.approx([math.sqrt(0.08)] * 3)
    assert statistics.seed_deviation(dice[:, :1]) == [None] * 3
    absent = np.concatenate([dice, np.full((1, 2, 2), np.nan)])
    assert statistics.mean_dice(absent)[[0, 1, 3]] == pytest.approx([0.5, 0.3, 0.4])
    assert np.isnan(statistics.mean_dice(absent)[2])


def test_differences_and_fractions_are_those_of_a_plain_bootstrap():
    arm, random, oracle = random_dice(1), random_dice(2, shift=-0.2), random_dice(3, shift=0.2)
    counts = statistics.draw_pairs(3, 5, resamples=400, seed=5)
    assert (counts.sum(axis=1) == 15).all()
    differences, fractions = [], []
    for row in counts:
        drawn = [pair for pair, number in zip(PAIRS, row, strict=True) for _ in range(number)]
        of_arm, of_random, of_oracle = (np.array(plain_mean(dice, drawn)) for dice in (arm, random, oracle))
        differences.append(of_arm - of_random)
        fractions.append((of_arm - of_random) / (of_oracle - of_random))
    for found, plain in (
        (statistics.differences(arm, random, counts), differences),
        (statistics.recovered_fractions(arm, random, oracle, counts), fractions),
    ):
        for place, estimate in enumerate(found):
            low, high = np.nanquantile(np.array(plain)[:, place], [0.025, 0.975])
            assert (estimate.low, estimate.high) == pytest.approx((low, high))
    means = [np.array(plain_mean(dice, PAIRS)) for dice in (arm, random, oracle)]
    values = [estimate.value for estimate in statistics.recovered_fractions(arm, random, oracle, counts)]
    assert values == pytest.approx(list((means[0] - means[1]) / (means[2] - means[1])))


def test_paired_arms_have_a_narrow_interval_however_much_cases_differ():
    dice = random_dice(4)
    counts = statistics.draw_pairs(3, 5)
    for estimate in statistics.differences(dice + 0.01, dice, counts):
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.01, 0.01, 0.01))
    zero = statistics.differences(dice, dice, counts)[0]
    assert (zero.value, zero.is_above_zero, zero.is_below_zero) == (0.0, False, False)


def test_a_fraction_of_no_gain_is_not_defined():
    dice = random_dice(4)
    counts = statistics.draw_pairs(3, 5)
    for oracle in (dice, dice - 0.1, random_dice(8)):  # equal; worse for certain; not told apart
        assert [item.value for item in statistics.recovered_fractions(dice + 0.05, dice, oracle, counts)] == [None] * 3
    found = statistics.recovered_fractions(dice + 0.05, dice, dice + 0.1, counts)
    assert [item.value for item in found] == pytest.approx([0.5] * 3)


def test_too_few_pairs_give_no_interval():
    dice = random_dice(4)[:, :1, :3]
    counts = statistics.draw_pairs(1, 3)
    estimate = statistics.differences(dice, dice - 0.1, counts)[0]
    assert (estimate.value, estimate.low, estimate.high) == (pytest.approx(0.1), None, None)
    with pytest.raises(ValueError, match="same classes, seeds and cases"):
        statistics.differences(dice, dice[:, :, :2], counts)
