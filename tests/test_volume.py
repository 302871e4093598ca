"""Volumes: every file ending, canonical axes, agreement of image and label, bad files."""

import gzip
import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # its usual name
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import (
    BOXES,
    VOXELS,
    box_image,
    box_label,
    edit_dataset_json,
    truncate,
    write_raw_dataset,
    write_volume,
)

from auvtool.dataset import open_dataset
from auvtool.errors import InputError
from auvtool.volume import read_case, read_image, read_label

THREE_D = [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl", ".tif", ".tiff"]


@pytest.mark.parametrize("ending", THREE_D)
def test_every_3d_ending(tmp_path, ending):
    """The array that was written comes back, with its spacing, for images and labels of every format."""
    folder = write_raw_dataset(tmp_path / "d", n_cases=1, n_channels=2, file_ending=ending, spacing_mm=(3.0, 0.5, 0.75))
    dataset = open_dataset(folder)
    case = read_case(dataset.cases[0], dataset)
    assert case.image.dtype == np.float32
    assert case.image.flags.c_contiguous
    for channel in (0, 1):
        np.testing.assert_array_equal(case.image[channel], box_image(box_label(), channel=channel, seed=0))
    np.testing.assert_array_equal(case.label, box_label())
    assert {value: int((case.label == value).sum()) for value in BOXES} == VOXELS
    assert case.geometry.shape == box_label().shape
    assert case.geometry.spacing_mm == pytest.approx((3.0, 0.5, 0.75))
    assert case.geometry.slice_axis == "S"
    assert case.geometry.voxel_ml == pytest.approx(3.0 * 0.5 * 0.75 / 1000)
    assert case.warnings == ()


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".gipl", ".tif", ".tiff"])
def test_voxels_and_spacing_are_those_of_nnunet(tmp_path, ending, capsys):
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    folder = write_raw_dataset(tmp_path / "d", n_cases=1, file_ending=ending, spacing_mm=(3.0, 0.5, 0.75))
    dataset = open_dataset(folder)
    path = dataset.cases[0].images[0]
    reader = determine_reader_writer_from_dataset_json(dataset.raw, verbose=False)
    if ending == ".tif":  # nnU-Net tries its 2D reader first, and takes this one where that fails
        from nnunetv2.imageio.tif_reader_writer import Tiff3DIO as reader  # noqa: N813  # its name
    theirs, properties = reader().read_images([str(path)])
    ours, geometry = read_image([path])
    np.testing.assert_array_equal(ours, theirs)
    assert geometry.spacing_mm == pytest.approx(tuple(properties["spacing"]))


@pytest.mark.parametrize("ending", [".png", ".bmp"])
def test_2d_images(tmp_path, ending):
    folder = write_raw_dataset(tmp_path / "d", n_cases=1, file_ending=ending, shape=(8, 10, 12))
    dataset = open_dataset(folder)
    case = read_case(dataset.cases[0], dataset)
    assert case.image.shape == (1, 1, 10, 12)
    assert case.label.shape == (1, 10, 12)
    assert case.geometry.spacing_mm == (999.0, 1.0, 1.0)
    assert case.geometry.slice_axis == "S"


def test_colours_are_channels(tmp_path):
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(tmp_path / "a_0000.png"))
    image, _ = read_image([tmp_path / "a_0000.png"])
    np.testing.assert_array_equal(image[:, 0], np.moveaxis(pixels, -1, 0))


def test_4d_file_holds_the_channels(tmp_path):
    channels = np.random.default_rng(0).normal(size=(2, 4, 5, 6)).astype(np.float32)  # channel, z, y, x
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(channels.transpose(3, 2, 1, 0), affine), tmp_path / "a.nii.gz")
    image, geometry = read_image([tmp_path / "a.nii.gz"])
    np.testing.assert_array_equal(image, channels)
    assert geometry.shape == (4, 5, 6)


