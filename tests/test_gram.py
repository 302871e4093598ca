"""Spectra through Gram matrices, of maps in memory and slab by slab, against numpy's SVD in float64."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from map_families import families, scale_errors, svd_oracle

from auvtool import gram
from auvtool.gram import SweptMaps, batch_spectra, map_spectra, swept_spectra
from auvtool.spectrum import CENTERINGS, UNFOLDINGS

AXIS = {"d": 1, "h": 2, "w": 3}  # within (map, d, h, w)


def slabs(maps, axis, thicknesses):
    """(start, slab) along an axis; the thicknesses are taken in turn."""
    start, n = 0, maps.shape[AXIS[axis]]
    for thickness in itertools.cycle(thicknesses):
        if start >= n:
            return
        stop = min(n, start + thickness)
        yield start, maps[(slice(None),) * AXIS[axis] + (slice(start, stop),)]
        start = stop


def assert_spectra_equal(found, expected, *, relative=1e-9):
    """Equal to `relative`, or where that is more to the rounding of a Gram matrix: 3e-8 of the map's largest value."""
    assert set(found) == set(expected)
    for key, values in expected.items():
        largest = max(float(expected[key[0], "uncentered"].max()), 1e-300)
        np.testing.assert_allclose(found[key], values, rtol=relative, atol=3e-8 * largest)


def oracle_spectra(volume):
    return {(u, c): svd_oracle(volume, u, c) for u in UNFOLDINGS for c in CENTERINGS}


# --- by hand ---


def test_two_slices():
    # Rows (3, 0) and (0, 4): uncentred 4 and 3. Centred rows (1.5, -1.5), (-2, 2): rank one, sqrt(4.5 + 8).
    found = map_spectra(np.array([[[3.0, 0.0]], [[0.0, 4.0]]], dtype=np.float32))
    np.testing.assert_allclose(found["d_hw", "uncentered"], [4.0, 3.0])
    np.testing.assert_allclose(found["d_hw", "centered"], [np.sqrt(12.5), 0.0], atol=1e-7)
    # One row of all four values, centred about 7 / 4.
    np.testing.assert_allclose(found["h_dw", "uncentered"], [5.0])
    np.testing.assert_allclose(found["h_dw", "centered"], [np.sqrt(25 - 4 * 1.75**2)])


def test_one_voxel():
    for key, values in map_spectra(np.full((1, 1, 1), -3.0)).items():
        assert values == pytest.approx([0.0 if key[1] == "centered" else 3.0])


@pytest.mark.parametrize("shape", [(4, 5, 6), (40, 2, 3)])
@pytest.mark.parametrize("value", [np.float32(0.1), 0.1, np.float64(1) / 3, -1e3, 0.0])
def test_constant_map_centres_to_exactly_zero(shape, value):
    volume = np.full(shape, value)
    found = map_spectra(volume)
    found_swept = swept_spectra(lambda axis: slabs(volume[None], axis, [1]), (1, *shape))
    for unfolding in UNFOLDINGS:
        assert (found[unfolding, "centered"] == 0).all()
        assert (found_swept[unfolding, "centered"] == 0).all()
        largest = abs(float(value)) * np.sqrt(volume.size)
        assert found[unfolding, "uncentered"][0] == pytest.approx(largest, rel=1e-12)
        assert (found[unfolding, "uncentered"][1:] <= 3e-8 * largest).all()


def test_constant_rows_centre_to_exactly_zero():
    volume = np.broadcast_to(np.linspace(0.1, 7.3, 9, dtype=np.float32)[:, None, None], (9, 20, 31))
    assert not volume.flags.writeable
    assert (map_spectra(volume)["d_hw", "centered"] == 0).all()


# --- oracle ---


@pytest.mark.parametrize(
    "shape",
    [(7, 12, 9), (60, 3, 4), (3, 40, 2), (2, 3, 50), (1, 8, 9), (5, 1, 1), (1, 1, 1), (6, 2, 3), (50, 49, 53)],
)
@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_equals_svd(shape, offset):
    volume = (np.random.default_rng(1).normal(size=shape) + offset).astype(np.float32)
    expected = oracle_spectra(volume)
    found = map_spectra(volume)
    assert {key: values.shape for key, values in found.items()} == {key: v.shape for key, v in expected.items()}
    assert_spectra_equal(found, expected)


