"""Each quantifier by hand, against an independent route, and by the properties that it must have."""

import math

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf

from auvtool.quantifiers.controls import effective_rank, mean_entropy
from auvtool.quantifiers.eaoa import ResidualProbability
from auvtool.quantifiers.fisher import mean_trigamma
from auvtool.quantifiers.mahalanobis import mahalanobis_distance
from auvtool.quantifiers.semantic_scale import semantic_scale
from auvtool.quantifiers.variance import feature_variance
from auvtool.spectrum import FeatureMoments

# --- fisher ---


def test_no_evidence_has_the_largest_trigamma():
    assert mean_trigamma(np.array([-1000.0])) == pytest.approx(math.pi**2 / 6)
    assert mean_trigamma(np.array([1e6])) == pytest.approx(1e-6, rel=1e-5)
    assert math.isnan(mean_trigamma(np.empty(0)))


def test_trigamma_equals_its_series():
    logits = np.random.default_rng(0).normal(0, 5, 50)
    expected = [oracles.trigamma(math.log1p(math.exp(z)) + 1) for z in logits]
    assert mean_trigamma(logits.astype(np.float32)) == pytest.approx(np.mean(expected), rel=1e-6)


@given(st.floats(-50, 50), st.floats(1e-3, 10))
def test_more_evidence_is_less_uncertain(logit, more):
    assert mean_trigamma(np.array([logit + more])) <= mean_trigamma(np.array([logit]))


# --- eaoa ---


def residual(logits, region, slices=(0,)):
    """Of classes (class, slice, h, w), all on the same slices."""
    found = ResidualProbability()
    for of_class, inside in zip(logits, region, strict=True):
        found.add(of_class.astype(np.float32), inside, slices)
    return found.mean_log()


def test_residual_probability_by_hand():
    everywhere = np.ones((1, 1, 1, 1), dtype=bool)
    # Logit 0 against the background's 0: the likeliest has 1/2, so 1/2 is left.
    assert residual(np.zeros((1, 1, 1, 1)), everywhere) == pytest.approx(math.log(0.5))
    # Three equal classes and the background: 3/4 is left.
    assert residual(np.zeros((3, 1, 1, 1)), np.repeat(everywhere, 3, axis=0)) == pytest.approx(math.log(0.75))
    assert math.isnan(ResidualProbability().mean_log())
    assert math.isnan(residual(np.zeros((1, 1, 1, 1)), ~everywhere))


@pytest.mark.parametrize("spread", [1.0, 8.0, 60.0])
def test_residual_probability_equals_the_softmax(spread):
    generator = np.random.default_rng(1)
    logits = generator.normal(0, spread, (4, 2, 5, 6)).astype(np.float32)
    region = generator.random(logits.shape) < 0.2
    voxels = logits.transpose(1, 2, 3, 0)[region.any(axis=0)]
    expected = np.mean([oracles.log_residual_probability(z) for z in voxels])
    assert residual(logits, region, (3, 9)) == pytest.approx(expected, rel=1e-5)


def test_a_class_that_was_not_decoded_on_a_slice_does_not_compete_there():
    found = ResidualProbability()
    inside = np.ones((1, 1, 1), dtype=bool)
    found.add(np.full((1, 1, 1), 2.0, np.float32), inside, [0])
    found.add(np.full((1, 1, 1), 2.0, np.float32), inside, [5])
    assert found.mean_log() == pytest.approx(oracles.log_residual_probability([2.0]), rel=1e-6)


# --- semantic scale, feature variance ---


@pytest.mark.parametrize("n_voxels", [1, 3, 40, 1000])
def test_feature_volume_and_variance_equal_the_matrix_routes(n_voxels):
    features = np.random.default_rng(n_voxels).normal(3, 2, (6, n_voxels))
    moments = FeatureMoments(6)
    moments.add(features)
    spectrum = moments.spectrum("centered")
    assert semantic_scale(spectrum, n_voxels) == pytest.approx(oracles.log_volume(features), abs=1e-7)
    trace = np.trace(np.cov(features, bias=True)) if n_voxels > 1 else 0.0
    assert feature_variance(spectrum, n_voxels) == pytest.approx(trace, abs=1e-9)


def test_features_without_voxels_have_neither_volume_nor_variance():
    assert math.isnan(semantic_scale(np.full(4, math.nan), 0))
    assert math.isnan(feature_variance(np.full(4, math.nan), 0))


# --- controls ---


def test_effective_rank_by_hand():
    assert effective_rank(np.array([2.0, 2.0, 2.0])) == pytest.approx(3.0)
    assert effective_rank(np.array([5.0, 0.0, 0.0])) == pytest.approx(1.0)
    assert effective_rank(np.array([3.0, 1.0])) == pytest.approx(
        math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    )
    assert math.isnan(effective_rank(np.zeros(3)))
    assert math.isnan(effective_rank(np.empty(0)))


def test_entropy_by_hand():
    assert mean_entropy(np.zeros(4)) == pytest.approx(math.log(2))
    assert mean_entropy(np.full(4, 500.0)) == 0
    assert mean_entropy(np.full(4, -500.0)) == pytest.approx(0, abs=1e-12)
    p = 0.2
    expected = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert mean_entropy(np.array([math.log(p / (1 - p))])) == pytest.approx(expected)
    assert math.isnan(mean_entropy(np.empty(0)))


# --- mahalanobis ---


