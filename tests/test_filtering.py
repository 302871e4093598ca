"""Equations 7 to 9: by hand, against the oracle, properties."""

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from auvtool.filtering import auv_threshold, filter_by_class, filter_cases

NAN = float("nan")


def test_ten_cases_by_hand():
    auv = np.array([0.9, 0.1, 0.5, 0.3, 1.0, 0.0, 0.2, 0.7, 0.6, 0.4])
    assert auv_threshold(auv, 0.9) == 0.9
    assert list(np.flatnonzero(~filter_cases(auv, 0.9))) == [4]
    assert auv_threshold(auv, 0.85) == 0.9  # the ninth of ten is the first with F >= 0.85
    assert auv_threshold(auv, 0.5) == 0.4
    assert filter_cases(auv, 1.0).all()
    assert list(np.flatnonzero(filter_cases(auv, 0.01))) == [5]


def test_ties_stay_together():
    auv = np.array([0.5, 0.5, 0.5, 0.5, 1.0])
    assert list(filter_cases(auv, 0.2)) == [True, True, True, True, False]


def test_cases_without_auv_are_kept_and_not_counted():
    auv = np.array([NAN, 0.0, 0.5, NAN, 1.0])
    assert auv_threshold(auv, 0.6) == 0.5
    assert list(filter_cases(auv, 0.6)) == [True, True, True, True, False]
    assert np.isnan(auv_threshold(np.array([NAN]), 0.5))
    assert filter_cases(np.array([NAN]), 0.5).all()


def test_a_share_of_a_whole_number_of_cases_by_hand():
    """0.28 * 25 is 7.000000000000001 in doubles, and would keep an eighth case."""
    assert filter_cases(np.arange(25.0), 0.28).sum() == 7
    assert filter_cases(np.arange(50.0), 0.14).sum() == 7
    assert filter_cases(np.arange(100.0), 0.55).sum() == 55


def test_every_quantile_of_every_number_of_cases():
    """Counted case by case in whole numbers: the first whose 1000 F reaches 1000 q n."""
    for n in range(1, 130):
        auv = np.arange(float(n))
        for thousandths in range(1, 1001, 1 if n < 30 else 7):
            first = next(place for place in range(1, n + 1) if 1000 * place >= thousandths * n)
            assert auv_threshold(auv, thousandths / 1000) == auv[first - 1], (n, thousandths)


def test_a_quantile_that_is_a_share_of_the_cases_keeps_that_many():
    for n in range(1, 200):
        for kept in range(1, n + 1):
            assert filter_cases(np.arange(float(n)), kept / n).sum() == kept, (n, kept)


@pytest.mark.parametrize("quantile", [0.0, -0.1, 1.1, NAN])
def test_quantile_outside_its_range(quantile):
    with pytest.raises(ValueError, match="a quantile lies in"):
        auv_threshold(np.array([0.5]), quantile)


def test_classes_by_hand():
    """The threshold of q = 0.5 is the third of five AUVs of each class, 0.7 for both."""
    auv = np.array([[0.0, 0.9], [0.1, 0.1], [0.8, 0.2], [0.9, 0.8], [NAN, NAN], [NAN, 0.7], [0.7, NAN]])
    first, second = auv_threshold(auv[:, 0], 0.5), auv_threshold(auv[:, 1], 0.5)
    assert (first, second) == (0.7, 0.7)
    assert list(filter_by_class(auv, 0.5, combination="union")) == [True, True, True, False, True, True, True]
    assert list(filter_by_class(auv, 0.5, combination="intersection")) == [False, True, False, False, True, True, True]


def test_an_absent_class_does_not_keep_a_case():
    auv = np.array([[0.0, 0.0], [1.0, NAN]])
    assert list(filter_by_class(auv, 0.5, combination="union")) == [True, False]


values = st.floats(0, 1) | st.just(NAN)
tables = arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=values)


@settings(deadline=None)
@given(auv=tables, quantile=st.floats(0.01, 1.0))
def test_oracle(auv, quantile):
    rows = [[None if np.isnan(value) else float(value) for value in row] for row in auv]
    first = [row[0] for row in rows]
    assert list(filter_cases(auv[:, 0], quantile)) == oracles.kept_cases(first, quantile)
    for combination in ("union", "intersection"):
        kept = filter_by_class(auv, quantile, combination=combination)
        assert list(kept) == oracles.kept_by_class(rows, quantile, combination)


@settings(deadline=None)
@given(auv=tables, low=st.floats(0.01, 1.0), high=st.floats(0.01, 1.0))
def test_keep_lists_nest_as_the_quantile_falls(auv, low, high):
    low, high = sorted((low, high))
    for combination in ("union", "intersection"):
        fewer = filter_by_class(auv, low, combination=combination)
        more = filter_by_class(auv, high, combination=combination)
        assert not (fewer & ~more).any()
    union, intersection = (filter_by_class(auv, low, combination=name) for name in ("union", "intersection"))
    assert not (intersection & ~union).any()
    assert filter_by_class(auv, 1.0, combination="intersection").all()


@settings(deadline=None)
@given(auv=arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1)), quantile=st.floats(0.01, 1.0))
def test_at_least_the_share_asked_for_is_kept(auv, quantile):
    assert filter_cases(auv, quantile).sum() >= quantile * len(auv) - 1e-9
    assert filter_cases(auv[::-1], quantile)[::-1].tolist() == filter_cases(auv, quantile).tolist()
