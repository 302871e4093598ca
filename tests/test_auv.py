import math

import numpy as np
import oracles
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from auvtool.auv import AuvAxis, fit_axis, log_coordinates, place


def auv(scales, *, log_eps=1e-12, range_eps=0.0):
    coordinates = log_coordinates(np.array(scales), log_eps=log_eps)
    return place(coordinates, fit_axis(coordinates, high="certain", range_eps=range_eps))


def test_by_hand():
    assert auv([1.0, 0.1, 0.01]) == pytest.approx([0.0, 0.5, 1.0], abs=1e-9)


def test_axis_holds_the_extremes_of_log_scale():
    axis = fit_axis(log_coordinates(np.array([0.5, 0.2, math.nan]), log_eps=0.0), high="certain")
    assert (axis.minimum, axis.maximum) == pytest.approx((math.log(0.2), math.log(0.5)))


def test_case_without_a_scale_has_no_auv_and_does_not_move_the_others():
    values = auv([1.0, math.nan, 0.1])
    assert math.isnan(values[1])
    assert values[[0, 2]] == pytest.approx([0.0, 1.0])


@pytest.mark.parametrize("scales", [[0.3], [0.3, 0.3, 0.3]])
def test_equal_scales_say_nothing(scales):
    assert np.isnan(auv(scales)).all()
    assert auv(scales, log_eps=1e-8, range_eps=1e-8) == pytest.approx([1.0] * len(scales))  # as released


def test_cases_that_differ_by_rounding_are_equal():
    close = np.log(np.array([0.3, 0.3 * (1 + 1e-15), 0.3]))
    assert np.isnan(place(close, fit_axis(close, high="certain"))).all()
    # Two cases are equally far from their median, whatever rounding says.
    pair = np.array([0.1, 0.7])
    assert np.isnan(place(pair, fit_axis(pair, high="certain", two_sided=True))).all()


def test_no_scale_at_all_has_no_axis():
    assert fit_axis(np.array([math.nan, math.nan]), high="certain") is None
    assert fit_axis(np.array([]), high="uncertain") is None


def test_new_cases_are_placed_on_the_old_axis():
    axis = AuvAxis(math.log(0.01), math.log(1.0), "certain")
    assert place(np.log([0.1, 0.001]), axis) == pytest.approx([0.5, 1.5])


def test_a_quantifier_that_is_high_where_uncertain_is_not_turned_round():
    coordinates = np.array([2.0, 4.0, 3.0, math.nan])
    found = place(coordinates, fit_axis(coordinates, high="uncertain"))
    assert found[:3] == pytest.approx([0.0, 1.0, 0.5])
    assert math.isnan(found[3])


@pytest.mark.parametrize("high", ["certain", "uncertain"])
def test_two_sided_is_the_distance_from_the_median(high):
    coordinates = np.array([1.0, 2.0, 3.0, 4.0, 9.0])
    axis = fit_axis(coordinates, high=high, two_sided=True)
    assert axis.center == 3.0
    assert place(coordinates, axis) == pytest.approx([2 / 6, 1 / 6, 0.0, 1 / 6, 1.0])
    assert place(np.array([-3.0]), axis) == pytest.approx([1.0])


def test_zero_scale_needs_an_eps():
    assert auv([0.0, 1.0]) == pytest.approx([1.0, 0.0])
    with pytest.raises(ValueError, match="got 0"):
        log_coordinates(np.array([0.0, 1.0]), log_eps=0.0)
    with pytest.raises(ValueError, match=">= 0"):
        log_coordinates(np.array([-0.1, 1.0]), log_eps=0.0)


def test_official_equals_the_released_example():
    per_class = np.random.default_rng(0).uniform(0.01, 1.0, (20, 3))
    ours = auv(per_class.sum(axis=1), log_eps=1e-8, range_eps=1e-8)
    assert ours == pytest.approx(oracles.released_auv(per_class.tolist()), abs=1e-12)


@given(st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=30))
def test_auv_reverses_the_order_of_scale_and_hits_0_and_1(scales):
    assume(math.log(max(scales)) - math.log(min(scales)) > 1e-9)
    values = auv(scales)
    assert values.min() == 0.0
    assert values.max() == 1.0
    order = np.argsort(scales, kind="stable")
    assert (np.diff(values[order]) <= 0).all()
