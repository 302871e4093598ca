"""Faults of images, by hand; what they share is in test_corruption_kinds.py, the first three in test_corruption.py."""

import numpy as np
import pytest
from scipy import ndimage

from auvtool.corruption import images

SPACING_MM = (5.0, 1.0, 1.0)


def disc(*, size: int = 32, radius: float = 8.0, n_slices: int = 2) -> np.ndarray:
    """A disc of 100 in the middle of 0, float32."""
    axis = np.arange(size) - (size - 1) / 2.0
    inside = axis[:, None] ** 2 + axis**2 <= radius**2
    return np.repeat((100.0 * inside).astype(np.float32)[None], n_slices, axis=0)


def test_three_and_a_half_alternates_groups_of_three_and_four() -> None:
    image = np.arange(15, dtype=np.float32).reshape(15, 1, 1)
    thick = images.thicken_slices(image, level=3.5)[:, 0, 0]
    assert thick.tolist() == [1.0] * 3 + [4.5] * 4 + [8.0] * 3 + [11.5] * 4 + [14.0]


@pytest.mark.parametrize("level", [2, 3.5, 5])
def test_a_single_slice_is_as_thick_as_before(level: float) -> None:
    image = disc(n_slices=1)
    np.testing.assert_array_equal(images.thicken_slices(image, level=level), image)


def test_rician_noise_lifts_the_air_and_keeps_the_bright() -> None:
    image = np.zeros((4, 64, 64), np.float32)
    image[:, :, 32:] = 100.0
    noisy = images.add_rician_noise(image - 1000.0, level=0.1, generator=np.random.default_rng(0)) + 1000.0
    # Air is Rayleigh distributed: mean sigma sqrt(pi/2), and never below 0. Body: sqrt(100^2 + sigma^2) to first order.
    assert noisy[:, :, :32].mean() == pytest.approx(10.0 * np.sqrt(np.pi / 2), rel=0.02)
    assert noisy.min() >= -1e-3
    assert noisy[:, :, 32:].mean() == pytest.approx(100.0 + 10.0**2 / 200.0, rel=0.01)
    assert noisy[:, :, 32:].std() == pytest.approx(10.0, rel=0.05)


def test_a_ghost_stands_half_the_view_away_and_the_mean_stays() -> None:
    image = disc()
    ghosted = images.add_ghosts(image, level=0.9, n_ghosts=2, axis=1)
    assert ghosted.mean() == pytest.approx(image.mean(), rel=1e-3)
    # Half of the lines at a tenth: the disc at 0.55, its copy, shifted by half the view, at -0.45; the centre, which is
    # the mean along the axis, stays.
    lost = 0.45 * (image + np.roll(image, 16, axis=1)) - 0.9 * image.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(ghosted, image - lost, atol=1e-3)
    np.testing.assert_array_equal(images.add_ghosts(image[:, :2], level=0.9, n_ghosts=2, axis=1), image[:, :2])


def test_a_spike_is_a_cosine_of_the_share_of_the_mean() -> None:
    image = disc()
    spiked = images.add_spike(image, level=0.4, frequency=(4, 0), phase=0.0)
    spectrum = np.abs(np.fft.fft2(spiked - image))
    assert set(map(tuple, np.argwhere(spectrum[0] > 1e-2 * spectrum.max()))) == {(4, 0), (28, 0)}
    assert (spiked - image).max() == pytest.approx(0.4 * image.mean(), rel=1e-3)
    # Of the spectrum's largest magnitude, which is that of the mean, the point and its mirror have half each.
    assert 2.0 * spectrum.max() == pytest.approx(0.4 * np.abs(np.fft.fft2(image)).max(), rel=1e-3)


def test_no_spike_is_central() -> None:
    found = images.spike_frequencies((1, 20, 30))
    assert (0, 0) not in found
    assert (1, 2) not in found
    assert {(2, 0), (-2, 0), (0, 3)} <= set(found)
    assert images.spike_frequencies((3, 1, 1)) == []


def test_shading_by_one_coefficient_is_its_monomial() -> None:
    coefficients = [0.5 if powers == (0, 0, 1) else 0.0 for powers in images.FIELD_TERMS]
    image = np.full((2, 5, 9), 10.0, np.float32)
    image[0, 0, 0] = 0.0  # the minimum, which shading keeps
    shaded = images.shade(image, coefficients=coefficients)
    np.testing.assert_allclose(shaded[1, 2], 10.0 * np.exp(0.5 * np.linspace(-1, 1, 9)), rtol=1e-5)
    assert shaded[0, 0, 0] == 0.0
    assert len(images.FIELD_TERMS) == 19
    assert (0, 0, 0) not in images.FIELD_TERMS