@pytest.mark.parametrize("name", families())
def test_families_equal_svd(name):
    volume = families()[name]
    assert_spectra_equal(map_spectra(volume), oracle_spectra(volume))


@pytest.mark.parametrize("name", ["1000 + 1e-2 noise", "-20 + 1e-3 noise", "a constant a slice + 1e-2 noise"])
def test_small_variation_about_large_means_keeps_its_digits(name):
    volume = families()[name]
    swept = swept_spectra(lambda axis: slabs(volume[None], axis, [1]), (1, *volume.shape))
    expected = svd_oracle(volume, "d_hw", "centered")
    np.testing.assert_allclose(map_spectra(volume)["d_hw", "centered"], expected, rtol=1e-10)
    np.testing.assert_allclose(swept["d_hw", "centered"][0], expected, rtol=1e-10)


@pytest.mark.parametrize("name", families())
def test_scale_is_right_to_1e_12_squared_and_1e_6_linear(name):
    volume = families()[name]
    swept = swept_spectra(lambda axis: slabs(volume[None], axis, [3, 5]), (1, *volume.shape))
    for spectra in (map_spectra(volume), {key: values[0] for key, values in swept.items()}):
        errors = scale_errors(spectra, volume)
        assert errors["squared", "denominator"] < 1e-12
        assert errors["linear", "denominator"] < 1e-6
        assert errors["linear", "added"] < 1e-6


def test_scale_of_a_tall_map():
    volume = families((50, 4, 6))["low rank"]
    errors = scale_errors(map_spectra(volume), volume)
    assert errors["squared", "denominator"] < 1e-12
    assert errors["linear", "denominator"] < 1e-6


# --- memory layout, types, chunks, threads ---


def test_layout_and_type_do_not_matter():
    volume = np.random.default_rng(2).normal(size=(6, 11, 13)).astype(np.float16)
    expected = map_spectra(volume.astype(np.float64))
    spread = np.zeros((12, 11, 39), dtype=np.float16)
    spread[::2, :, ::3] = volume
    read_only = volume.copy()
    read_only.flags.writeable = False
    for same in (
        volume,
        volume.astype(np.float32),
        volume.astype(">f4"),
        np.asfortranarray(volume),
        spread[::2, :, ::3],
        np.flip(np.flip(volume).copy()),
        read_only,
        torch.from_numpy(volume),
        torch.from_numpy(np.asfortranarray(volume)),
        torch.from_numpy(volume.astype(np.float32)).requires_grad_(),
    ):
        found = map_spectra(same)
        for key, values in expected.items():
            np.testing.assert_allclose(found[key], values, rtol=1e-9, atol=1e-7)


def test_input_is_left_alone():
    for shape in ((4, 5, 6), (40, 2, 3)):
        volume = np.random.default_rng(2).normal(size=shape)
        before = volume.copy()
        map_spectra(volume)
        np.testing.assert_array_equal(volume, before)


def test_chunks_do_not_matter(monkeypatch):
    maps = np.random.default_rng(2).normal(size=(3, 6, 11, 13)).astype(np.float32) + 5
    whole = batch_spectra(maps)
    one = batch_spectra(maps, unfoldings=("h_dw",))
    assert_spectra_equal(one, {key: values for key, values in whole.items() if key[0] == "h_dw"})
    for chunk_values in (1, 70, 2000):  # less than a slice, some slices, some maps
        monkeypatch.setattr(gram, "_CPU_CHUNK_VALUES", chunk_values)
        assert_spectra_equal(batch_spectra(maps), whole)
        assert_spectra_equal(swept_spectra(lambda axis: slabs(maps, axis, [4]), maps.shape), whole)


def test_rows_of_a_batch_are_its_maps():
    maps = np.random.default_rng(3).normal(size=(5, 7, 8, 9)).astype(np.float32)
    for key, values in batch_spectra(maps).items():
        for one, of_batch in zip(maps, values, strict=True):
            np.testing.assert_allclose(map_spectra(one)[key], of_batch, rtol=1e-10, atol=1e-7)


