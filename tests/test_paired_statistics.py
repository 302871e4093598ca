import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from auvtool.paired_statistics import holm, paired_difference, signed_rank_p


def plain_signed_rank_p(differences):
    """Pratt's test by all 2^n signs: the share of sign patterns whose rank sum is at least as far from its mean."""
    sizes = np.abs(differences)
    ranks = np.array([1 + (sizes < size).sum() + ((sizes == size).sum() - 1) / 2 for size in sizes])
    ranks = ranks[sizes > 0]
    signs = np.sign(differences)[sizes > 0]
    found = abs((signs * ranks).sum())
    sums = [abs(np.dot(pattern, ranks)) for pattern in itertools.product((-1, 1), repeat=len(ranks))]
    return float(np.mean(np.array(sums) >= found - 1e-9))


@settings(deadline=None)  # SciPy goes through the signs itself
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_p_equals_all_sign_patterns(whole):
    differences = np.array(whole) / 8
    assert signed_rank_p(differences) == pytest.approx(plain_signed_rank_p(differences))


def test_p_by_hand():
    assert signed_rank_p(np.array([0.1, 0.2, 0.3, 0.4, 0.5])) == pytest.approx(2 / 2**5)
    assert signed_rank_p(np.zeros(3)) == 1.0
    assert signed_rank_p(np.array([0.25])) == 1.0
    with pytest.raises(ValueError, match="got none"):
        signed_rank_p(np.empty(0))


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_equals_its_definition(p_values):
    found = holm(p_values)
    for p, corrected in zip(p_values, found, strict=True):
        smaller = [other for other in p_values if other <= p]
        steps = [min(1.0, other * sum(one >= other for one in p_values)) for other in smaller]
        assert corrected == pytest.approx(max(steps))
        assert corrected >= p
    assert sorted(found) == [corrected for _, corrected in sorted(zip(p_values, found, strict=True))]


def test_holm_counts_no_missing_test():
    assert holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]
    assert holm([]) == []


def test_a_paired_difference_by_hand():
    first, second = np.array([0.5, 0.5, 0.5, 0.8]), np.array([0.6, 0.4, 0.5, 1.0])
    found = paired_difference(first, second, resamples=500, seed=0)
    assert (found.n, found.n_larger, found.n_smaller) == (4, 2, 1)
    assert (found.mean_first, found.mean_second, found.difference) == pytest.approx((0.575, 0.625, 0.05))
    assert -0.1 <= found.low <= found.difference <= found.high <= 0.2
    assert found == paired_difference(first, second, resamples=500, seed=0)
    back = paired_difference(second, first, resamples=500, seed=0)
    assert (back.low, back.high, back.p) == pytest.approx((-found.high, -found.low, found.p))


def test_interval_equals_scipys():
    rng = np.random.default_rng(3)
    first = rng.normal(size=200)
    second = first + rng.normal(0.1, 0.5, size=200)
    found = paired_difference(first, second, resamples=20_000, seed=1)
    theirs = scipy.stats.bootstrap(
        (second - first,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.004)


def test_few_pairs_have_no_interval():
    three = np.array([0.1, 0.2, 0.4])
    for values, resamples in ((three, 100), (np.append(three, 0.5), 0)):
        found = paired_difference(np.zeros(len(values)), values, resamples=resamples, seed=0)
        assert (found.low, found.high) == (None, None)
        assert found.difference == pytest.approx(values.mean())
    assert paired_difference(np.empty(0), np.empty(0), resamples=10, seed=0) is None
    with pytest.raises(ValueError, match="one length"):
        paired_difference(three, three[:2], resamples=10, seed=0)
    with pytest.raises(ValueError, match="finite"):
        paired_difference(three, three * np.nan, resamples=10, seed=0)
