import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from auvtool.corruption import images, labels

SPACING_MM = (10.0, 2.0, 2.0)
LABELS = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 4), st.integers(3, 8), st.integers(3, 8)), elements=st.integers(0, 3)
)


def square() -> np.ndarray:
    label = np.zeros((2, 9, 9), np.uint8)
    label[:, 3:6, 3:6] = 1
    return label


def test_dilation_by_one_adds_the_four_sides_and_not_the_corners() -> None:
    grown = labels.dilate(square(), level=1)
    assert grown[0].sum() == 9 + 4 * 3
    assert grown[0, 2, 2] == 0
    assert grown[0, 2, 3] == 1


def test_dilation_does_not_cross_slices_or_take_another_class() -> None:
    label = square()
    label[1] = 0
    label[0, 3:6, 6:] = 2
    grown = labels.dilate(label, level=2)
    assert not grown[1].any()
    np.testing.assert_array_equal(grown[label > 0], label[label > 0])


def test_erosion_by_one_leaves_the_centre() -> None:
    shrunk = labels.erode(square(), level=1)
    assert shrunk[0].sum() == 1
    assert shrunk[0, 4, 4] == 1


def test_erosion_counts_the_border_of_the_volume_as_outside() -> None:
    assert labels.erode(np.ones((1, 5, 5), np.uint8), level=1).sum() == 9


def test_shift_moves_by_the_distance_asked_for() -> None:
    label = np.zeros((2, 41, 41), np.uint8)
    label[:, 20, 20] = 3
    for seed in range(5):
        moved = labels.shift(label, level=20.0, spacing_mm=SPACING_MM, generator=np.random.default_rng(seed))
        (row, column) = np.argwhere(moved[0])[0]
        assert np.hypot(row - 20, column - 20) * 2.0 == pytest.approx(20.0, abs=2.0)
        assert moved[1, row, column] == 3


def test_a_small_shift_is_still_a_shift() -> None:
    moved = labels.shift(square(), level=0.1, spacing_mm=SPACING_MM, generator=np.random.default_rng(0))
    assert labels.severity_dice(moved, square()) == pytest.approx(6 / 9)


def test_half_of_the_labelled_slices_are_dropped() -> None:
    label = np.zeros((8, 3, 3), np.uint8)
    label[1:6] = 1
    incomplete = labels.drop_slices(label, level=0.5, generator=np.random.default_rng(0))
    assert incomplete.any(axis=(1, 2)).sum() == 2
    assert not incomplete[[0, 6, 7]].any()


def test_another_label_is_stretched_by_nearest_voxel() -> None:
    other = np.array([[[1, 2], [3, 4]]], np.uint8)
    stretched = labels.label_of_another_case(np.zeros((2, 4, 4), np.uint8), other=other)
    np.testing.assert_array_equal(stretched[1], np.kron(other[0], np.ones((2, 2), np.uint8)))


def test_severity_by_hand() -> None:
    clean = np.array([[[1, 1, 2, 0]]])
    corrupt = np.array([[[1, 0, 0, 3]]])
    # class 1: 2*1/(1+2); classes 2 and 3: nothing in common
    assert labels.severity_dice(corrupt, clean) == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert labels.severity_dice(np.zeros((1, 2, 2), int), np.zeros((1, 2, 2), int)) == 1.0


@settings(deadline=None, max_examples=40)
@given(label=LABELS, level=st.integers(1, 3))
def test_dilate_grows_and_erode_shrinks(label: np.ndarray, level: int) -> None:
    before = label.copy()
    grown, shrunk = labels.dilate(label, level=level), labels.erode(label, level=level)
    np.testing.assert_array_equal(label, before)
    np.testing.assert_array_equal(grown[label > 0], label[label > 0])
    np.testing.assert_array_equal(shrunk[shrunk > 0], label[shrunk > 0])
    assert grown.dtype == shrunk.dtype == label.dtype


@settings(deadline=None, max_examples=40)
@given(label=LABELS)
def test_flip_and_swap_undo_themselves(label: np.ndarray) -> None:
    np.testing.assert_array_equal(labels.flip(labels.flip(label)), label)
    swapped = labels.swap_classes(label, first=1, second=2)
    np.testing.assert_array_equal(labels.swap_classes(swapped, first=1, second=2), label)
    np.testing.assert_array_equal(swapped == 1, label == 2)
    assert labels.severity_dice(label, swapped) == labels.severity_dice(swapped, label)


def test_noise_has_the_level_asked_for() -> None:
    image = np.zeros((8, 40, 40), np.float32)
    image[:, :, 20:] = 100.0
    image[:, :20, 20:] = 120.0  # body: half 100, half 120, so a deviation of 10
    assert images.body_deviation(image) == pytest.approx(10.0)
    noisy = images.add_noise(image, level=0.5, generator=np.random.default_rng(0))
    assert (noisy - image).std() == pytest.approx(5.0, rel=0.03)
    flat = np.full((1, 4, 4), 7.0, np.float32)
    np.testing.assert_array_equal(images.add_noise(flat, level=0.5, generator=np.random.default_rng(0)), flat)


def test_blur_keeps_slices_apart_and_the_sum() -> None:
    image = np.zeros((3, 31, 31), np.float32)
    image[1, 15, 15] = 1.0
    blurred = images.blur(image, level=2.0)
    assert not blurred[[0, 2]].any()
    assert blurred.sum() == pytest.approx(1.0, rel=1e-4)
    rows = np.arange(31) - 15
    assert (blurred[1].sum(axis=1) * rows**2).sum() == pytest.approx(4.0, rel=0.02)  # the variance of the kernel


def test_thick_slices_are_means_of_their_group() -> None:
    image = np.arange(5, dtype=np.float32).reshape(5, 1, 1) * np.ones((1, 2, 2), np.float32)
    thick = images.thicken_slices(image, level=2)
    np.testing.assert_array_equal(thick[:, 0, 0], [0.5, 0.5, 2.5, 2.5, 4.0])
    np.testing.assert_array_equal(image[:, 0, 0], np.arange(5))
