import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auvtool.robust import left_out_distance, robust_z


def test_z_by_hand():
    # Median 2, deviations 2 1 0 1 2 98, their median 1.5.
    values = np.array([0.0, 1.0, 2.0, 3.0, 100.0])
    z = robust_z(values, limit=6.0)
    assert z[:4] == pytest.approx([-2 / 1.4826, -1 / 1.4826, 0, 1 / 1.4826])
    assert z[4] == 6.0


def test_a_single_odd_case_among_equal_ones_stands_out():
    values = np.ones(30)
    values[7] = 2.0
    z = robust_z(values, limit=1000.0)
    assert z[7] == pytest.approx(30 / 1.2533)
    assert not np.delete(z, 7).any()


def test_what_never_differs_is_no_deviation_and_what_is_missing_stays_missing():
    values = np.array([[1.0, np.nan], [1.0, np.nan], [1.0, 3.0], [1.0, 4.0]])
    z = robust_z(values, limit=6.0)
    assert not z[:, 0].any()
    assert np.isnan(z[:2, 1]).all()
    assert not z[2:, 1].any()  # two cases tell nothing


@given(st.integers(5, 30), st.floats(0.01, 1e4), st.floats(-1e3, 1e3), st.integers(0, 1000))
def test_unit_and_origin_do_not_matter(n, gain, offset, seed):
    values = np.random.default_rng(seed).normal(size=(n, 2, 3))
    assert robust_z(gain * values + offset, limit=6.0) == pytest.approx(robust_z(values, limit=6.0), abs=1e-6)


@pytest.mark.parametrize(("n", "p"), [(12, 3), (8, 20)])
def test_left_out_distance_is_that_of_a_fit_without_the_case(n, p):
    vectors = np.random.default_rng(n).normal(size=(n, p)) * np.arange(1, p + 1)
    scaled = vectors / vectors.std(axis=0)
    expected = []
    for case in range(n):
        others = np.delete(scaled, case, axis=0)
        away = scaled[case] - others.mean(axis=0)
        scatter = (others - others.mean(axis=0)).T @ (others - others.mean(axis=0))
        expected.append(away @ np.linalg.solve(scatter + 0.01 * n * np.eye(p), away))
    assert left_out_distance(vectors) == pytest.approx(np.array(expected), rel=1e-9)


def test_left_out_distance_of_equal_missing_and_few_vectors():
    vectors = np.zeros((6, 2))
    vectors[1, 0] = np.nan
    found = left_out_distance(vectors)
    assert np.isnan(found[1])
    assert not np.delete(found, 1).any()
    assert np.isnan(left_out_distance(np.ones((3, 2)))).all()
    assert np.isnan(left_out_distance(np.empty((6, 0)))).all()


def test_an_odd_vector_is_the_farthest():
    vectors = np.random.default_rng(0).normal(size=(40, 5))
    vectors[11] += 6
    assert np.argmax(left_out_distance(vectors)) == 11
