"""Faults of label maps, by hand; what they share is in test_corruption_kinds.py, the first in test_corruption.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from auvtool.corruption import labels

LABELS = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 3), st.integers(3, 8), st.integers(3, 8)), elements=st.integers(0, 3)
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def disc(radius: float, *, size: int = 0, n_slices: int = 1) -> np.ndarray:
    size = size or int(4 * radius) + 8
    axis = np.arange(size) - size // 2
    return np.repeat((axis[:, None] ** 2 + axis**2 <= radius**2).astype(np.uint8)[None], n_slices, axis=0)


def test_the_mean_radius_is_that_of_discs() -> None:
    assert labels.mean_radius(disc(20.0), 1) == pytest.approx(20.0, rel=0.01)
    assert labels.mean_radius(disc(20.0), 2) == 0.0
    label = np.zeros((3, 9, 9), np.uint8)
    label[0, 0, 0], label[1, :2, :2] = 1, 1
    assert labels.mean_radius(label, 1) == pytest.approx((np.sqrt(1 / np.pi) + np.sqrt(4 / np.pi)) / 2)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.4])
def test_a_small_structure_changes_by_its_area_in_each_slice(share: float) -> None:
    label = disc(6.0, n_slices=3)
    label[1] = disc(3.0, size=label.shape[1])[0]
    label[2] = 0
    areas = label.sum(axis=(1, 2), dtype=int)
    grown, n_grown = labels.grow_structures(label, voxels=3, share=share, generator=rng())
    shrunk, n_shrunk = labels.shrink_structures(label, voxels=3, share=share, generator=rng())
    assert (n_grown, n_shrunk) == (1, 1)
    change = np.rint(share * areas).astype(int)
    assert grown.sum(axis=(1, 2), dtype=int).tolist() == (areas + change).tolist()
    assert shrunk.sum(axis=(1, 2), dtype=int).tolist() == (areas - change).tolist()
    # Only the border moves, by less than it would by three voxels.
    assert not (grown.astype(bool) & ~labels.dilate(label, level=3).astype(bool)).any()
    assert not (labels.erode(label, level=3).astype(bool) & ~shrunk.astype(bool)).any()


@pytest.mark.parametrize("voxels", [1, 3, 7])
def test_a_large_structure_changes_by_voxels(voxels: int) -> None:
    label = disc(labels.SMALL_RADIUS + 2)
    grown, n_small = labels.grow_structures(label, voxels=voxels, share=0.1, generator=rng())
    np.testing.assert_array_equal(grown, labels.dilate(label, level=voxels))
    assert n_small == 0
    shrunk, _ = labels.shrink_structures(label, voxels=voxels, share=0.1, generator=rng())
    np.testing.assert_array_equal(shrunk, labels.erode(label, level=voxels))


def test_a_lone_voxel_grows_by_one_and_never_vanishes() -> None:
    label = np.zeros((1, 5, 5), np.uint8)
    label[0, 2, 2] = 1
    grown, _ = labels.grow_structures(label, voxels=1, share=0.1, generator=rng())
    assert grown.sum() == 2
    assert grown[0, 1:4, 1:4].sum() == 2
    shrunk, _ = labels.shrink_structures(label, voxels=7, share=0.4, generator=rng())
    np.testing.assert_array_equal(shrunk, label)


def test_neighbours_grow_into_background_only() -> None:
    label = np.zeros((1, 60, 130), np.uint8)
    label[0, 5:55, 5:60], label[0, 5:55, 66:125] = 1, 2  # a gap of six voxels
    grown, _ = labels.grow_structures(label, voxels=7, share=0.1, generator=rng())
    np.testing.assert_array_equal(grown[label > 0], label[label > 0])
    assert grown[0, 30, 60:66].tolist() == [1, 1, 1, 2, 2, 2]


def test_a_rough_border_wavers_about_the_true_one() -> None:
    label = disc(20.0, n_slices=4)
    rough = labels.roughen_boundary(label, level=2.0, share=1.0, generator=rng())
    assert np.count_nonzero(rough) == pytest.approx(np.count_nonzero(label), rel=0.05)
    distance = ndimage.distance_transform_edt(label[0]) + ndimage.distance_transform_edt(label[0] == 0)
    changed = (rough != label).any(axis=0)
    assert 1.0 < distance[changed].max() <= 5.5  # 2.5 standard deviations
    assert (rough[0] != rough[1]).any()  # slice by slice


def test_the_waver_of_a_small_structure_is_smaller() -> None:
    label = disc(4.0)
    gentle = labels.roughen_boundary(label, level=4.0, share=1 / 6, generator=rng())
    wild = labels.roughen_boundary(label, level=4.0, share=1.0, generator=rng())
    assert (gentle != label).sum() < (wild != label).sum()


def two_pieces() -> np.ndarray:
    label = np.zeros((3, 8, 8), np.uint8)
    label[0, :2, :2] = 1
    label[1, 2, 2] = 1  # touches the first by a corner
    label[2, 6, 6:] = 1
    return label


def test_the_largest_piece_goes() -> None:
    label = two_pieces()
    assert labels.largest_component(label, 1).sum() == 5
    incomplete = labels.remove_component(label, class_id=1)
    assert incomplete.sum() == 2
    assert labels.removable_components(label) == [1]
    assert labels.removable_components(incomplete) == []
    label[2] = 0
    label[2, 0, 7] = 2
    assert labels.removable_components(label) == [1, 2]
    assert not labels.largest_component(label, 3).any()


def test_a_blob_is_a_ball_in_mm_off_the_structures() -> None:
    label = np.zeros((9, 21, 31), np.uint8)
    label[4, 10, :3] = 2
    allowed = np.zeros(label.shape, bool)
    allowed[4, 10, 15] = True
    blobbed = labels.add_blob(
        label, class_id=2, radius_mm=4.0, spacing_mm=(4.0, 1.0, 0.5), allowed=allowed, generator=rng()
    )
    added = np.argwhere(blobbed != label)
    assert added.min(axis=0).tolist() == [3, 6, 7]
    assert added.max(axis=0).tolist() == [5, 14, 23]
    assert set(np.unique(blobbed)) == {0, 2}
    assert len(added) == 2 + sum(
        (h**2 + (w / 2) ** 2) <= 16 for h in range(-4, 5) for w in range(-8, 9)
    )  # one voxel each above and below


def test_a_blob_needs_room() -> None:
    label = np.zeros((1, 5, 5), np.uint8)
    label[0, 2, 2] = 1
    with pytest.raises(ValueError, match="no room"):
        labels.add_blob(
            label,
            class_id=1,
            radius_mm=2.0,
            spacing_mm=(1.0, 1.0, 1.0),
            allowed=np.ones(label.shape, bool),
            generator=rng(),
        )


def test_holes_lie_inside_and_are_round() -> None:
    label = disc(20.0)
    for seed in range(5):
        pierced = labels.punch_holes(label, n_holes=1, share=0.3, spacing_mm=(9.0, 1.0, 1.0), generator=rng(seed))
        hole = pierced != label
        assert not (hole & (labels.erode(label, level=1.0) == 0)).any()
        assert hole.sum() == pytest.approx(np.pi * 6.0**2, rel=0.1)
        assert ndimage.label(hole)[1] == 1


def test_each_structure_is_pierced_and_a_thin_one_too() -> None:
    label = np.zeros((1, 12, 12), np.uint8)
    label[0, :6], label[0, 10, :] = 1, 2
    pierced = labels.punch_holes(label, n_holes=3, share=0.3, spacing_mm=(1.0, 1.0, 1.0), generator=rng())
    for class_id in (1, 2):
        assert 0 < (pierced == class_id).sum() < (label == class_id).sum()


@settings(deadline=None, max_examples=40)
@given(label=LABELS, seed=st.integers(0, 5))
def test_growing_and_shrinking_move_borders_only(label: np.ndarray, seed: int) -> None:
    grown, _ = labels.grow_structures(label, voxels=3, share=0.2, generator=rng(seed))
    shrunk, _ = labels.shrink_structures(label, voxels=3, share=0.2, generator=rng(seed))
    np.testing.assert_array_equal(grown[label > 0], label[label > 0])
    np.testing.assert_array_equal(shrunk[shrunk > 0], label[shrunk > 0])
    assert set(np.unique(shrunk)) | {0} == set(np.unique(label)) | {0}  # no class vanishes
    assert grown.dtype == shrunk.dtype == label.dtype