def cloud(n_cases=12, n_classes=3, n_features=4, *, seed=0, missing=0.2):
    generator = np.random.default_rng(seed)
    vectors = (
        generator.normal(size=(n_cases, n_classes, n_features)) * [1, 5, 0.2, 30] + 10 * np.arange(n_classes)[:, None]
    )
    vectors[generator.random((n_cases, n_classes)) < missing] = np.nan
    return vectors


def test_distance_by_hand():
    # One class and one feature: the others are 0, 2, 4 (mean 2, variance 8/3), so 6 lies 16 / (8/3) = 6 away.
    vectors = np.array([0.0, 2.0, 4.0, 6.0])[:, None, None]
    assert mahalanobis_distance(vectors)[3, 0] == pytest.approx(6.0)


@pytest.mark.parametrize("relative", [False, True])
def test_distance_equals_the_plain_route(relative):
    vectors = cloud()
    found = mahalanobis_distance(vectors, relative=relative)
    for case, one in np.ndindex(found.shape):
        if np.isnan(vectors[case, one]).any():
            assert math.isnan(found[case, one])
        else:
            assert found[case, one] == pytest.approx(
                oracles.mahalanobis(vectors, case, one, relative=relative), rel=1e-8
            )


def test_the_plain_shrinkage_is_that_of_the_library():
    x = np.random.default_rng(4).normal(size=(9, 5)) * [1, 2, 3, 4, 5]
    assert oracles.shrunk_covariance(x) == pytest.approx(ledoit_wolf(x, assume_centered=True)[0])


@pytest.mark.parametrize("relative", [False, True])
def test_units_of_features_do_not_matter(relative):
    vectors = cloud(seed=5)
    units = np.array([1e-3, 1.0, 1e4, 7.0])
    expected = mahalanobis_distance(vectors, relative=relative)
    assert mahalanobis_distance(vectors * units, relative=relative) == pytest.approx(expected, rel=1e-6, nan_ok=True)
    assert mahalanobis_distance(vectors + units, relative=relative) == pytest.approx(expected, rel=1e-6, nan_ok=True)


def test_an_outlier_does_not_vouch_for_itself():
    vectors = cloud(30, 1, 4, missing=0.0)
    usual = mahalanobis_distance(vectors)[0, 0]
    vectors[0, 0] += 1000
    far = mahalanobis_distance(vectors)
    assert far[0, 0] > 1000 * usual
    assert far[0, 0] == far[:, 0].max()


def test_too_few_cases_have_no_distance():
    assert np.isnan(mahalanobis_distance(cloud(2, missing=0.0))).all()
    vectors = cloud(6, 2, missing=0.0)
    vectors[2:, 1] = np.nan  # two cases have the second class: one other each
    found = mahalanobis_distance(vectors)
    assert np.isnan(found[:, 1]).all()
    assert not np.isnan(found[:, 0]).any()
    assert np.isnan(mahalanobis_distance(np.full((5, 2, 3), np.nan))).all()


def test_a_feature_that_never_varies_says_nothing():
    vectors = cloud(missing=0.0)
    constant = np.concatenate([vectors, np.full((*vectors.shape[:2], 1), 3.0)], axis=2)
    found = mahalanobis_distance(constant)
    assert np.isfinite(found).all()
    assert found == pytest.approx(mahalanobis_distance(vectors), rel=1e-9)
    assert np.isnan(mahalanobis_distance(np.ones((5, 2, 3)))).all()


# --- invariances ---


@given(st.integers(0, 500), st.integers(1, 6), st.integers(2, 30))
def test_feature_volume_and_variance_ignore_rotation_shift_and_voxel_order(seed, n_features, n_voxels):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(n_features, n_voxels))
    rotation, _ = np.linalg.qr(generator.normal(size=(n_features, n_features)))
    turned = (rotation @ features + generator.normal(size=(n_features, 1)))[:, generator.permutation(n_voxels)]
    spectra = []
    for matrix in (features, turned):
        moments = FeatureMoments(n_features)
        moments.add(matrix)
        spectra.append(moments.spectrum("centered"))
    for measure in (semantic_scale, feature_variance):
        one, other = (measure(spectrum, n_voxels) for spectrum in spectra)
        assert one == pytest.approx(other, abs=1e-6)


@given(st.integers(0, 500), st.integers(1, 5))
def test_residual_probability_ignores_the_order_of_classes_and_is_bounded(seed, n_classes):
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 5, (n_classes, 1, 3, 4))
    region = generator.random(logits.shape) < 0.5
    region[0, 0, 0, 0] = True
    found, order = residual(logits, region), generator.permutation(n_classes)
    assert residual(logits[order], region[order]) == pytest.approx(found, rel=1e-5)
    assert found <= math.log(n_classes / (n_classes + 1)) + 1e-6


@given(st.integers(0, 500), st.booleans())
def test_distance_ignores_the_order_of_cases_and_classes(seed, relative):
    vectors = cloud(8, 2, seed=seed, missing=0.1)
    generator = np.random.default_rng(seed)
    cases, classes = generator.permutation(8), generator.permutation(2)
    found = mahalanobis_distance(vectors, relative=relative)
    moved = mahalanobis_distance(vectors[cases][:, classes], relative=relative)
    assert moved == pytest.approx(found[cases][:, classes], rel=1e-6, nan_ok=True)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20), st.floats(1e-3, 1e3))
def test_effective_rank_ignores_gain_and_order_and_stays_in_range(values, gain):
    spectrum = np.array(values)
    rank = effective_rank(spectrum)
    assert 1.0 - 1e-9 <= rank <= len(values) + 1e-9
    assert effective_rank(gain * spectrum[::-1]) == pytest.approx(rank)
