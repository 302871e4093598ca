"""Against all pairs of points, by hand, and against DeepMind's own package (areas of surfaces, distance transforms)."""

import itertools

import numpy as np
import pytest
import surface_distance
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from auvtool.surface_distances import NO_SURFACES, SurfaceAgreement, SurfaceMeasures, surface_agreement

# DeepMind's package imports from SciPy by a name that SciPy has deprecated.
OLD_IMPORTS = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")
BOTH = SurfaceMeasures(hd95=True, nsd_tolerance_mm=1.5)


def box(shape, *ranges):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*pair) for pair in ranges)] = True
    return mask


def outermost(mask):
    """Voxels with a face neighbour outside, one by one."""
    found = []
    for index in zip(*np.nonzero(mask), strict=True):
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            neighbour = list(index)
            neighbour[axis] += step
            if not 0 <= neighbour[axis] < mask.shape[axis] or not mask[tuple(neighbour)]:
                found.append(index)
                break
    return np.array(found, dtype=float)


def plain_hd95(one, other, spacing):
    points = [outermost(mask) * spacing for mask in (one, other)]
    distances = np.sqrt(((points[0][:, None] - points[1][None]) ** 2).sum(axis=-1))
    return max(np.percentile(distances.min(axis=axis), 95) for axis in (0, 1))


@st.composite
def masks(draw, dimension=3):
    shape = draw(st.tuples(*[st.integers(2, 9)] * dimension))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    smooth = [ndimage.gaussian_filter(rng.normal(size=shape), draw(st.sampled_from([0, 1.0]))) for _ in range(2)]
    level = draw(st.sampled_from([-0.5, 0.0, 0.5]))
    found = [values > level * values.std() for values in smooth]
    for mask in found:
        mask[(0,) * dimension] |= not mask.any()
    return found


spacings = st.tuples(*[st.sampled_from([0.5, 1.0, 2.5])] * 3)


@settings(deadline=None, max_examples=40)
@given(masks(), spacings)
def test_hd95_equals_the_distances_of_all_pairs(pair, spacing):
    found = surface_agreement(*pair, spacing_mm=spacing, measures=SurfaceMeasures(hd95=True))
    assert found.hd95_mm == pytest.approx(plain_hd95(*pair, spacing), abs=1e-4)
    assert found.nsd is None


@OLD_IMPORTS
@settings(deadline=None, max_examples=40)
@given(masks(), spacings, st.sampled_from([0.0, 0.6, 1.5, 4.0]))
def test_nsd_equals_deepminds(pair, spacing, tolerance):
    found = surface_agreement(*pair, spacing_mm=spacing, measures=SurfaceMeasures(nsd_tolerance_mm=tolerance))
    theirs = surface_distance.compute_surface_distances(*pair, spacing_mm=spacing)
    # Distances that equal the tolerance but for rounding may fall on either side.
    bounds = [surface_distance.compute_surface_dice_at_tolerance(theirs, tolerance + by) for by in (-1e-5, 1e-5)]
    assert min(bounds) - 1e-5 <= found.nsd <= max(bounds) + 1e-5
    assert found.hd95_mm is None


@settings(deadline=None, max_examples=20)
@given(masks(), spacings)
def test_both_are_symmetric_and_ignore_empty_space_around(pair, spacing):
    found = surface_agreement(*pair, spacing_mm=spacing, measures=BOTH)
    assert surface_agreement(*reversed(pair), spacing_mm=spacing, measures=BOTH).hd95_mm == pytest.approx(found.hd95_mm)
    padded = [np.pad(mask, ((3, 0), (0, 2), (1, 1))) for mask in pair]
    assert surface_agreement(*padded, spacing_mm=spacing, measures=BOTH) == found
    assert surface_agreement(pair[0], pair[0], spacing_mm=spacing, measures=BOTH) == SurfaceAgreement(0.0, 1.0)


def test_a_shifted_box_by_hand():
    one, other = box((20, 20, 20), (4, 14), (4, 14), (4, 14)), box((20, 20, 20), (4, 14), (4, 14), (6, 16))
    found = surface_agreement(one, other, spacing_mm=(1.0, 1.0, 3.0), measures=SurfaceMeasures(hd95=True))
    # A face of each lies outside the other, 2 voxels of 3 mm away, a 14th of its surface (edges are cut off a little).
    assert found.hd95_mm == pytest.approx(6.0)
    for tolerance, expected in ((6.0, 1.0), (5.9, 13 / 14)):
        measures = SurfaceMeasures(nsd_tolerance_mm=tolerance)
        nsd = surface_agreement(one, other, spacing_mm=(1.0, 1.0, 3.0), measures=measures).nsd
        assert nsd == pytest.approx(expected, abs=0.04)


def test_empty_masks_have_a_stated_rule():
    empty, full = np.zeros((4, 4, 4), bool), box((4, 4, 4), (1, 3), (1, 3), (1, 3))
    assert surface_agreement(empty, empty, spacing_mm=(1, 1, 1), measures=BOTH) == SurfaceAgreement(None, None)
    for pair in ((empty, full), (full, empty)):
        assert surface_agreement(*pair, spacing_mm=(1, 1, 1), measures=BOTH) == SurfaceAgreement(None, 0.0)
        hd95_alone = surface_agreement(*pair, spacing_mm=(1, 1, 1), measures=SurfaceMeasures(hd95=True))
        assert hd95_alone == SurfaceAgreement(None, None)


@OLD_IMPORTS
@pytest.mark.parametrize("axis", [0, 1, 2])
@settings(deadline=None, max_examples=10)
@given(pair=masks(dimension=2))
def test_one_slice_is_a_picture(axis, pair):
    spacing = [0.5, 2.0]
    spacing.insert(axis, 999.0)
    slices = [np.expand_dims(mask, axis) for mask in pair]
    found = surface_agreement(*slices, spacing_mm=spacing, measures=BOTH)
    assert found.hd95_mm == pytest.approx(plain_hd95(*pair, (0.5, 2.0)), abs=1e-4)
    theirs = surface_distance.compute_surface_distances(*pair, spacing_mm=(0.5, 2.0))
    bounds = [surface_distance.compute_surface_dice_at_tolerance(theirs, 1.5 + by) for by in (-1e-5, 1e-5)]
    assert min(bounds) - 1e-5 <= found.nsd <= max(bounds) + 1e-5


def test_a_line_of_voxels():
    one, other = box((1, 1, 9), (0, 1), (0, 1), (1, 4)), box((1, 1, 9), (0, 1), (0, 1), (1, 8))
    assert surface_agreement(one, other, spacing_mm=(1, 1, 2.0), measures=BOTH).hd95_mm == pytest.approx(7.4)


def test_shapes_must_agree_and_nothing_is_nothing():
    with pytest.raises(ValueError, match="one shape"):
        surface_agreement(np.ones((2, 2, 2), bool), np.ones((2, 2, 3), bool), spacing_mm=(1, 1, 1), measures=BOTH)
    assert not NO_SURFACES
    assert SurfaceMeasures(nsd_tolerance_mm=0.0)
