"""What is kept of a decoded channel, against plain formulas."""

from dataclasses import replace

import numpy as np
import oracles
import pytest
from features import random_evidence
from hypothesis import given
from hypothesis import strategies as st

from auvtool.case_extraction import _foreground_size
from auvtool.class_box import class_boxes
from auvtool.dataset_json import SemanticClass
from auvtool.extractors import Agreement, DecodedChannel, absent_channel
from auvtool.gram import map_spectra
from auvtool.measurement import (
    STATISTIC_NAMES,
    ChannelRegion,
    choose_slices,
    measure_case,
    thin_out,
    voxel_statistics,
)
from auvtool.spectrum import FeatureMoments
from auvtool.volume import Geometry

AFFINE = tuple(tuple(row) for row in np.diag([2.0, 1.0, 0.5, 1.0]).tolist())
GEOMETRY = Geometry((4, 6, 8), (2.0, 1.0, 0.5), "S", AFFINE, AFFINE, (4, 6, 8))
AGREEMENT = Agreement(0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
EVIDENCE = random_evidence(np.random.default_rng(0), np.array([[True], [False]]))
ONE, TWO = SemanticClass(1, "one", (1,)), SemanticClass(2, "two", (2,))


def measured(decoded: list[DecodedChannel], label: np.ndarray, image: np.ndarray, **options: object):
    regions = [ChannelRegion(image, label, ONE), ChannelRegion(image, label, TWO)]
    return measure_case(
        "case",
        ((1, "one"), (2, "two")),
        iter(decoded),
        iter(regions),
        GEOMETRY,
        **{"n_foreground": 10}
        | {"n_features": 3, "with_spectra": True, "keep_map": lambda class_id, channel: None}
        | {"evidence": lambda image_features: replace(EVIDENCE, image_features=image_features)}
        | options,
    )


def a_channel(seed: int = 0, *, logits: np.ndarray | None = None) -> DecodedChannel:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(2, 5, 7)).astype(np.float32) if logits is None else logits
    features = FeatureMoments(3)
    features.add(generator.normal(size=(3, 20)))
    region = np.zeros(logits.shape, dtype=bool)
    region[0, 1, 2], region[1, 3, 5] = True, True
    return DecodedChannel(logits, np.array([1, 3]), region, features, AGREEMENT, np.array([seed, 5.0]))