def test_two_threads_give_the_same():
    n_threads = torch.get_num_threads()
    volume = families((100, 64, 80))["random"]
    try:
        torch.set_num_threads(1)
        expected = map_spectra(volume)
        torch.set_num_threads(2)
        assert_spectra_equal(map_spectra(volume), expected, relative=1e-12)
    finally:
        torch.set_num_threads(n_threads)


# --- slabs ---


@pytest.mark.parametrize("axis", AXIS)
@pytest.mark.parametrize("thicknesses", [[1], [2], [3], [4], [5], [6], [7], [99], [1, 4, 2]])
def test_slabs_of_any_thickness_along_each_axis(axis, thicknesses):
    maps = (np.random.default_rng(4).normal(size=(3, 5, 6, 7)) + np.arange(3)[:, None, None, None]).astype(np.float32)
    wanted = [unfolding for unfolding in UNFOLDINGS if unfolding[0] != axis]
    swept = SweptMaps(maps.shape, axis, wanted)
    for start, slab in slabs(maps, axis, thicknesses):
        swept.add(slab, start=start)
    expected = {key: values for key, values in batch_spectra(maps).items() if key[0] in wanted}
    assert_spectra_equal(swept.spectra(), expected)


def test_tall_maps_slab_by_slab():
    maps = np.random.default_rng(5).normal(size=(2, 30, 3, 4))
    swept = swept_spectra(lambda axis: slabs(maps, axis, [2]), maps.shape)
    assert_spectra_equal(swept, batch_spectra(maps))


@pytest.mark.parametrize(
    ("unfoldings", "axes"),
    [
        (("d_hw",), ["w"]),
        (("d_hw", "h_dw"), ["w"]),
        (("w_dh",), ["h"]),
        (("h_dw", "w_dh"), ["w", "h"]),
        (UNFOLDINGS, ["w", "h"]),
    ],
)
def test_a_second_sweep_only_for_w_dh(unfoldings, axes):
    maps = np.random.default_rng(6).normal(size=(2, 4, 5, 6))
    asked = []

    def sweep(axis):
        asked.append(axis)
        return slabs(maps, axis, [2])

    found = swept_spectra(sweep, maps.shape, unfoldings=unfoldings)
    assert asked == axes
    assert set(found) == {(unfolding, centering) for unfolding in unfoldings for centering in CENTERINGS}


def test_rows_along_the_sweep_are_refused():
    with pytest.raises(ValueError, match="whose rows run along w"):
        SweptMaps((1, 2, 3, 4), "w", ["d_hw", "w_dh"])


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ([(0, 2), (3, 6)], "without gap"),
        ([(0, 3), (2, 6)], "overlap"),
        ([(0, 3), (0, 3)], "overlap"),
        ([(3, 6), (0, 3)], "in order"),
        ([(0, 6), (6, 8)], "got"),
        ([(0, 4), (4, 8)], "got"),
        ([(0, 5)], "5 of 6"),
        ([], "0 of 6"),
        ([(0, 0), (0, 6)], "slab of shape"),
    ],
)
def test_slabs_that_do_not_make_up_the_map_are_refused(ranges, message):
    def sweep(axis):
        return ((start, np.ones((2, 4, 5, stop - start))) for start, stop in ranges)

    with pytest.raises(ValueError, match=message):
        swept_spectra(sweep, (2, 4, 5, 6), unfoldings=("d_hw",))


@pytest.mark.parametrize("shape", [(1, 4, 5, 2), (2, 3, 5, 2), (2, 4, 6, 2)])
def test_slab_of_other_maps_is_refused(shape):
    with pytest.raises(ValueError, match="none of maps of shape"):
        SweptMaps((2, 4, 5, 6), "w", ["d_hw"]).add(np.ones(shape), start=0)


def test_what_is_held_grows_with_the_gram_matrices_only():
    n_maps, d, h, w = 40, 9, 11, 300
    swept = SweptMaps((n_maps, d, h, w), "w", ["d_hw", "h_dw"])
    slab = torch.ones(n_maps, d, h, 50)
    for start in range(0, w, 50):
        swept.add(slab, start=start)
    held = [
        value.untyped_storage().nbytes()
        for sums in swept._matrices.values()
        for value in vars(sums).values()
        if isinstance(value, torch.Tensor)
    ]
    # Per map and unfolding: rows x rows, and the origin and the sum of each row.
    assert sum(held) == 8 * n_maps * (d * d + 2 * d + h * h + 2 * h)


