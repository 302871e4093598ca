import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auvtool.residuals import residuals


def test_by_hand():
    x = np.array([[0.0], [1.0], [2.0], [3.0]])
    assert residuals(np.array([1.0, 3.0, 5.0, 7.0]), x) == pytest.approx([0.0] * 4, abs=1e-12)
    # The best line through 0, 0, 0, 4 is -0.8 + 1.2 x.
    assert residuals(np.array([0.0, 0.0, 0.0, 4.0]), x) == pytest.approx([0.8, -0.4, -1.6, 1.2])


@given(st.integers(0, 1000), st.floats(-100, 100), st.floats(1e-3, 1e3))
def test_equals_the_normal_equations_whatever_the_units(seed, shift, gain):
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(20, 2)), generator.normal(size=20)
    design = np.column_stack([np.ones(20), x])
    expected = y - design @ np.linalg.solve(design.T @ design, design.T @ y)
    assert residuals(y, x) == pytest.approx(expected, abs=1e-9)
    assert residuals(y, gain * x + shift) == pytest.approx(expected, abs=1e-6)


def test_covariates_that_say_nothing_take_nothing_away():
    y, x = np.random.default_rng(1).normal(size=(2, 15))
    alone = residuals(y, x[:, None])
    for useless in (np.full(15, 7.0), 2 * x + 1):
        assert residuals(y, np.column_stack([x, useless])) == pytest.approx(alone, abs=1e-9)
    assert residuals(y, np.full((15, 1), 3.0)) == pytest.approx(y - y.mean())


def test_what_a_fit_leaves_of_rounding_is_nothing():
    """Otherwise an axis would stretch the rounding from 0 to 1, and rank cases by it."""
    x = np.log(np.random.default_rng(3).uniform(1, 50, 12))
    assert (residuals(3.0 * x - 7.0, x[:, None]) == 0).all()
    assert (residuals(np.full(12, math.log(4)), x[:, None]) == 0).all()


def test_cases_without_a_value_or_covariate_are_left_out():
    y, x = np.random.default_rng(2).normal(size=(2, 12))
    y[3], x[5] = np.nan, -np.inf
    found = residuals(y, x[:, None])
    there = np.delete(np.arange(12), [3, 5])
    assert np.isnan(found[[3, 5]]).all()
    assert found[there] == pytest.approx(residuals(y[there], x[there, None]))


def test_too_few_cases_are_refused():
    with pytest.raises(ValueError, match="3 parameters to 4 cases"):
        residuals(np.arange(4.0), np.random.default_rng(0).normal(size=(4, 2)))