def test_a_present_and_an_absent_class() -> None:
    label = np.zeros((4, 6, 8), dtype=np.int16)
    label[1, 2:4, 3:6] = 1
    image = np.arange(192, dtype=np.float32).reshape(4, 6, 8)
    kept = []
    channel = a_channel()
    features = measured([channel, absent_channel(3)], label, image, keep_map=lambda i, c: kept.append((i, c)))
    assert kept == [(1, channel)]
    assert features.status == ("ok", "absent")
    assert features.n_slices.tolist() == [2, 0]
    assert features.n_voxels.tolist() == [6, 0]
    np.testing.assert_allclose(features.volume_ml, [6 * 1.0 / 1000, 0])
    np.testing.assert_array_equal(features.agreement[0], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    assert np.isnan(features.agreement[1]).all()
    assert features.evidence.image_features.tolist() == [0.0, 5.0]  # of a class that is there
    np.testing.assert_array_equal(features.evidence.label_shape, EVIDENCE.label_shape)
    assert np.isnan(features.class_features[1]).all()
    assert np.isnan(features.channel_spectra["centered"][1]).all()
    np.testing.assert_allclose(features.class_features[0], channel.features.mean(), rtol=1e-6)
    whole, box = channel.logits, channel.logits[:, 1:4, 2:6]
    assert len(features.spectra) == 24
    for (roi, kind, unfolding, centering), values in features.spectra.items():
        logits = (whole if roi == "volume" else box).astype(np.float64)
        expected = map_spectra(logits if kind == "logits" else 1 / (1 + np.exp(-logits)))
        np.testing.assert_allclose(values[0], expected[unfolding, centering], rtol=1e-4, atol=1e-6)
        assert values[1].size == 0
    assert features.n_feature_voxels.tolist() == [20, 0]
    inside = image[label == 1]
    by_name = dict(zip(STATISTIC_NAMES, features.voxel_statistics[0], strict=True))
    assert by_name["n"] == 6
    np.testing.assert_allclose([by_name["mean"], by_name["std"]], [inside.mean(), inside.std()])
    np.testing.assert_allclose([by_name["min"], by_name["max"]], [inside.min(), inside.max()])
    np.testing.assert_allclose(by_name["p50"], np.median(inside))
    assert features.voxel_statistics[1, 0] == 0
    assert np.isnan(features.voxel_statistics[1, 1:]).all()


def test_a_map_without_variation_is_flat() -> None:
    label = np.ones((4, 6, 8), dtype=np.int16)
    flat = a_channel(logits=np.full((2, 5, 7), 0.3, dtype=np.float32))
    features = measured([flat, absent_channel(3)], label, np.zeros((4, 6, 8), dtype=np.float32))
    assert features.status == ("flat", "absent")
    assert (features.spectra["volume", "logits", "d_hw", "centered"][0] == 0).all()


def test_a_map_with_nan_names_its_class() -> None:
    logits = np.zeros((2, 5, 7), dtype=np.float32)
    logits[0, 0, 0] = np.nan
    label = np.ones((4, 6, 8), dtype=np.int16)
    with pytest.raises(ValueError, match=r"class 1 \(one\) holds a NaN"):
        measured([a_channel(logits=logits), a_channel()], label, np.zeros((4, 6, 8), dtype=np.float32))


def test_maps_only_have_no_spectra() -> None:
    label = np.ones((4, 6, 8), dtype=np.int16)
    features = measured([a_channel(), a_channel()], label, np.zeros((4, 6, 8), np.float32), with_spectra=False)
    assert features.spectra == {}
    assert features.channel_spectra == {}


def test_a_channel_without_a_region_has_no_class_box() -> None:
    label = np.ones((4, 6, 8), dtype=np.int16)
    channel = replace(a_channel(), region=None)
    features = measured([channel, absent_channel(3)], label, np.zeros((4, 6, 8), np.float32))
    assert features.spectra["volume", "logits", "d_hw", "centered"][0].size == 2
    assert features.spectra["class-box", "logits", "d_hw", "centered"][0].size == 0
    assert np.isnan(features.log_residual_probability)


def test_what_the_rivals_read_is_taken_in_the_class_region() -> None:
    label = np.ones((4, 6, 8), dtype=np.int16)
    one, two = a_channel(1), a_channel(2)
    features = measured([one, two], label, np.zeros((4, 6, 8), np.float32))
    for index, channel in enumerate((one, two)):
        inside = channel.logits[channel.region].astype(np.float64)
        p = 1 / (1 + np.exp(-inside))
        by_name = dict(zip(STATISTIC_NAMES, features.voxel_statistics[index], strict=True))
        np.testing.assert_allclose(by_name["probability_entropy"], (-p * np.log(p) - (1 - p) * np.log(1 - p)).mean())
        np.testing.assert_allclose(
            by_name["trigamma"], np.mean([oracles.trigamma(np.log1p(np.exp(z)) + 1) for z in inside])
        )
    voxels = np.stack([one.logits[one.region], two.logits[one.region]]).astype(np.float64)
    expected = np.mean([oracles.log_residual_probability(z) for z in voxels.T])
    np.testing.assert_allclose(features.log_residual_probability, expected, rtol=1e-5)


def test_statistics_of_nothing() -> None:
    found = voxel_statistics(np.empty(0))
    assert found[0] == 0
    assert np.isnan(found[1:]).all()


def a_label(*classes_by_slice: tuple[int, ...]) -> np.ndarray:
    label = np.zeros((len(classes_by_slice), 4, 4), dtype=np.int16)
    for index, present in enumerate(classes_by_slice):
        for value in present:
            label[index, value] = value
    return label


def test_slices_that_carry_a_class_are_chosen() -> None:
    label = a_label((), (1,), (1, 2), (3,), (2,), ())
    assert choose_slices(label, (ONE, TWO), 6, stride=1, limit=None).tolist() == [1, 2, 4]
    assert choose_slices(None, (), 6, stride=2, limit=None).tolist() == [0, 2, 4]
    assert choose_slices(a_label((), ()), (ONE, TWO), 2, stride=1, limit=3).tolist() == []


def test_slices_and_voxels_of_a_class_are_those_of_its_values_wherever_it_lies() -> None:
    rng = np.random.default_rng(3)
    label = rng.choice(6, size=(7, 9, 8), p=[0.9, *[0.02] * 5]).astype(np.uint8)[::-1].transpose(0, 2, 1)
    image = rng.normal(size=label.shape).astype(np.float32)
    classes = [SemanticClass(number, str(number), values) for number, values in enumerate([(1,), (2, 5), (1, 2), (9,)])]
    boxes = class_boxes(label, [one.labels for one in classes])
    for one, box in zip(classes, boxes, strict=True):
        mask = np.isin(label, one.labels)
        expected = np.flatnonzero(mask.any(axis=(1, 2)))
        assert choose_slices(label, (one,), 7, stride=1, limit=None).tolist() == expected.tolist()
        for region in (ChannelRegion(image, label, one, box), ChannelRegion(image, label, one)):
            np.testing.assert_array_equal(region.values(), image[mask])
    assert boxes[3] is None
    assert _foreground_size(image, label, tuple(classes)) == np.isin(label, (1, 2, 5)).sum()


def test_a_rare_class_keeps_its_largest_slice() -> None:
    label = a_label(*[(1,)] * 20)
    label[3, 2, 0] = label[4, 2, :] = 2
    chosen = choose_slices(label, (ONE, TWO), 20, stride=1, limit=2)
    assert 4 in chosen
    assert len(chosen) == 3


@given(st.integers(0, 60), st.integers(1, 9), st.none() | st.integers(1, 20))
def test_thinning_keeps_order_and_limit(n: int, stride: int, limit: int | None) -> None:
    slices = np.arange(100, 100 + n)
    kept = thin_out(slices, stride=stride, limit=limit)
    assert set(kept) <= set(slices)
    assert (np.diff(kept) > 0).all()
    expected = -(-n // stride)
    assert len(kept) == (expected if limit is None else min(expected, limit))


def test_thinning_is_even() -> None:
    assert thin_out(np.arange(10), stride=1, limit=5).tolist() == [1, 3, 5, 7, 9]
    assert thin_out(np.arange(9), stride=4, limit=None).tolist() == [0, 4, 8]
    assert thin_out(np.arange(7), stride=4, limit=None).tolist() == [1, 5]
