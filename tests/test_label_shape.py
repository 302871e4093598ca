import numpy as np
import pytest

from auvtool.label_shape import SHAPE_NAMES, label_shapes

CLASSES = ((1,), (2,))


def shape_of(label, spacing=(1.0, 1.0, 1.0), row=0):
    return dict(zip(SHAPE_NAMES, label_shapes(label, CLASSES, spacing)[row], strict=True))


def box(shape=(8, 16, 16), at=((2, 6), (4, 8), (4, 12)), value=1):
    label = np.zeros(shape, dtype=np.int16)
    label[tuple(slice(*part) for part in at)] = value
    return label


def test_a_box_by_hand():
    found = shape_of(box(), spacing=(2.0, 1.0, 1.0))
    volume = 4 * 4 * 8 * 2.0
    assert found["log_volume_mm3"] == pytest.approx(np.log(volume))
    assert (found["n_components"], found["minor_component_share"], found["hole_share"]) == (1, 0, 0)
    faces = 2 * (4 * 8 * 1 + 4 * 8 * 2 + 4 * 4 * 2)
    assert found["surface_ratio"] == pytest.approx(faces / volume ** (2 / 3))
    assert found["outline_ratio"] == pytest.approx(24 / np.sqrt(32))
    assert (found["slice_overlap"], found["slice_overlap_least"], found["area_jump"]) == (1, 1, 0)
    assert (found["end_area_first"], found["end_area_last"], found["gap_share"]) == (1, 1, 0)
    assert [found[f"centre_{axis}"] for axis in "dhw"] == pytest.approx([4 / 8, 6 / 16, 8 / 16])
    assert [found[f"extent_{axis}"] for axis in "dhw"] == pytest.approx([4 / 8, 4 / 16, 8 / 16])
    assert [found[f"offset_{axis}"] for axis in "dhw"] == pytest.approx([0, 0, 0])
    # Variance of n evenly spaced voxels: (n^2 - 1) / 12 steps^2.
    assert found["moment_ww"] == pytest.approx((8**2 - 1) / 12 / volume ** (2 / 3))
    assert found["moment_dd"] == pytest.approx((4**2 - 1) / 12 * 4 / volume ** (2 / 3))
    assert found["moment_hw"] == pytest.approx(0)


def test_faults_leave_their_mark():
    holed, blobbed, gapped = box(), box(), box()
    holed[3, 6, 8] = 0
    blobbed[7, 14, 14] = 1
    gapped[3] = 0
    assert shape_of(holed)["hole_share"] == pytest.approx(1 / 127)
    assert shape_of(blobbed)["n_components"] == 2
    assert shape_of(blobbed)["minor_component_share"] == pytest.approx(1 / 129)
    assert shape_of(gapped)["gap_share"] == 0.25
    assert shape_of(gapped)["area_jump"] == 1.0
    border = box(at=((2, 6), (0, 4), (4, 12)))
    assert shape_of(border)["border_share"] == 0.25


def test_a_ragged_outline_is_rough():
    h, w = np.mgrid[:40, :40]
    radius, angle = np.hypot(h - 20, w - 20), np.arctan2(h - 20, w - 20)
    smooth, ragged = (
        shape_of(np.broadcast_to(radius <= edge, (3, 40, 40)).astype(np.int16))
        for edge in (12, 12 + 2 * np.sin(20 * angle))
    )
    assert ragged["roughness"] > 2 * smooth["roughness"]
    assert ragged["outline_ratio"] > smooth["outline_ratio"]


def test_offsets_tell_two_classes_apart():
    label = box() + box(at=((2, 6), (10, 14), (4, 12)), value=2)
    one, two = shape_of(label), shape_of(label, row=1)
    assert one["offset_h"] == pytest.approx(-two["offset_h"])
    assert one["offset_h"] < 0


def test_an_absent_class_is_missing_and_one_voxel_is_not():
    label = np.zeros((3, 3, 3), dtype=np.int16)
    assert np.isnan(label_shapes(label, CLASSES, (1.0, 1.0, 1.0))).all()
    label[1, 1, 1] = 1
    found = shape_of(label)
    assert np.isnan(found["slice_overlap"])
    assert found["extent_d"] == pytest.approx(1 / 3)