# --- refused maps ---


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
@pytest.mark.parametrize("shape", [(3, 4, 5), (20, 2, 3)])
def test_refuses_a_value_that_is_not_finite(bad, shape):
    volume = np.zeros(shape)
    volume[1, 1, 2] = bad
    with pytest.raises(ValueError, match="NaN"):
        map_spectra(volume)


def test_names_the_map_that_is_not_finite(monkeypatch):
    maps = np.zeros((4, 5, 6, 7), dtype=np.float32)
    maps[2, 1, 2, 6] = np.nan
    for chunk_values in (1 << 17, 2 * 5 * 6 * 7, 1):  # maps in one group, two groups, four
        monkeypatch.setattr(gram, "_CPU_CHUNK_VALUES", chunk_values)
        with pytest.raises(ValueError, match="map 2 holds a NaN"):
            batch_spectra(maps)
    with pytest.raises(ValueError, match="map 2 holds a NaN"):
        swept_spectra(lambda axis: slabs(maps, axis, [1]), maps.shape)


def test_refuses_a_bad_slab_at_once():
    swept = SweptMaps((1, 4, 5, 60), "w", ["d_hw"])
    with pytest.raises(ValueError, match="NaN"):
        swept.add(np.full((1, 4, 5, 2), np.inf), start=0)


@pytest.mark.parametrize("shape", [(3, 4, 5), (20, 2, 3)])
def test_refuses_a_constant_whose_square_overflows(shape):
    with pytest.raises(ValueError, match="overflow"):
        map_spectra(np.full(shape, 1e200))


@pytest.mark.parametrize("shape", [(0, 4, 5), (3, 0, 5), (3, 4, 0)])
def test_refuses_an_empty_map(shape):
    with pytest.raises(ValueError, match="no singular values"):
        map_spectra(np.zeros(shape, dtype=np.float32))
    with pytest.raises(ValueError, match="no singular values"):
        SweptMaps((1, *shape), "w", ["d_hw"])


# --- properties ---

shapes = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 7))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 1000), gain=st.floats(1e-3, 1e3), shape=shapes, axis=st.integers(0, 2))
def test_gain_scales_flips_and_slice_order_change_nothing(seed, gain, shape, axis):
    generator = np.random.default_rng(seed)
    volume = generator.normal(size=shape)
    base = map_spectra(volume)
    scaled = {key: values / gain for key, values in map_spectra(gain * volume).items()}
    assert_spectra_equal(scaled, base)
    assert_spectra_equal(map_spectra(np.flip(volume, axis)), base)
    assert_spectra_equal(map_spectra(volume[generator.permutation(shape[0])]), base)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    shape=shapes,
    n_maps=st.integers(1, 3),
    thicknesses=st.lists(st.integers(1, 8), min_size=1, max_size=4),
    offset=st.sampled_from([0.0, 30.0]),
)
def test_slab_thickness_changes_nothing(seed, shape, n_maps, thicknesses, offset):
    maps = np.random.default_rng(seed).normal(size=(n_maps, *shape)) + offset
    assert_spectra_equal(swept_spectra(lambda axis: slabs(maps, axis, thicknesses), maps.shape), batch_spectra(maps))


# --- on a GPU ---


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_svd():
    maps = np.stack(list(families().values()))
    batch = batch_spectra(maps, device="cuda")
    swept = swept_spectra(
        lambda axis: ((start, torch.from_numpy(slab).cuda()) for start, slab in slabs(maps, axis, [7])),
        maps.shape,
        device="cuda",
    )
    for index, volume in enumerate(maps):
        for found in (batch, swept):
            one = {key: values[index] for key, values in found.items()}
            assert_spectra_equal(one, oracle_spectra(volume))
            assert scale_errors(one, volume)["squared", "denominator"] < 1e-12
            assert scale_errors(one, volume)["linear", "denominator"] < 1e-6
    tall = families((50, 4, 6))["low rank"]
    assert_spectra_equal(map_spectra(torch.from_numpy(tall), device="cuda"), oracle_spectra(tall))