def test_axes_grow_towards_head_back_and_left(tmp_path):
    """RAS+ voxels (i right, j front, k head): d is k, h is -j, w is -i."""
    voxels = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii")
    image, geometry = read_image([tmp_path / "a.nii"])
    assert geometry.shape == (4, 3, 2)
    assert image[0, 3, 0, 0] == voxels[1, 2, 3]
    assert image[0, 0, 2, 1] == voxels[0, 0, 0]
    np.testing.assert_allclose(np.array(geometry.affine) @ [3, 0, 0, 1], [1, 2, 3, 1])


@pytest.mark.parametrize(
    ("spacing_mm", "axis", "shape"),
    [
        ((1.0, 1.0, 1.0), "S", (4, 3, 2)),
        ((1.0, 1.0, 0.6), "S", (4, 3, 2)),
        ((1.05, 1.0, 0.6), "S", (4, 3, 2)),
        ((0.5, 0.5, 3.0), "S", (4, 3, 2)),
        ((0.5, 3.0, 0.5), "A", (3, 4, 2)),
        ((3.0, 0.5, 0.5), "R", (2, 4, 3)),
    ],
)
def test_slice_axis_is_the_one_of_clearly_largest_spacing(tmp_path, spacing_mm, axis, shape):
    voxels = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([*spacing_mm, 1.0])), tmp_path / "a.nii")
    image, geometry = read_image([tmp_path / "a.nii"])
    assert (geometry.slice_axis, geometry.shape, image.shape[1:]) == (axis, shape, shape)
    assert geometry.spacing_mm[0] == pytest.approx(spacing_mm["RAS".index(axis)])
    head, back = {"S": ((3, 0, 0), (3, 2, 0)), "A": ((0, 0, 0), (2, 0, 0)), "R": ((0, 0, 0), (0, 0, 2))}[axis]
    top, origin = np.array(geometry.affine) @ [*head, 1], np.array(geometry.affine) @ [*back, 1]
    assert abs(origin[1] - top[1]) == pytest.approx(2 * spacing_mm[1])
    if axis != "S":  # coronal and sagittal slices stand upright
        assert top[2] == pytest.approx(3 * spacing_mm[2])


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(3)), signs=st.tuples(*[st.sampled_from([-1, 1])] * 3))
def test_the_same_scan_in_any_orientation_gives_the_same_array(tmp_path_factory, order, signs):
    folder = tmp_path_factory.mktemp("orientation")
    voxels = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    plain = nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, 2.5, 1.0]))
    turned = plain.as_reoriented(np.array(list(zip(order, signs, strict=True))))
    nibabel.save(plain, folder / "plain.nii")
    nibabel.save(turned, folder / "turned.nii")
    expected, geometry = read_image([folder / "plain.nii"])
    found, turned_geometry = read_image([folder / "turned.nii"])
    np.testing.assert_array_equal(found, expected)
    assert turned_geometry.spacing_mm == geometry.spacing_mm
    np.testing.assert_allclose(turned_geometry.affine, geometry.affine, atol=1e-6)


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_itk_orientation_is_that_of_nifti(tmp_path, ending):
    direction = np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]])
    array = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    for name in ("a" + ending, "a.nii.gz"):
        write_volume(tmp_path / name, array, spacing_mm=(1.0, 1.5, 2.5), origin_mm=(4.0, 5.0, 6.0), direction=direction)
    ours, geometry = read_image([tmp_path / ("a" + ending)])
    theirs, nifti_geometry = read_image([tmp_path / "a.nii.gz"])
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(geometry.affine, nifti_geometry.affine, atol=1e-5)
    assert geometry.slice_axis == nifti_geometry.slice_axis


def test_cosines_that_itk_refuses(tmp_path):
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    affine[0, 1] = 0.1
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.float32), affine), tmp_path / "a.nii.gz")
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    assert read_image([tmp_path / "a.nii.gz"])[1].shape == (5, 4, 3)


def test_nifti_units(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.float32), np.diag([500.0, 500.0, 500.0, 1.0]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert read_image([tmp_path / "a.nii.gz"])[1].spacing_mm == pytest.approx((0.5, 0.5, 0.5))


# What is wrong with a case: one line each.


def _case(folder):
    dataset = open_dataset(folder)
    return read_case(dataset.cases[0], dataset)


@pytest.fixture
def folder(tmp_path):
    return write_raw_dataset(tmp_path / "d", n_cases=1)


def _refused(folder, message, capfd):
    with pytest.raises(InputError, match=message) as caught:
        _case(folder)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".tif", ".png"])
