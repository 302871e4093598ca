"""Slices as MedSAM2's network gets them; the oracle is its authors' recipe, written out."""

import numpy as np
import pytest
from model_inputs import model_input
from PIL import Image

from auvtool.extractors.medsam2_images import SOFT_TISSUE, GreyScale, grey_scale, model_images
from auvtool.normalize import normalize


def test_a_window_by_hand() -> None:
    slices = np.array([[[-1000, -160, 39.9, 40, 239.9, 240, 3000]]], dtype=np.float32)
    assert GreyScale(-160, 240).grey(slices).tolist() == [[[0, 0, 127, 127, 254, 255, 255]]]
    assert GreyScale(5, 5).grey(slices).max() == 0


def test_zero_is_black_only_without_a_window() -> None:
    slices = np.array([[[0, -5, 10]]], dtype=np.float32)
    assert GreyScale(-5, 10).grey(slices).tolist() == [[[85, 0, 255]]]
    assert GreyScale(-5, 10, zero_is_black=True).grey(slices).tolist() == [[[0, 0, 255]]]


@pytest.mark.parametrize(("name", "is_ct"), [("CT", True), ("ct", True), ("MRI", False), ("CTA", False), ("", False)])
def test_ct_is_known_by_the_name_of_its_channel(name: str, is_ct: bool) -> None:
    image = np.random.default_rng(0).normal(100, 50, size=(3, 8, 8)).astype(np.float32)
    image[:, :2] = 0
    case = model_input(image, None, (), channel_name=name)
    assert grey_scale(case, (1.0, 2.0)) == GreyScale(1, 2)
    found = grey_scale(case, None)
    if is_ct:
        assert found == GreyScale(*SOFT_TISSUE)
        return
    low, high = np.percentile(image[image > 0], 0.5), np.percentile(image[image > 0], 99.5)
    cut = np.clip(image, low, high)
    grey = (cut - cut.min()) / (cut.max() - cut.min()) * 255.0
    grey[image == 0] = 0
    assert found.zero_is_black
    assert np.abs(found.grey(image).astype(int) - np.uint8(grey).astype(int)).max() <= 1  # rounding of float32


def test_an_image_without_positive_voxels_has_percentiles_too() -> None:
    image = -np.arange(1.0, 1001, dtype=np.float32).reshape(10, 10, 10)
    found = grey_scale(model_input(image, None, (), channel_name="MRI"), None)
    assert (found.low, found.high) == pytest.approx(np.percentile(image, (0.5, 99.5)))


def test_normalised_input_spans_the_percentiles_of_the_foreground() -> None:
    image = np.random.default_rng(0).normal(100, 50, size=(3, 20, 20)).astype(np.float32)
    label = np.zeros(image.shape, dtype=np.int16)
    label[:, 4:16, 4:16] = 1
    low, high = np.percentile(image[label > 0].astype(np.float64), (0.5, 99.5))
    case = model_input(normalize(image, label, "mask"), label, (), normalised=True, channel_name="CT")
    found = grey_scale(case, None).grey(case.image).astype(int)
    assert np.abs(found - GreyScale(low, high).grey(image).astype(int)).max() <= 1
    assert (found.min(), found.max()) == (0, 255)


@pytest.mark.parametrize("shape", [(40, 70), (64, 64), (300, 200)])
def test_slices_become_squares_as_pillow_makes_them(shape: tuple[int, int]) -> None:
    grey = np.random.default_rng(0).integers(0, 256, size=(2, *shape), dtype=np.uint8)
    found = model_images(grey, 64).numpy()
    colours = [np.array(Image.fromarray(one).convert("RGB").resize((64, 64))) for one in grey]
    expected = np.stack(colours).transpose(0, 3, 1, 2) / 255.0
    expected -= np.array([0.485, 0.456, 0.406])[:, None, None]
    expected /= np.array([0.229, 0.224, 0.225])[:, None, None]
    np.testing.assert_allclose(found, expected, atol=1e-6)
