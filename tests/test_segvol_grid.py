"""What SegVol sees of a volume; the oracle is the authors' list of MONAI's transforms."""

import warnings

import numpy as np
import pytest
from model_inputs import geometry_of

from auvtool.extractors.segvol_grid import as_seen, box_around, coarser_region, model_grid
from auvtool.volume import view_as_slices

SHAPE = (8, 24, 20)


def authors_steps(image: np.ndarray, label: np.ndarray, affine: np.ndarray, shape) -> tuple[np.ndarray, np.ndarray]:
    """Image and label of a file (i, j, k) after the steps of data_process/demo_data_process.py."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.data import MetaTensor
        from monai.transforms import CropForegroundd, Orientation, Resized
    import torch

    turn = Orientation(axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S")))
    image, label = (
        np.asarray(turn(MetaTensor(torch.from_numpy(one)[None].float(), affine=torch.from_numpy(affine))))
        for one in (image, label)
    )
    above = image[image > np.mean(image)]
    image = np.clip(image, np.percentile(above, 0.05), np.percentile(above, 99.95))
    image = (image - np.mean(above)) / np.std(above)
    image, label = np.swapaxes(image, -1, -3), np.swapaxes(label, -1, -3)
    image = image - image.min()
    image = image / image.max()
    item = {"image": image, "label": label}
    item = CropForegroundd(keys=["image", "label"], source_key="image", allow_smaller=True)(item)
    item = Resized(keys=["image", "label"], spatial_size=shape, mode="nearest-exact")(item)
    return np.asarray(item["image"])[0], np.asarray(item["label"])[0]


def scan(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A body in air, bright and dark within, and three organs."""
    rng = np.random.default_rng(3)
    image = rng.normal(-1000, 5, shape).astype(np.float32)
    body = tuple(slice(n // 6, n - n // 5) for n in shape)
    image[body] = rng.normal(40, 60, image[body].shape)
    label = np.zeros(shape, dtype=np.int16)
    label[body] = rng.integers(0, 4, label[body].shape)
    return image, label


DIRECTIONS = {
    "RAS": np.eye(3),
    "LPS": np.diag([-1.0, -1.0, 1.0]),
    "LPI, thick": np.diag([-0.7, -0.7, -5.0]),
    "PSR": np.array([[0, 0, 2.0], [-1.0, 0, 0], [0, 1.0, 0]]),
    "oblique": np.array([[0.95, -0.2, 0.1], [0.2, 0.95, 0.1], [-0.1, -0.08, 1.2]]),
}


@pytest.mark.parametrize("directions", DIRECTIONS.values(), ids=DIRECTIONS)
@pytest.mark.parametrize("sides", [(31, 42, 53), (10, 12, 9)], ids=["smaller", "larger"])
def test_image_and_label_are_those_of_the_authors_steps(directions: np.ndarray, sides: tuple[int, int, int]) -> None:
    image, label = scan(sides)
    affine = np.eye(4)
    affine[:3, :3] = directions
    expected_image, expected_label = authors_steps(image, label, affine, SHAPE)
    volume, geometry = view_as_slices(image[None], affine)
    labels, _ = view_as_slices(label[None], affine)
    seen = as_seen(volume[0], geometry.affine)
    grid = model_grid(seen, SHAPE)
    found = grid.image(seen)
    np.testing.assert_allclose(found, expected_image, atol=2e-6)
    assert found.dtype == np.float32
    assert 0 <= found.min() < 0.1 < 0.9 < found.max() <= 1
    for value in (1, 2, 3):
        region = grid.region(as_seen(labels[0], geometry.affine), (value,))
        np.testing.assert_array_equal(region, expected_label == value)


def test_axes_run_to_the_head_to_the_front_and_to_the_right() -> None:
    geometry = geometry_of((2, 3, 4))  # to the head, to the back, to the left
    volume = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(as_seen(volume, geometry.affine), volume[:, ::-1, ::-1])


def test_gain_and_offset_of_the_intensities_do_not_matter() -> None:
    volume, _ = scan((20, 24, 28))
    one, other = (model_grid(v, SHAPE).image(v) for v in (volume, (volume + 1024) / 600))
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("volume", [np.zeros((4, 4, 4)), np.ones((4, 4, 4)), np.pad([[[5.0]]], 2)])
def test_an_image_without_foreground_is_refused(volume: np.ndarray) -> None:
    with pytest.raises(ValueError, match="got a constant"):
        model_grid(volume.astype(np.float32), SHAPE)


def test_a_class_that_falls_between_the_grids_voxels_keeps_the_cells_it_lies_in() -> None:
    volume = np.zeros((16, 48, 40), dtype=np.float32)
    volume[8:, 24:] = 100
    volume[12, 36, 10:20], volume[12, 36, 20:30] = 90, 200  # more than the percentiles cut off
    grid = model_grid(volume, (4, 8, 10))
    assert (grid.low, grid.high) == (90, 200)
    assert grid.box == (slice(8, 16), slice(24, 48), slice(0, 40))
    assert [rows.tolist()[:3] for rows in grid.rows] == [[1, 3, 5], [1, 4, 7], [2, 6, 10]]
    label = np.zeros(volume.shape, dtype=np.int16)
    label[8 + 3 : 8 + 5, 24 + 5, 4] = 7
    assert np.argwhere(grid.region(label, (7, 9))).tolist() == [[1, 1, 1], [2, 1, 1]]
    assert not grid.region(label, (9,)).any()
    label[:] = 0
    label[0, 0, 0] = 7  # in the air that is cropped away
    assert not grid.region(label, (7,)).any()


def test_a_box_by_hand() -> None:
    region = np.zeros((5, 6, 7), dtype=bool)
    region[1:3, 2:6, 4] = True
    assert box_around(region).tolist() == [1, 2, 4, 2, 5, 4]


def test_coarser_cells_by_hand() -> None:
    region = np.zeros((3, 4, 4), dtype=bool)
    region[0, :2, :2] = True  # a whole cell
    region[0, 2, 2:] = True  # half a cell
    region[0, 3, 0] = True  # a quarter
    region[1, 3, 3] = True  # a quarter, alone in its slice
    expected = [[[1, 0], [0, 1]], [[0, 0], [0, 1]], [[0, 0], [0, 0]]]
    assert coarser_region(region, (3, 2, 2)).astype(int).tolist() == expected