@pytest.mark.parametrize("share", [0.6, 0.0])
def test_truncated_file(tmp_path, ending, share, capfd):
    folder = write_raw_dataset(tmp_path / "d", n_cases=1, file_ending=ending)
    truncate(folder / f"imagesTr/case_00_0000{ending}", share)
    _refused(folder, "case_00_0000.* expected a whole, readable volume, got '", capfd)


def test_truncated_label(folder, capfd):
    truncate(folder / "labelsTr/case_00.nii.gz", 0.9)
    _refused(folder, "labelsTr/case_00.nii.gz: expected a whole, readable volume, got 'Compressed file ended", capfd)


def test_label_of_another_shape(folder, capfd):
    write_volume(folder / "labelsTr/case_00.nii.gz", box_label((9, 10, 12)))
    _refused(folder, "labelsTr.*expected the image's shape 12x10x8, got 12x10x9", capfd)


def test_label_of_another_spacing(folder, capfd):
    write_volume(folder / "labelsTr/case_00.nii.gz", box_label(), spacing_mm=(1.0, 1.0, 1.01))
    _refused(folder, r"labelsTr.*expected the image's spacing 1x1x1 mm, got 1\.01x1x1 mm", capfd)


def test_channels_of_different_shape(tmp_path, capfd):
    folder = write_raw_dataset(tmp_path / "d", n_cases=1, n_channels=2)
    write_volume(folder / "imagesTr/case_00_0001.nii.gz", box_image(box_label((9, 10, 12))))
    _refused(folder, "case_00_0001.nii.gz: expected the image's shape 12x10x8, got 12x10x9", capfd)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers(folder, value, capfd):
    image = box_image(box_label())
    image[0, 0, :2] = value
    write_volume(folder / "imagesTr/case_00_0000.nii.gz", image)
    _refused(folder, "expected finite numbers in every voxel, got 2 NaN or infinite", capfd)


def test_value_that_float32_cannot_hold(folder, capfd):
    write_volume(folder / "imagesTr/case_00_0000.nii.gz", np.full((8, 10, 12), 1e300))
    _refused(folder, "got 960 NaN or infinite", capfd)


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_label_that_is_no_whole_number(folder, value, capfd):
    label = box_label().astype(np.float32)
    label[0, 0, 0] = value
    write_volume(folder / "labelsTr/case_00.nii.gz", label)
    _refused(folder, f"expected whole numbers as labels, got 1 voxels like {value:g}", capfd)


@pytest.mark.parametrize(("dtype", "value"), [(np.uint8, 7), (np.int16, -1), (np.uint32, 2**31 - 1)])
def test_label_outside_dataset_json(folder, dtype, value, capfd):
    label = box_label().astype(dtype)
    label[0, 0, 0] = value
    write_volume(folder / "labelsTr/case_00.nii.gz", label)
    _refused(folder, f"expected only the labels of dataset.json \\(0 to 2\\), got {value};", capfd)


def test_too_few_channels(folder, capfd):
    edit_dataset_json(folder, channel_names={"0": "T1", "1": "T2"})
    _refused(folder, r"expected 2 channels \(T1, T2\), got 1", capfd)


def test_complex_numbers(folder, capfd):
    volume = np.zeros((12, 10, 8), np.complex64)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / "imagesTr/case_00_0000.nii.gz")
    _refused(folder, "expected one real number a voxel, got complex64", capfd)


def test_affine_without_three_axes(folder, capfd):
    path = folder / "imagesTr/case_00_0000.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((12, 10, 8), np.float32), np.eye(4)), path)
    header = bytearray(gzip.decompress(path.read_bytes()))
    header[312:328] = bytes(16)  # srow_z
    path.write_bytes(gzip.compress(header))
    _refused(folder, "expected an affine with three axes", capfd)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.nii\.gz: expected a whole, readable volume, got 'No such file"):
        read_image([tmp_path / "nowhere.nii.gz"])
    with pytest.raises(InputError, match=r"a\.txt: expected a volume"):
        read_image([tmp_path / "a.txt"])


