"""Spectra against numpy's SVD in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auvtool import spectrum
from auvtool.spectrum import UNFOLDINGS, FeatureMoments, map_spectra, unfolding_spectra


def svd_oracle(volume: np.ndarray, unfolding: str, centering: str) -> np.ndarray:
    rows = {"d_hw": (0, 1, 2), "h_dw": (1, 0, 2), "w_dh": (2, 0, 1)}[unfolding]
    matrix = volume.astype(np.float64).transpose(rows)
    matrix = matrix.reshape(matrix.shape[0], -1)
    if centering == "centered":
        matrix = matrix - matrix.mean(axis=1, keepdims=True)
    return np.linalg.svd(matrix, compute_uv=False)


def test_by_hand_two_slices() -> None:
    # Rows (3, 0) and (0, 4): uncentred 4 and 3. Centred rows (1.5, -1.5), (-2, 2): rank one, sqrt(4.5 + 8).
    volume = np.array([[[3.0, 0.0]], [[0.0, 4.0]]], dtype=np.float32)
    values = unfolding_spectra(volume, "d_hw")
    np.testing.assert_allclose(values["uncentered"], [4.0, 3.0])
    np.testing.assert_allclose(values["centered"], [np.sqrt(12.5), 0.0], atol=1e-7)


@pytest.mark.parametrize("shape", [(7, 12, 9), (60, 3, 4), (3, 40, 2), (2, 3, 50), (1, 8, 9), (5, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_equals_svd(shape: tuple[int, int, int], offset: float) -> None:
    volume = (np.random.default_rng(1).normal(size=shape) + offset).astype(np.float32)
    found = map_spectra(volume)
    assert len(found) == 6
    for (unfolding, centering), values in found.items():
        expected = svd_oracle(volume, unfolding, centering)
        assert values.shape == expected.shape
        # sqrt of the rounding of the Gram matrix: 1e-8 of the largest singular value.
        np.testing.assert_allclose(values, expected, rtol=1e-9, atol=3e-8 * max(expected[0], offset))


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = np.random.default_rng(2).normal(size=(6, 11, 13)).astype(np.float32)
    whole = map_spectra(volume)
    monkeypatch.setattr(spectrum, "_CHUNK_VALUES", 70)
    for key, values in map_spectra(volume).items():
        np.testing.assert_allclose(values, whole[key], rtol=1e-10)


def test_constant_map() -> None:
    volume = np.full((4, 5, 6), 0.1, dtype=np.float32)
    for unfolding in UNFOLDINGS:
        values = unfolding_spectra(volume, unfolding)
        assert (values["centered"] == 0).all()
        np.testing.assert_allclose(values["uncentered"][0], np.float32(0.1) * np.sqrt(120), rtol=1e-12)
        assert (values["uncentered"][1:] < 1e-7).all()


def test_small_variation_on_a_large_constant() -> None:
    volume = (1000 + 1e-2 * np.random.default_rng(3).normal(size=(8, 30, 30))).astype(np.float32)
    for unfolding in UNFOLDINGS:
        np.testing.assert_allclose(
            unfolding_spectra(volume, unfolding)["centered"], svd_oracle(volume, unfolding, "centered"), rtol=1e-9
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_a_value_that_is_not_finite(bad: float) -> None:
    volume = np.zeros((3, 4, 5), dtype=np.float32)
    volume[1, 2, 3] = bad
    with pytest.raises(ValueError, match="NaN"):
        map_spectra(volume)


def test_refuses_an_empty_map() -> None:
    with pytest.raises(ValueError, match="no singular values"):
        map_spectra(np.zeros((0, 4, 5), dtype=np.float32))


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    gain=st.floats(1e-3, 1e3),
    shape=st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 7)),
    axis=st.integers(0, 2),
)
def test_gain_scales_flips_and_slice_order_change_nothing(
    seed: int, gain: float, shape: tuple[int, int, int], axis: int
) -> None:
    generator = np.random.default_rng(seed)
    volume = generator.normal(size=shape)
    order = generator.permutation(shape[0])
    base, scaled = map_spectra(volume), map_spectra(gain * volume)
    flipped, shuffled = map_spectra(np.flip(volume, axis)), map_spectra(volume[order])
    for key, values in base.items():
        tolerance = {"rtol": 1e-9, "atol": 1e-7 * values[0] + 1e-12}
        np.testing.assert_allclose(scaled[key] / gain, values, **tolerance)
        np.testing.assert_allclose(flipped[key], values, **tolerance)
        np.testing.assert_allclose(shuffled[key], values, **tolerance)


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
