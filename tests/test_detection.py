"""How well a number tells dirty from clean: by hand, against scikit-learn, and at the edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from auvtool.detection import (
    auroc,
    average_precision,
    case_resamples,
    pair_wins,
    paired_win_rate,
    percentile_interval,
    precision_at_k,
    resampled_auroc,
    severity_spearman,
)

NAN = np.nan


def points(*values):
    return np.array(values, dtype=np.float64)


def mask(*values):
    return np.array(values, dtype=bool)


# By hand


def test_auroc_by_hand():
    # 0.9 beats both; 0.2 loses to 0.5 and ties with 0.2.
    assert auroc(points(0.9, 0.2), points(0.5, 0.2)) == (1 + 1 + 0 + 0.5) / 4


def test_a_case_without_a_value_counts_half_in_every_pair():
    assert auroc(points(NAN), points(1, 2, 3)) == 0.5
    assert auroc(points(3, NAN), points(1, 2)) == (1 + 1 + 0.5 + 0.5) / 4
    assert auroc(points(3), points(1, NAN)) == 0.75
    assert pair_wins(points(3, NAN), points(1, 3, NAN)).tolist() == [[1, 0.5, 0.5], [0.5, 0.5, 0.5]]


def test_average_precision_by_hand():
    # Most suspect first: dirty, clean, dirty: (1/1 + 2/3) / 2.
    assert average_precision(points(3, 2, 1), mask(1, 0, 1)) == pytest.approx((1 + 2 / 3) / 2)
    # All tied: the share of dirty cases.
    assert average_precision(points(1, 1, 1, 1), mask(1, 0, 0, 0)) == 0.25


def test_precision_at_k_draws_blindly_across_a_tie():
    assert precision_at_k(points(4, 3, 2, 1), mask(1, 0, 1, 0)) == 0.5
    # k = 2: the first is sure, the second place is one of three, one of them dirty.
    assert precision_at_k(points(4, 3, 3, 3), mask(1, 1, 0, 0)) == pytest.approx((1 + 1 / 3) / 2)
    assert precision_at_k(points(1, 1, 1, 1), mask(1, 0, 0, 0)) == 0.25


def test_in_a_ranking_a_case_without_a_value_stands_at_the_median():
    assert precision_at_k(points(NAN, 4, 0), mask(1, 0, 0)) == 0.0
    assert average_precision(points(NAN, 4, 0), mask(1, 0, 0)) == 0.5
    assert precision_at_k(points(NAN, 1, 2, 3), mask(1, 0, 1, 0)) == pytest.approx(0.5)  # of 3, and of two tied at 2


def test_paired_wins_by_hand():
    copy, clean = points(2, 1, 5, NAN), points(1, 1, 6, 9)
    found = paired_win_rate(copy, clean)
    assert (found.n, found.n_without_value, found.rate) == (4, 1, (1 + 0.5 + 0 + 0.5) / 4)
    # Changes 1, 0, -1; the clean cases' median is 3.5, their deviations 2.5, 2.5, 2.5, 5.5.
    assert found.median_change == 0.0
    assert paired_win_rate(clean[:3] + 2.5, clean[:3]).median_change is None  # 1, 1, 6: more than half do not vary
    change = paired_win_rate(points(0, 1, 2, 3) + 2.0, points(0, 1, 2, 3)).median_change
    assert change == pytest.approx(2.0 / 1.482602218505602)


def test_the_interval_is_wilsons():
    # 8 of 10: (0.8 + z2/20 -+ z sqrt(0.016 + z2/400)) / (1 + z2/10), as printed in textbooks: 0.490 to 0.943.
    found = paired_win_rate(np.where(np.arange(10) < 8, 1.0, -1.0), np.zeros(10))
    assert (found.interval.low, found.interval.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    none = paired_win_rate(np.full(5, -1.0), np.zeros(5))
    assert none.interval.low == 0.0
    assert 0.0 < none.interval.high < 0.5


def test_severity_given_volume():
    volume = points(1, 2, 3, 4, 5, 6)
    noise = points(0.3, -0.2, 0.1, -0.4, 0.2, 0.0)
    assert severity_spearman(noise, noise, volume) == pytest.approx(1.0)
    assert severity_spearman(volume, noise, volume) is None  # nothing is left of a score of size alone
    assert severity_spearman(points(1, 2), points(1, 2), points(1, 1)) is None


# Oracles


@pytest.mark.parametrize("ties", [False, True])
def test_equals_scikit_learn(ties):
    generator = np.random.default_rng(0)
    for _ in range(30):
        values = generator.normal(size=25)
        values = np.round(values) if ties else values
        dirty = generator.random(25) < 0.3
        dirty[:2] = True, False
        assert auroc(values[dirty], values[~dirty]) == pytest.approx(roc_auc_score(dirty, values))
        assert average_precision(values, dirty) == pytest.approx(average_precision_score(dirty, values))


def test_precision_at_k_is_the_mean_over_orders_of_tied_cases():
    generator = np.random.default_rng(1)
    values, dirty = generator.integers(3, size=12).astype(float), generator.random(12) < 0.4
    shares = []
    for _ in range(20_000):
        order = np.lexsort((generator.random(12), -values))
        shares.append(dirty[order[: dirty.sum()]].mean())
    assert precision_at_k(values, dirty) == pytest.approx(np.mean(shares), abs=0.01)


def test_many_draws_at_once_equal_one_by_one():
    generator = np.random.default_rng(2)
    values = np.where(generator.random((6, 9)) < 0.15, NAN, generator.integers(4, size=(6, 9)))
    dirty = np.zeros((6, 9), dtype=bool)
    dirty[:, :3] = True
    for measure in (average_precision, precision_at_k):
        assert measure(values, dirty).tolist() == [float(measure(*pair)) for pair in zip(values, dirty, strict=True)]
    areas = auroc(values[:, :3], values[:, 3:])
    assert areas.tolist() == [float(auroc(row[:3], row[3:])) for row in values]


def test_resamples_equal_a_data_set_in_which_cases_stand_as_often():
    generator = np.random.default_rng(3)
    clean, copies = generator.normal(size=5), generator.normal(size=5)
    drawn = [0, 0, 1, 3, 4]
    counts = np.bincount(drawn, minlength=5)[None].astype(float)
    dirty = [0, 1]
    pairs = np.zeros((5, 5))
    pairs[np.ix_(dirty, [2, 3, 4])] = 1.0
    wins = pair_wins(copies, clean) * pairs
    expected = auroc(copies[[case for case in drawn if case in dirty]], clean[[3, 4]])
    assert resampled_auroc(wins, pairs, counts) == pytest.approx([float(expected)])


# Properties


VALUES = st.lists(st.integers(-5, 5), min_size=2, max_size=12)


@settings(deadline=None)
@given(dirty=VALUES, clean=VALUES)
def test_auroc_turns_with_the_sign_and_ignores_a_rising_transform(dirty, clean):
    dirty, clean = points(*dirty), points(*clean)
    area = auroc(dirty, clean)
    assert auroc(-dirty, -clean) == pytest.approx(1 - area)
    assert auroc(np.exp(dirty), np.exp(clean)) == area
    assert auroc(clean, dirty) == pytest.approx(1 - area)


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    # Copies of 40 cases, shifted by one standard deviation: P(copy above another clean case) = Phi(1 / sqrt 2).
    truth, n, covered = 0.7602, 40, 0
    pairs = 1.0 - np.eye(n)
    for seed in range(100):
        clean = np.random.default_rng(seed).normal(size=n)
        wins = pair_wins(clean + 1.0, clean) * pairs
        resampled = resampled_auroc(wins, pairs, case_resamples(n, resamples=300, seed=seed))
        interval = percentile_interval(resampled)
        covered += interval.low <= truth <= interval.high
    assert covered >= 85


def test_equal_seeds_give_equal_resamples_and_others_others():
    assert np.array_equal(case_resamples(7, seed=3), case_resamples(7, seed=3))
    assert not np.array_equal(case_resamples(7, seed=3), case_resamples(7, seed=4))
    assert (case_resamples(7).sum(axis=1) == 7).all()


# Edges


def test_nothing_is_defined_without_values_or_without_one_side():
    assert np.isnan(auroc(points(), points(1, 2)))
    assert np.isnan(auroc(points(1), points()))
    assert np.isnan(auroc(points(NAN), points(NAN, NAN)))
    for measure in (average_precision, precision_at_k):
        assert np.isnan(measure(points(1, 2), mask(0, 0)))
        assert np.isnan(measure(points(NAN, NAN), mask(1, 0)))
        assert np.isnan(measure(points(), mask()))
        assert measure(points(1), mask(1)) == 1.0
    for pair in ((points(), points()), (points(NAN), points(1))):
        found = paired_win_rate(*pair)
        assert (found.rate, found.interval, found.median_change) == (None, None, None)
    assert paired_win_rate(points(), points()).n == 0
    assert paired_win_rate(points(2), points(1)).rate == 1.0


def test_a_resample_without_a_pair_is_left_out_and_too_many_leave_no_interval():
    assert np.isnan(resampled_auroc(np.zeros((2, 2)), np.zeros((2, 2)), np.ones((3, 2)))).all()
    assert percentile_interval(points(NAN, NAN, 0.5)) is None
    assert percentile_interval(points()) is None
    assert percentile_interval(points(NAN, 0.5, 0.5)).low == 0.5


def test_an_infinite_value_is_an_error():
    with pytest.raises(ValueError, match="infinite"):
        auroc(points(np.inf), points(1))
    with pytest.raises(ValueError, match="infinite"):
        average_precision(points(np.inf, 1), mask(1, 0))
    with pytest.raises(ValueError, match="infinite"):
        paired_win_rate(points(np.inf), points(1))
