import numpy as np
import pytest
from scipy import ndimage

from auvtool.image_quality import QUALITY_NAMES, image_quality

SPACING = (3.0, 1.0, 1.0)


def quality_of(image, spacing=SPACING):
    return dict(zip(QUALITY_NAMES, image_quality(image.astype(np.float32), spacing), strict=True))


@pytest.fixture
def image():
    rng = np.random.default_rng(0)
    return 500 + 100 * ndimage.gaussian_filter(rng.normal(size=(16, 48, 40)), (1, 3, 3)) / 0.08


def test_noise_is_measured_in_deviations_of_the_image(image):
    noisy = image + 0.5 * image.std() * np.random.default_rng(1).normal(size=image.shape)
    found = quality_of(noisy)["noise"] * noisy.std() / image.std()
    assert found == pytest.approx(0.5, rel=0.1)
    assert quality_of(image)["noise"] < 0.05


def test_each_fault_moves_its_number(image):
    clean = quality_of(image)
    blurred = quality_of(ndimage.gaussian_filter(image, (0, 2, 2)))
    assert blurred["band_3"] < clean["band_3"]
    assert blurred["gradient_h"] < clean["gradient_h"]
    doubled = quality_of(np.repeat(image, np.where(np.arange(16) % 3 == 0, 2, 1), axis=0))
    assert doubled["slice_step_least"] == 0 < clean["slice_step_least"]
    assert doubled["slice_step_variation"] > clean["slice_step_variation"]
    spectrum = np.fft.fft2(image)
    spectrum[:, 3::3] *= 0.3
    ghosted = quality_of(np.fft.ifft2(spectrum).real)
    assert ghosted["lines_h"] > 2 * clean["lines_h"]
    spiked = np.fft.fft2(image)
    spiked[:, 15, 13] += 0.3 * np.abs(spiked).max()
    assert quality_of(np.fft.ifft2(spiked).real)["peak"] > clean["peak"] + 1
    cut = image.copy()
    cut[:, :12] = image.min()
    assert quality_of(cut)["constant_rows"] == 0.25
    shaded = quality_of(image * np.linspace(0.3, 1.7, 40))
    assert shaded["shading"] > clean["shading"] + 0.2
    assert shaded["shading_w"] > 0.3


def test_gain_and_offset_move_only_the_unscaled_numbers(image):
    one, other = quality_of(image), quality_of(7 * image + 1000)
    for name in QUALITY_NAMES:
        if name not in {"log_spread", "log_level"}:
            assert other[name] == pytest.approx(one[name], rel=2e-3, abs=2e-3), name
    assert other["log_spread"] - one["log_spread"] == pytest.approx(np.log(7), rel=1e-4)


def test_geometry():
    found = quality_of(np.random.default_rng(0).normal(size=(4, 5, 6)), spacing=(2.0, 0.5, 1.0))
    assert found["log_spacing_h"] == pytest.approx(np.log(0.5))
    assert found["log_extent_d"] == pytest.approx(np.log(8))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 9), (2, 2, 2), (5, 1, 7)])
def test_small_and_constant_images_have_no_infinite_number(shape):
    values = np.random.default_rng(0).normal(size=shape)
    assert not np.isinf(image_quality(values.astype(np.float32), SPACING)).any()
    assert np.isnan(quality_of(np.ones(shape))["noise"])
