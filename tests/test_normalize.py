"""Raw and mask-normalised input."""

import tracemalloc

import numpy as np
import pytest
from phantoms import BOXES, box_image, box_label

from auvtool.normalize import normalize


def test_raw_is_the_image():
    image = box_image(box_label())
    np.testing.assert_array_equal(normalize(image, None, "raw"), image)


def test_mask_by_hand():
    """Foreground 0, 1, ..., 200: mean 100, percentiles 1 and 199; the background is clipped and shifted too."""
    image = np.zeros((1, 2, 201), dtype=np.float32)
    image[0, 0] = np.arange(201)
    image[0, 1] = -1000
    label = np.zeros(image.shape, dtype=np.int16)
    label[0, 0] = 1
    normalised = normalize(image, label, "mask")
    std = np.sqrt((201**2 - 1) / 12)
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(
        normalised[0, 0, [0, 1, 50, 199, 200]], np.array([-99, -99, -50, 99, 99]) / std, rtol=1e-6
    )
    np.testing.assert_allclose(normalised[0, 1], -99 / std, rtol=1e-6)


def test_mask_is_nnunets_ct_recipe():
    from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization

    label = box_label()
    image = box_image(label)
    inside = image[label > 0].astype(np.float64)
    properties = {
        "mean": inside.mean(),
        "std": inside.std(),
        "percentile_00_5": np.percentile(inside, 0.5),
        "percentile_99_5": np.percentile(inside, 99.5),
    }
    scheme = CTNormalization(use_mask_for_norm=False, intensityproperties=properties)
    np.testing.assert_allclose(normalize(image, label, "mask"), scheme.run(image.copy()), atol=1e-5)


def test_gain_and_offset_do_not_matter():
    label = box_label()
    image = box_image(label)
    np.testing.assert_allclose(normalize(3 * image + 500, label, "mask"), normalize(image, label, "mask"), atol=1e-4)


def test_ignored_voxels_count_nowhere():
    label = box_label().astype(np.int16)
    image = box_image(label)
    expected = normalize(image, label, "mask")
    label[0] = 3
    np.testing.assert_array_equal(normalize(image, label, "mask", ignore_label=3), expected)
    assert not np.array_equal(normalize(image, label, "mask"), expected)


def test_constant_foreground_gives_zeros():
    label = box_label()
    assert not normalize(label.astype(np.float32), np.int16(label == 1), "mask").any()


def test_intensities_of_millions_keep_their_digits():
    label = box_label()
    image = box_image(label)
    np.testing.assert_allclose(
        normalize((image + 1e6).astype(np.float32), label, "mask"), normalize(image, label, "mask"), atol=2e-3
    )


def test_no_foreground_is_an_error():
    image = box_image(box_label())
    with pytest.raises(ValueError, match="needs annotated foreground, got an empty label"):
        normalize(image, np.zeros(image.shape, np.int16), "mask")
    with pytest.raises(ValueError, match="needs a label, got none"):
        normalize(image, None, "mask")
    # Where types are checked at run time, they find it first.
    with pytest.raises((ValueError, TypeError), match=r"needs a label of shape|parameters of auvtool\.normalize"):
        normalize(image, np.zeros((1, 1, 1), np.int16), "mask")
    assert set(BOXES) == {1, 2}


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_large_volume_is_normalised_some_slices_at_a_time_to_the_same_bits(axes: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(96, 128, 160)).astype(np.float32).transpose(axes)[::-1]
    label = np.zeros(image.shape, dtype=np.uint8)
    label[10:14, 20:60, 20:60] = 1
    foreground = image[label > 0].astype(np.float64)
    clipped = np.clip(image.astype(np.float64), *np.percentile(foreground, (0.5, 99.5)))
    expected = ((clipped - foreground.mean()) / foreground.std()).astype(np.float32)
    del clipped
    tracemalloc.start()
    normalised = normalize(image, label, "mask")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(normalised, expected)
    assert normalised.strides == expected.strides  # sums of maps follow the order in memory
    assert peak < 2 * image.nbytes
