import numpy as np
import pytest

from auvtool.label_boundary import BOUNDARY_NAMES, label_boundaries

CLASSES = ((1,), (2,))


def disc(radius, shape=(3, 40, 40), centre=(20, 20)):
    h, w = np.mgrid[: shape[1], : shape[2]]
    return np.broadcast_to(np.hypot(h - centre[0], w - centre[1]) <= radius, shape)


def boundary_of(image, mask, others=None):
    label = mask.astype(np.int16)
    if others is not None:
        label[others] = 2
    return dict(zip(BOUNDARY_NAMES, label_boundaries(image, label, CLASSES)[0], strict=True))


@pytest.fixture
def image():
    return np.where(disc(10), 100.0, 0.0).astype(np.float32)


def test_the_right_outline_lies_on_the_edge(image):
    found = boundary_of(image, disc(10))
    assert found["separation"] == 1.0
    assert found["edge_share"] == 1.0
    assert abs(found["edge_offset"]) < 0.2
    assert found["step_in2"] == found["step_in4"] == 0
    assert found["step_out1"] == pytest.approx(-1.0)  # the image's range
    assert found["spread_inside"] == 0


@pytest.mark.parametrize(("radius", "sign"), [(13, -1), (7, 1)])
def test_too_wide_and_too_narrow_an_outline_find_the_edge_on_the_other_side(image, radius, sign):
    found = boundary_of(image, disc(radius))
    assert np.sign(found["edge_offset"]) == sign
    assert abs(found["edge_offset"]) == pytest.approx(3, abs=0.7)
    assert found["edge_share"] < 0.3


def test_a_shifted_outline_separates_less(image):
    assert boundary_of(image, disc(10, centre=(24, 20)))["separation"] < boundary_of(image, disc(10))["separation"]


def test_gain_and_offset_do_not_matter(image):
    noisy = image + np.random.default_rng(0).normal(size=image.shape).astype(np.float32)
    one, other = (boundary_of(picture, disc(10)) for picture in (noisy, 50 * noisy - 300))
    assert list(other.values()) == pytest.approx(list(one.values()), rel=1e-4, abs=1e-5)


def test_other_classes_are_not_surroundings(image):
    beside = disc(16) & ~disc(10)
    image = np.where(beside, 500.0, image).astype(np.float32)
    found = boundary_of(image, disc(10), others=beside)
    assert np.isnan(found["step_out1"])
    assert np.isnan(found["separation"])


def test_absent_classes_flat_images_and_one_slice(image):
    assert np.isnan(label_boundaries(image, np.zeros(image.shape, dtype=np.int16), CLASSES)).all()
    flat = boundary_of(np.zeros_like(image), disc(10))
    assert flat["separation"] == 0
    assert np.isnan(flat["gradient_in1"])
    assert boundary_of(image[:1], disc(10)[:1])["separation"] == 1.0