def test_bad_tiff_spacing(tmp_path, capfd):
    folder = write_raw_dataset(tmp_path / "d", n_cases=1, file_ending=".tif")
    (folder / "imagesTr/case_00.json").write_text(json.dumps({"spacing": [1, 0, 1]}))
    _refused(folder, r"got 'spacing \[1, 0, 1\] in case_00.json'", capfd)


# What is legal.


def test_empty_label_is_legal(folder):
    write_volume(folder / "labelsTr/case_00.nii.gz", np.zeros((8, 10, 12), np.uint8))
    assert not _case(folder).label.any()


def test_labels_as_floats_are_legal(folder):
    write_volume(folder / "labelsTr/case_00.nii.gz", box_label().astype(np.float64))
    label = _case(folder).label
    assert label.dtype == np.int16
    np.testing.assert_array_equal(label, box_label())


def test_case_without_label(tmp_path):
    folder = write_raw_dataset(tmp_path / "d", n_cases=1, labels=False)
    assert _case(folder).label is None


def test_other_header_of_the_label_is_a_warning_and_voxels_go_by_index(folder):
    """nnU-Net trains on such cases (LiTS case 53 is one), pairing voxels by their index."""
    write_volume(
        folder / "labelsTr/case_00.nii.gz", box_label(), origin_mm=(5.0, 0.0, 0.0), direction=np.diag([-1, -1, 1])
    )
    case = _case(folder)
    np.testing.assert_array_equal(case.label, box_label())
    assert len(case.warnings) == 2
    assert "direction is not that of the image" in case.warnings[0]
    assert "origin is not that of the image" in case.warnings[1]


def test_readers_that_reorient_pair_voxels_by_position(folder):
    """With nnU-Net's *WithReorient readers a flipped file with a flipped header is the same label."""
    flipped = np.ascontiguousarray(box_label()[:, ::-1, ::-1])
    write_volume(
        folder / "labelsTr/case_00.nii.gz", flipped, origin_mm=(11.0, 9.0, 0.0), direction=np.diag([-1, -1, 1])
    )
    np.testing.assert_array_equal(_case(folder).label, flipped)
    edit_dataset_json(folder, overwrite_image_reader_writer="NibabelIOWithReorient")
    case = _case(folder)
    np.testing.assert_array_equal(case.label, box_label())
    assert case.warnings == ()


def test_read_label_on_the_grid_of_another(tmp_path):
    write_volume(tmp_path / "reference.nii.gz", box_label(), spacing_mm=(2.0, 1.0, 1.0))
    _, geometry = read_label(tmp_path / "reference.nii.gz")
    label, same = read_label(tmp_path / "reference.nii.gz", like=geometry)
    np.testing.assert_array_equal(label, box_label())
    assert same == geometry
    write_volume(tmp_path / "other.nii.gz", box_label())
    with pytest.raises(InputError, match="expected the image's spacing"):
        read_label(tmp_path / "other.nii.gz", like=geometry)


def test_real_data(real_data):
    """Eight-millimetre MR slices are axial; every case of the two data sets can be read."""
    for name, n_cases in (("chaos_t2/Dataset020_CHAOST2", 8), ("hippocampus/Dataset004_Hippocampus", 80)):
        dataset = open_dataset(real_data / name)
        cases = [read_case(case, dataset) for case in dataset.cases]
        assert len(cases) == n_cases
        assert {case.geometry.slice_axis for case in cases} == {"S"}
        assert not any(case.warnings for case in cases)
        assert all(case.label.any() for case in cases)


def test_real_fault_whole_head_behind_a_crop(real_data, tmp_path):
    """A label whose image is a whole-head volume is refused by its shape."""
    good = real_data / "hippocampus/Dataset004_Hippocampus/imagesTr/hippocampus_003_0000.nii.gz"
    _, geometry = read_image([good])
    with pytest.raises(InputError, match="expected the image's shape"):
        read_label(real_data / "faulty/hippocampus_010_label.nii.gz", like=geometry)