def test_a_still_patient_is_sharp() -> None:
    image = disc() - 1000.0
    still = images.move(image, degrees=0.0, shift_mm=(0.0, 0.0), share=0.4, axis=2, spacing_mm=SPACING_MM)
    np.testing.assert_allclose(still, image, atol=1e-2)


def test_all_lines_of_the_moved_copy_are_the_moved_copy() -> None:
    image = disc(size=80, radius=10.0)
    moved = images.move(image, degrees=90.0, shift_mm=(4.0, -6.0), share=1.0, axis=1, spacing_mm=(5.0, 1.0, 2.0))
    centre = ndimage.center_of_mass(moved[0])
    assert centre == pytest.approx((39.5 + 4.0, 39.5 - 3.0), abs=0.1)
    # 20 x 40 mm, turned by 90 degrees: 40 mm along h (1 mm voxels), 20 mm along w (2 mm voxels).
    rows, columns = np.nonzero(moved[0] > 50.0)
    assert (np.ptp(rows) + 1) / (np.ptp(columns) + 1) == pytest.approx(40 / 10, rel=0.15)


def test_with_less_than_half_of_the_lines_the_anatomy_stays() -> None:
    image = disc(radius=6.0)
    moved = images.move(image, degrees=0.0, shift_mm=(8.0, 0.0), share=0.45, axis=1, spacing_mm=SPACING_MM)
    assert moved[0, 15, 15] > 50.0
    assert ndimage.center_of_mass(moved[0] ** 2)[0] == pytest.approx(15.5, abs=2.0)


def test_gamma_by_hand() -> None:
    image = np.array([[[0.0, 25.0, 100.0]]], np.float32)
    np.testing.assert_allclose(images.change_gamma(image, log_gamma=np.log(0.5)), [[[0.0, 50.0, 100.0]]], rtol=1e-5)
    flat = np.full((1, 2, 2), 3.0, np.float32)
    np.testing.assert_array_equal(images.change_gamma(flat, log_gamma=0.6), flat)


def test_contrast_about_the_mean() -> None:
    image = np.array([[[0.0, 10.0, 20.0]]], np.float32)
    np.testing.assert_allclose(images.lower_contrast(image, level=0.5), [[[5.0, 10.0, 15.0]]])


@pytest.mark.parametrize(("side", "lost"), [("first", [0, 1]), ("last", [6, 7])])
def test_a_quarter_of_the_view_is_lost(side: images.Side, lost: list[int]) -> None:
    image = np.full((1, 8, 3), 5.0, np.float32)
    image[0, 4, 1] = -7.0
    truncated = images.truncate_view(image, level=0.25, axis=1, side=side)
    assert np.flatnonzero((truncated[0] == -7.0).all(axis=1)).tolist() == lost
    assert images.truncate_view(image[:, :3], level=0.1, axis=1, side="first")[0, 0, 0] == 5.0  # its minimum is 5
    assert (images.truncate_view(image, level=0.1, axis=2, side="last")[0, :, 2] == -7.0).all()


def test_units_of_ct_and_of_others() -> None:
    image = np.array([[[-2000.0, -1000.0, 40.0]]], np.float32)
    assert images.mistake_units(image, is_ct=True).tolist() == [[[0.0, 24.0, 1064.0]]]
    assert images.mistake_units(image, is_ct=False).tolist() == [[[-19000.0, -9000.0, 1400.0]]]


def test_psnr_by_hand() -> None:
    clean = np.array([[[[0.0, 10.0]]], [[[0.0, 100.0]]]], np.float32)
    corrupt = clean.copy()
    corrupt[0, 0, 0, 0] = 1.0  # squared error 1 of range 10^2 in one of two voxels, in one of two channels
    assert images.peak_signal_to_noise(corrupt, clean) == pytest.approx(-10 * np.log10(0.01 / 4))
    assert images.peak_signal_to_noise(clean, clean) is None
    flat = np.ones((1, 1, 2, 2), np.float32)
    assert images.peak_signal_to_noise(flat + 1.0, flat) is None
