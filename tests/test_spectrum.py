"""Singular values of a Gram matrix and of a feature matrix against numpy's SVD in float64."""

import numpy as np
import pytest

from auvtool.spectrum import FeatureMoments, singular_values


def test_singular_values_by_hand() -> None:
    # Eigenvalues 9, 4 and one that rounding left below zero.
    np.testing.assert_array_equal(singular_values(np.diag([4.0, -1e-16, 9.0]), 3), [3.0, 2.0, 0.0])
    np.testing.assert_array_equal(singular_values(np.diag([4.0, -1e-16, 9.0]), 2), [3.0, 2.0])


@pytest.mark.parametrize("n_voxels", [3, 5, 400])
def test_feature_moments_equal_svd_of_the_matrix(n_voxels: int) -> None:
    features = (np.random.default_rng(4).normal(size=(5, n_voxels)) + 20).astype(np.float32)
    moments = FeatureMoments(5)
    moments.add(features[:, :2])
    moments.add(features[:, 2:2])
    moments.add(features[:, 2:])
    matrix = features.astype(np.float64)
    np.testing.assert_allclose(moments.mean(), matrix.mean(axis=1), rtol=1e-12)
    for centering, centered in (("uncentered", matrix), ("centered", matrix - matrix.mean(axis=1, keepdims=True))):
        expected = np.zeros(5)
        values = np.linalg.svd(centered, compute_uv=False)
        expected[: len(values)] = values
        np.testing.assert_allclose(moments.spectrum(centering), expected, rtol=1e-8, atol=1e-5)


def test_feature_moments_without_voxels_are_nan() -> None:
    moments = FeatureMoments(3)
    assert np.isnan(moments.mean()).all()
    assert np.isnan(moments.spectrum("centered")).all()


def test_feature_moments_refuse_nan() -> None:
    with pytest.raises(ValueError, match="NaN"):
        FeatureMoments(1).add(np.array([[np.nan]]))
