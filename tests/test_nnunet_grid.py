"""Cases brought to a network's grid; the oracle is nnU-Net's own preprocessor on the files."""

import itertools

import numpy as np
import pytest
from nnunet_runs import LABELS, plans_of
from phantoms import write_volume

from auvtool.errors import InputError
from auvtool.extractors.nnunet_grid import GridLabel, Preprocessing
from auvtool.volume import read_image, read_label

DATASET_JSON = {"labels": LABELS, "channel_names": {"0": "CT", "1": "MR"}, "file_ending": ".nii.gz"}
SHAPE = (12, 17, 23)
# Which axis of the patient each axis of the file is, and its direction: all that a scanner writes, and more.
DIRECTIONS = {
    "LPS": np.eye(3),
    "RAS": np.diag([-1.0, -1.0, 1.0]),
    "sagittal": np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]),
    "tilted": np.array([[1.0, 0.0, 0.0], [0.0, 0.8, -0.6], [0.0, 0.6, 0.8]]),
}


def preprocessing(**options):
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans_of(n_channels=2, **options))
    return Preprocessing(manager, manager.get_configuration("net"), DATASET_JSON)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Two channels and a label, with a border of zeros that nnU-Net crops away."""
    generator = np.random.default_rng(0)
    inside = np.zeros(SHAPE, dtype=bool)
    inside[1:-2, 2:-1, 3:-4] = True
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[3:8, 4:11, 6:16] = 1
    label[5:7, 6:9, 9:13] = 2
    channels = generator.normal(100, 30, (2, *SHAPE)) + 80 * label
    return (channels * inside).astype(np.float32), label


@pytest.fixture
def written(tmp_path):
    def write(direction: str, spacing_mm=(2.5, 0.8, 1.1)):
        channels, label = scene()
        options = {"spacing_mm": spacing_mm, "origin_mm": (3, -5, 7), "direction": DIRECTIONS[direction]}
        images = [
            write_volume(tmp_path / "imagesTr" / f"case_{number:04d}.nii.gz", channel, **options)
            for number, channel in enumerate(channels)
        ]
        return images, write_volume(tmp_path / "labelsTr" / "case.nii.gz", label, **options)

    return write


def by_nnunet(process: Preprocessing, images, label):
    """What a network sees in prediction, and the label as it is prepared for training."""
    preprocessor = process.configuration.preprocessor_class(verbose=False)
    files = [str(path) for path in images]
    rest = (process.plans, process.configuration, DATASET_JSON)
    image, _, _ = preprocessor.run_case(files, None, *rest)
    _, prepared, _ = preprocessor.run_case(files, str(label), *rest)
    return image, prepared[0]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO", "SimpleITKIOWithReorient", "NibabelIOWithReorient"])
def test_image_and_label_are_what_nnunet_makes_of_the_files(written, direction, reader):
    images, label_file = written(direction)
    process = preprocessing(reader=reader, transpose=(2, 0, 1), spacing=(0.9, 1.3, 1.0))
    channels, geometry = read_image(images)
    label, _ = read_label(label_file, like=geometry)
    image, grid = process.run(channels, geometry)
    expected, expected_label = by_nnunet(process, images, label_file)
    assert image.shape == expected.shape
    np.testing.assert_allclose(image, expected, atol=1e-5)
    found = grid.label(label).resampled
    np.testing.assert_array_equal(found, np.maximum(expected_label, 0))
    assert set(np.unique(found)) == {0, 1, 2}


@pytest.mark.parametrize(
    ("spacing_mm", "spacing", "patch"),
    [((5.0, 0.8, 0.8), (3.0, 1.0, 1.0), (8, 16, 16)), ((2.5, 0.8, 1.1), (0.9, 1.3), (16, 16))],
    ids=["thick slices", "2D"],
)
def test_slices_that_nnunet_resamples_apart(written, spacing_mm, spacing, patch):
    images, label_file = written("LPS", spacing_mm)
    process = preprocessing(spacing=spacing, patch_size=patch)
    channels, geometry = read_image(images)
    image, grid = process.run(channels, geometry)
    expected, expected_label = by_nnunet(process, images, label_file)
    np.testing.assert_allclose(image, expected, atol=1e-5)
    found = grid.label(read_label(label_file, like=geometry)[0]).resampled
    np.testing.assert_array_equal(found, np.maximum(expected_label, 0))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIOWithReorient"])
def test_a_map_comes_back_on_the_axes_of_the_case(written, direction, reader):
    """Without resampling the grid is the volume less its border of zeros, however its axes are turned."""
    images, label_file = written(direction, (1.0, 1.0, 1.0))
    channels, geometry = read_image(images)
    label, _ = read_label(label_file, like=geometry)
    inside = np.ix_(*(np.flatnonzero(channels.any(axis=(0, *axes))) for axes in ((2, 3), (1, 3), (1, 2))))
    for order in itertools.permutations(range(3)):
        process = preprocessing(reader=reader, transpose=order)
        _, grid = process.run(channels, geometry)
        np.testing.assert_array_equal(grid.as_slices(grid.label(label).resampled), label[inside])


def test_a_structure_that_resampling_loses_keeps_its_nearest_voxels():
    cropped = np.zeros((4, 8, 8), dtype=np.int16)
    cropped[3, 7, 0] = 5
    label = GridLabel(cropped, np.zeros((4, 4, 2), dtype=np.int16))
    assert np.argwhere(label.region((5,))).tolist() == [[3, 3, 0]]
    assert label.region((4, 6)) is None
    assert GridLabel(cropped, cropped).region((4, 5)).sum() == 1


def test_a_reader_whose_axes_are_not_known_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"SimpleITKIO.*got MyReader"):
        preprocessing(reader="MyReader").check_reader(tmp_path / "plans.json")
