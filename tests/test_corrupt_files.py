"""The files of a data set made dirty: every format keeps its header, axes and type, and nnU-Net reads what we read."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # its usual name
from dirty_datasets import SHAPE, source_of, written
from phantoms import box_image, box_label, edit_dataset_json, write_raw_dataset, write_volume

from auvtool.corrupting import plan_corruption
from auvtool.dataset import open_dataset
from auvtool.faults import put_fault
from auvtool.volume import read_case

ENDINGS = [".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".tif", ".tiff", ".png", ".bmp"]


@pytest.mark.parametrize("kind", ["gaussian-noise", "dilated"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_nnunet_reads_what_we_read(tmp_path: Path, ending: str, kind: str) -> None:
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    flat = ending in {".png", ".bmp"}
    shape = (1, 16, 20) if flat else SHAPE
    source = source_of(tmp_path, n_cases=2, file_ending=ending, shape=shape, spacing_mm=(3.0, 1.5, 2.0))
    if flat:
        for number, case in enumerate(source.cases):
            label = np.zeros(shape, np.uint8)
            label[0, 4:10, 5:12], label[0, 12:15, 14:19] = 1, 2
            write_volume(case.images[0], box_image(label, seed=number))
            write_volume(case.label, label)
    dirty, _ = written(source, share=1.0, kinds=[kind], level="high")
    case = dirty.cases[1]
    reader = determine_reader_writer_from_dataset_json(dirty.raw, str(case.images[0]), verbose=False)()
    image, facts = reader.read_images([str(path) for path in case.images])
    label, _ = reader.read_seg(str(case.label))
    volume = read_case(case, dirty)
    assert np.sort(image.ravel()).tolist() == np.sort(volume.image.ravel()).tolist()
    assert np.sort(label.ravel()).tolist() == np.sort(volume.label.ravel()).tolist()
    clean_image, clean_facts = reader.read_images([str(path) for path in source.cases[1].images])
    assert facts["spacing"] == clean_facts["spacing"]
    assert image.shape == clean_image.shape
    if flat:
        assert case.images[0].suffix == ending
    expected = put_fault(
        read_case(source.cases[1], source),
        plan_corruption(source, tmp_path / "Dataset003_X", share=1.0, kinds=[kind], level="high").dirty[1].faults[0],
        source,
    ).volume
    np.testing.assert_allclose(
        volume.image,
        np.clip(np.rint(expected.image), 0, 65535 if ending == ".png" else 255) if flat else expected.image,
    )
    np.testing.assert_array_equal(volume.label, expected.label)


def test_the_header_and_the_axes_are_those_of_the_file(tmp_path: Path) -> None:
    """A coronal scan, oblique, with its axes turned and a sagittal origin; SimpleITK sees the same geometry."""
    folder = write_raw_dataset(tmp_path / "Dataset001_All", n_cases=2)
    turn = np.array([[0.0, 0.8, 0.6], [1.0, 0.0, 0.0], [0.0, 0.6, -0.8]])
    for number in range(2):
        places = (folder / f"imagesTr/case_{number:02d}_0000.nii.gz", folder / f"labelsTr/case_{number:02d}.nii.gz")
        label = box_label()
        for path, voxels in zip(places, (box_image(label, seed=number), label), strict=True):
            write_volume(path, voxels, spacing_mm=(1.0, 4.0, 1.5), origin_mm=(-7.0, 20.0, 3.0), direction=turn)
    source = open_dataset(folder)
    dirty, _ = written(source, share=1.0, kinds=["truncated-view", "missing-slices"], level="high")
    changed = {
        "image": [
            (old.images[0], new.images[0])
            for old, new in zip(source.cases, dirty.cases, strict=True)
            if old.images != new.images
        ],
        "label": [
            (old.label, new.label) for old, new in zip(source.cases, dirty.cases, strict=True) if old.label != new.label
        ],
    }
    for pairs in changed.values():
        ((old, new),) = pairs
        before, after = sitk.ReadImage(str(old)), sitk.ReadImage(str(new))
        for facts in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection", "GetPixelIDTypeAsString"):
            assert getattr(before, facts)() == getattr(after, facts)()
        same = sitk.GetArrayFromImage(before) == sitk.GetArrayFromImage(after)
        assert 0.4 < same.mean() < 1.0  # the part that the fault spared lies where it lay


@pytest.mark.parametrize(
    ("kind", "stored", "expected"),
    [
        ("gaussian-noise", np.int16, "int16"),
        ("gaussian-noise", np.uint8, "int16"),  # noise in the air is negative
        ("blur", np.uint8, "uint8"),
        ("wrong-units", np.uint8, "int16"),
        ("wrong-units", np.int16, "int16"),
        ("gaussian-noise", np.float64, "float32"),
    ],
)
def test_integers_stay_integers(tmp_path: Path, kind: str, stored: type, expected: str) -> None:
    import nibabel

    source = source_of(tmp_path, n_cases=1)
    write_volume(
        source.cases[0].images[0],
        np.rint(np.maximum(box_image(box_label(SHAPE)), 0)).astype(stored),
        spacing_mm=(1, 1, 1),
    )
    dirty, _ = written(source, share=1.0, kinds=[kind], level="high")
    image = nibabel.load(dirty.cases[0].images[0])
    assert image.get_data_dtype() == expected
    assert image.dataobj.slope == 1.0
    if expected != "float32":
        volume, plan = (
            read_case(source.cases[0], source),
            plan_corruption(source, tmp_path / "Dataset003_X", share=1.0, kinds=[kind], level="high"),
        )
        faulty = put_fault(volume, plan.dirty[0].faults[0], source)
        np.testing.assert_array_equal(read_case(dirty.cases[0], dirty).image, np.rint(faulty.volume.image))


def test_a_scaled_nifti_is_stored_unscaled(tmp_path: Path) -> None:
    import nibabel

    source = source_of(tmp_path, n_cases=1)
    path = source.cases[0].images[0]
    image = nibabel.load(path)
    scaled = nibabel.Nifti1Image(np.rint(image.get_fdata()).astype(np.int16), image.affine)
    scaled.header.set_slope_inter(0.5, -3.0)
    scaled.to_filename(path)
    dirty, _ = written(source, share=1.0, kinds=["contrast"], level="high")
    after, before = read_case(dirty.cases[0], dirty).image, read_case(source.cases[0], source).image
    np.testing.assert_allclose(after, before.mean() + 0.5 * (before - before.mean()), rtol=1e-4, atol=1e-4)


def test_all_channels_in_one_file(tmp_path: Path) -> None:
    import nibabel

    source = source_of(tmp_path, n_cases=1, n_channels=2)
    first, second = (nibabel.load(path) for path in source.cases[0].images)
    joined = np.stack([first.get_fdata(dtype=np.float32), second.get_fdata(dtype=np.float32)], axis=-1)
    nibabel.Nifti1Image(joined, first.affine).to_filename(source.cases[0].images[0])
    source.cases[0].images[1].unlink()
    source = open_dataset(source.folder)
    dirty, _ = written(source, share=1.0, kinds=["blur"], level="low")
    assert len(dirty.cases[0].images) == 1
    assert read_case(dirty.cases[0], dirty).image.shape == (2, *SHAPE)


def test_readers_that_reorient_lay_each_file_by_its_own_header(tmp_path: Path) -> None:
    source = source_of(tmp_path, n_cases=1)
    edit_dataset_json(source.folder, overwrite_image_reader_writer="NibabelIOWithReorient")
    label_path = source.cases[0].label
    flipped = np.diag([-1.0, 1.0, 1.0])
    write_volume(label_path, box_label(SHAPE)[:, :, ::-1], origin_mm=(SHAPE[2] - 1.0, 0.0, 0.0), direction=flipped)
    source = open_dataset(source.folder)
    clean = read_case(source.cases[0], source)
    np.testing.assert_array_equal(clean.label > 0, clean.image[0] > 50)
    dirty, _ = written(source, share=1.0, kinds=["swapped-classes"])
    volume = read_case(dirty.cases[0], dirty)
    np.testing.assert_array_equal(volume.label > 0, clean.label > 0)
    np.testing.assert_array_equal(volume.label == 1, clean.label == 2)
    assert sitk.ReadImage(str(dirty.cases[0].label)).GetDirection()[0] == -1.0


def test_nnunet_verifies_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from multiprocessing.dummy import Pool

    from nnunetv2.experiment_planning import verify_dataset_integrity as verify

    dirty, _ = written(source_of(tmp_path, n_cases=6, n_channels=2), share=0.7)

    class Threads:
        """Its two processes as threads: each process would import nnU-Net anew."""

        @staticmethod
        def get_context(method: str) -> object:
            return type("Context", (), {"Pool": staticmethod(Pool)})

    monkeypatch.setattr(verify, "multiprocessing", Threads)
    verify.verify_dataset_integrity(str(dirty.folder), num_processes=1)
    assert "verify_dataset_integrity Done" in capsys.readouterr().out
