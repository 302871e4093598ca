"""The grid of cubes in RAS; the oracle is MONAI's Orientation and Spacing, which the models' authors use."""

import numpy as np
import pytest
import torch
from model_inputs import geometry_of

from auvtool.extractors.ras_grid import ras_grid
from auvtool.volume import view_as_slices


def rotated(degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    return turn @ np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])


AFFINES = {
    "as it is": np.diag([0.83, 0.91, 2.71, 1.0]),
    "flipped": np.array([[-0.83, 0, 0, 40], [0, -0.91, 0, 3], [0, 0, 2.71, -9], [0, 0, 0, 1.0]]),
    "sagittal slices": np.array([[0, 0, 3.1, 4], [-1.3, 0, 0, 5], [0, -1.1, 0, 6], [0, 0, 0, 1.0]]),
    "oblique": np.block([[rotated(13) @ np.diag([-1.1, 1.7, 2.3]), np.array([[1], [2], [3]])], [np.eye(4)[3]]]),
}


@pytest.mark.parametrize("name", AFFINES)
def test_it_is_monais_grid(name: str) -> None:
    from monai.data import MetaTensor
    from monai.transforms import Compose, Orientation, Spacing

    voxels = np.random.default_rng(0).normal(size=(31, 26, 17)).astype(np.float32)
    label = np.random.default_rng(1).integers(0, 4, size=voxels.shape).astype(np.int16)
    affine = AFFINES[name]
    (volume,), geometry = view_as_slices(voxels[None], affine)
    (label_slices,), _ = view_as_slices(label[None], affine)
    grid = ras_grid(geometry, 1.5)
    for values, given, order, mode in ((voxels, volume, 1, "bilinear"), (label, label_slices, 0, "nearest")):
        turn = Compose([Orientation("RAS", labels=None), Spacing((1.5, 1.5, 1.5), mode=mode, dtype=np.float64)])
        expected = turn(MetaTensor(torch.from_numpy(values[None].astype(np.float64)), affine=torch.tensor(affine)))
        found = grid.resampled(given, order=order)
        assert found.dtype == values.dtype
        assert found.shape == expected.shape[1:]
        np.testing.assert_allclose(found, expected[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("name", AFFINES)
def test_what_comes_back_has_the_axes_of_the_volume(name: str) -> None:
    _, geometry = view_as_slices(np.zeros((1, 29, 28, 27)), AFFINES[name])
    ramp = np.einsum("idhw,i->dhw", np.indices(geometry.shape), [10000, 100, 1]).astype(np.float64)
    grid = ras_grid(geometry, 1.5)
    back = grid.in_order_of_volume(grid.resampled(ramp, order=1))
    assert back.flags["C_CONTIGUOUS"]
    assert back.shape == tuple(
        round((n - 1) * mm / 1.5 + 1) for n, mm in zip(geometry.shape, geometry.spacing_mm, strict=True)
    )
    middle = tuple(n // 2 for n in back.shape)
    for axis, (slope, mm) in enumerate(zip((10000, 100, 1), geometry.spacing_mm, strict=True)):
        step = np.diff(back, axis=axis)[middle]
        assert step == pytest.approx(slope * 1.5 / mm)


def test_a_flip_by_hand() -> None:
    geometry = geometry_of((2, 3, 4))  # d to the head, h to the back, w to the left
    volume = np.arange(24.0).reshape(2, 3, 4)
    grid = ras_grid(geometry, 1.0)
    turned = grid.resampled(volume, order=1)
    np.testing.assert_array_equal(turned, volume.transpose(2, 1, 0)[::-1, ::-1])
    np.testing.assert_array_equal(grid.in_order_of_volume(turned), volume)


def test_a_grid_that_no_scan_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"3401 x 3401 x 934 cubes of 1\.5 mm are too many; is the spacing right\?"):
        ras_grid(geometry_of((15, 52, 52), (100.0, 100.0, 100.0)), 1.5)


def test_no_small_mask_is_lost() -> None:
    geometry = geometry_of((20, 20, 20), (0.5, 0.5, 0.5))
    mask = np.zeros((20, 20, 20), dtype=bool)
    mask[7, 4, 11] = True
    grid = ras_grid(geometry, 1.5)
    assert not grid.resampled(mask.astype(np.int16), order=0).any()
    touched = grid.touched(mask)
    # In RAS the voxel is at (8, 15, 7), 2.67, 5 and 2.33 steps of three voxels from the first.
    assert np.argwhere(touched).tolist() == [[3, 5, 2]]
    mask[:] = True
    assert grid.touched(mask).all()
