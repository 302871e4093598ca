"""Public data sets in miniature made into nnU-Net raw data sets: labels, channels, splits, and every quirk."""

import json
import shutil
from pathlib import Path

import downloads
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # its usual name
from downloads import AFFINE, IDENTITY, image_of, label_of, write
from phantoms import truncate

from auvtool.cases import Dataset
from auvtool.cli.convert import Name
from auvtool.conversion import ConversionResult, write_converted_dataset
from auvtool.conversion_plan import plan_conversion
from auvtool.converters import CONVERTERS, ConverterName
from auvtool.converters.totalsegmentator_classes import V1, V2
from auvtool.dataset import open_dataset
from auvtool.errors import InputError
from auvtool.volume import read_case


def converted(name: ConverterName, source: Path, **options: object) -> tuple[Dataset, ConversionResult]:
    folder = source.parent / "Dataset042_Tiny"
    result = write_converted_dataset(plan_conversion(name, source, folder, **options), options={})
    return open_dataset(folder), result


def quirks_of(result: ConversionResult) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in result.quirks:
        found.setdefault(str(row["quirk"]), []).append(str(row["case"]))
    return found


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def check_labels(dataset: Dataset, planted: dict[str, np.ndarray]) -> None:
    """Every training label voxel by voxel, on the very grid of its image, and its image as it was."""
    assert [case.case_id for case in dataset.cases] == sorted(planted)
    for case in dataset.cases:
        assert case.label is not None
        np.testing.assert_array_equal(voxels(case.label), planted[case.case_id])
        np.testing.assert_array_equal(nibabel.load(case.label).affine, nibabel.load(case.images[0]).affine)
        np.testing.assert_array_equal(voxels(case.images[0]) > 60, planted[case.case_id] > 0)
        volume = read_case(case, dataset)
        assert volume.warnings == ()
        np.testing.assert_array_equal(np.unique(volume.label), np.unique(planted[case.case_id]))


def verify(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from multiprocessing.dummy import Pool

    from nnunetv2.experiment_planning import verify_dataset_integrity as nnunet

    class Threads:
        """Its processes as threads: each process would import nnU-Net anew."""

        @staticmethod
        def get_context(method: str) -> object:
            return type("Context", (), {"Pool": staticmethod(Pool)})

    monkeypatch.setattr(nnunet, "multiprocessing", Threads)
    nnunet.verify_dataset_integrity(str(dataset.folder), num_processes=1)
    said = capsys.readouterr().out
    assert "verify_dataset_integrity Done" in said
    assert "arning" not in said


def test_the_command_names_every_converter() -> None:
    assert [name.value for name in Name] == list(CONVERTERS)


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("name", list(CONVERTERS))
def test_nnunet_verifies_it(
    name: ConverterName,
    link: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parts = {"s0000": "train", "s0001": "train", "s0002": "val", "s0003": "test"}
    makers = {
        "lits": lambda: downloads.lits(tmp_path / "lits"),
        "totalsegmentator": lambda: downloads.totalsegmentator(tmp_path / "ts", (*V1[:40], "face"), parts),
        "word": lambda: downloads.word(tmp_path / "word"),
        "feta": lambda: downloads.feta(tmp_path / "feta"),
        "kits23": lambda: downloads.kits23(tmp_path),
        "msd": lambda: downloads.msd(tmp_path, ("FLAIR", "T1w", "T2w")),
    }
    dataset, result = converted(name, makers[name](), link=link)
    assert result.failures == ()
    assert dataset.raw["numTraining"] == len(dataset.cases) == result.n_training
    assert ("dataset" in dataset.raw) is not link
    if link:
        assert all(case.images[0].parent == dataset.folder / "imagesTr" for case in dataset.cases)
    verify(dataset, monkeypatch, capsys)
    test = sorted(path.name for path in (dataset.folder / "imagesTs").iterdir())
    assert len(test) == result.n_test * len(dataset.channel_names)
    assert all(path.is_file() for path in (dataset.folder / "imagesTs").iterdir())


def test_lits(tmp_path: Path) -> None:
    source = downloads.lits(tmp_path / "lits")
    dataset, result = converted("lits", source, split="none")
    numbers = (0, 1, 2, 27, 28, 53)
    check_labels(dataset, {f"lits_{number:03d}": label_of(number, 2) for number in numbers})
    assert [semantic.name for semantic in dataset.classes] == ["liver", "tumor"]
    assert dataset.channel_names == ("CT",)
    # Only the label whose header had to change was written.
    written = [path.name for path in dataset.folder.rglob("*.nii") if not path.is_symlink()]
    assert written == ["lits_053.nii"]
    assert quirks_of(result) == {
        "orientation-LPS": [f"lits_{number:03d}" for number in numbers if number != 28],
        "orientation-RAS": ["lits_028"],
        "unit-spacing": ["lits_028"],
        "label-header": ["lits_053"],
    }


def test_lits_test_scans_have_no_labels(tmp_path: Path) -> None:
    dataset, result = converted("lits", downloads.lits(tmp_path / "lits"), split="own")
    assert [path.name for path in (dataset.folder / "imagesTs").iterdir()] == ["lits_test_000_0000.nii"]
    assert not (dataset.folder / "labelsTs").exists()
    assert (result.n_training, result.n_test) == (6, 1)


def test_lits_files_without_a_partner_or_with_two(tmp_path: Path) -> None:
    source = downloads.lits(tmp_path / "lits")
    (source / "Training Batch 1/segmentation-1.nii").unlink()
    (source / "Training Batch 2/volume-28.nii").unlink()
    shutil.copy(source / "Training Batch 1/volume-2.nii", source / "volume-2.nii")
    write(source / "Training Batch 1/volume-27.nii", np.zeros((4, 4, 4), np.int16))
    (source / "Training Batch 2/volume-53.nii").write_bytes(b"")
    dataset, result = converted("lits", source, split="none")
    assert [case.case_id for case in dataset.cases] == ["lits_000"]
    errors = {str(row["case"]): str(row["error"]) for row in result.failures}
    assert sorted(errors) == ["lits_001", "lits_002", "lits_027", "lits_028", "lits_053"]
    assert "expected one file segmentation-1.nii, got none" in errors["lits_001"]
    assert "got Training Batch 1/volume-2.nii and volume-2.nii; leave one of them" in errors["lits_002"]
    assert "expected the image's shape 4x4x4, got 8x9x6" in errors["lits_027"]
    assert "expected one file volume-28.nii, got none" in errors["lits_028"]
    assert "expected a whole, readable volume" in errors["lits_053"]


def test_endings_that_differ(tmp_path: Path) -> None:
    """nnU-Net copies references under the one ending of dataset.json."""
    source = downloads.lits(tmp_path / "lits")
    write(source / "Training Batch 1/volume-1.nii.gz", image_of(label_of(1, 2)))
    (source / "Training Batch 1/volume-1.nii").unlink()
    dataset, result = converted("lits", source)
    assert dataset.file_ending == ".nii"
    assert "a name that ends in .nii, as most files" in str(result.failures[0]["error"])


FLIPPED = AFFINE @ np.array([[-1.0, 0, 0, 7], [0, 1, 0, 0], [0, 0, -1, 5], [0, 0, 0, 1]])  # SHAPE less one


@pytest.mark.parametrize(
    ("image_affine", "label_affine", "flips", "quirk"),
    [
        (AFFINE, AFFINE + 1e-7, False, None),
        (AFFINE, IDENTITY, False, "label-header"),
        (IDENTITY, AFFINE, False, "image-header"),
        (AFFINE, FLIPPED, True, "label-axes"),  # one place in space, other axes
        (AFFINE, AFFINE @ np.diag([-1.0, 1, 1, 1]), False, "headers-differ"),  # other axes, and another place
        (AFFINE, AFFINE @ np.diag([1.0, 1, 0.5, 1]), False, "headers-differ"),
        (AFFINE, AFFINE * np.array([1.00002, 1, 1, 1]), False, "headers-differ"),  # which nnU-Net refuses
    ],
)
def test_image_and_label_come_to_lie_on_one_grid(
    tmp_path: Path, image_affine: np.ndarray, label_affine: np.ndarray, flips: bool, quirk: str | None
) -> None:
    source, label = downloads.lits(tmp_path / "lits", numbers=(0, 1), test=()), label_of(0, 2)
    write(source / "Training Batch 1/volume-0.nii", image_of(label), image_affine)
    write(source / "Training Batch 1/segmentation-0.nii", label[::-1, :, ::-1] if flips else label, label_affine)
    dataset, result = converted("lits", source, split="none")
    case = dataset.cases[0]
    np.testing.assert_array_equal(voxels(case.label), label)
    np.testing.assert_array_equal(voxels(case.images[0]), image_of(label))
    expected = label_affine if quirk == "image-header" else image_affine
    for path in (case.images[0], case.label):
        np.testing.assert_allclose(nibabel.load(path).affine, expected, atol=1e-4)
    seen = [sitk.ReadImage(str(path)) for path in (case.images[0], case.label)]
    np.testing.assert_allclose(seen[0].GetOrigin(), seen[1].GetOrigin(), atol=1e-3)
    assert seen[0].GetDirection() == pytest.approx(seen[1].GetDirection(), abs=1e-6)
    found = {name for name, ids in quirks_of(result).items() if "lits_000" in ids and not name.startswith("orient")}
    assert found == ({quirk} if quirk else set())


def test_voxel_sizes_beside_one_affine_that_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """nnU-Net's nibabel readers take them for the spacing, and refuse the case."""
    source = downloads.kits23(tmp_path, n_cases=2)
    path = source / "dataset/case_00000/segmentation.nii.gz"
    image = nibabel.load(path)
    changed = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
    changed.header["pixdim"][1:4] = 1.0
    changed.to_filename(path)
    assert nibabel.load(path).header.get_zooms() == (1.0, 1.0, 1.0)
    dataset, result = converted("kits23", source, split="none")
    assert quirks_of(result)["headers-differ"] == ["case_00000"]
    verify(dataset, monkeypatch, capsys)


@pytest.mark.parametrize(("structures", "version"), [(V1, 1), (V2, 2)])
def test_totalsegmentator(tmp_path: Path, structures: tuple[str, ...], version: int) -> None:
    assert (len(V1), len(V2), len(set(V1) & set(V2))) == (104, 117, 97)
    parts = {"s0000": "train", "s0044": "train", "s0092": "val", "s0100": "test"}
    source = downloads.totalsegmentator(tmp_path / "ts", structures, parts, overlap=("s0044",))
    dataset, result = converted("totalsegmentator", source)
    ids = list(parts)
    planted = {case_id: label_of(number, len(structures)) for number, case_id in enumerate(ids)}
    check_labels(dataset, {case_id: planted[case_id] for case_id in ids[:3]})  # where two overlap, the later one wins
    assert [semantic.name for semantic in dataset.classes] == list(structures)
    assert [semantic.class_id for semantic in dataset.classes] == list(range(1, len(structures) + 1))
    assert dataset.raw["overwrite_image_reader_writer"] == "NibabelIOWithReorient"
    np.testing.assert_array_equal(voxels(dataset.folder / "labelsTs/s0100.nii.gz"), planted["s0100"])
    assert (dataset.folder / "imagesTs/s0100_0000.nii.gz").is_symlink()
    splits = json.loads((dataset.folder / "splits_final.json").read_text())
    assert splits == [{"train": ["s0000", "s0044"], "val": ["s0092"]}]
    assert quirks_of(result) == {
        "masks-overlap": ["s0044"],
        "reported": ["s0044"] if version == 1 else ["s0092"],
    }
    overlap = next(row["detail"] for row in result.quirks if row["quirk"] == "masks-overlap")
    assert overlap == f"{np.count_nonzero(planted['s0044'] == 2)} voxels"


def test_quirks_of_totalsegmentator(tmp_path: Path) -> None:
    """Masks missing, unknown, empty or on another grid; direction cosines that SimpleITK refuses; meta.csv."""
    ids = [f"s{number:04d}" for number in range(8)]
    source = downloads.totalsegmentator(tmp_path / "ts", V2[:6], dict.fromkeys(ids, "train"))
    (source / "s0001/segmentations/liver.nii.gz").unlink()
    write(source / "s0001/segmentations/left_horn.nii.gz", np.zeros(downloads.SHAPE, np.uint8))
    for path in (source / "s0002/segmentations").iterdir():
        write(path, np.zeros(downloads.SHAPE, np.uint8), np.diag([1.5, 1.5, 1.5, 1.0]))
    write(source / "s0003/segmentations/spleen.nii.gz", (label_of(3, 6) == 1).astype(np.uint8), AFFINE)
    skewed = np.diag([1.5, 1.5, 1.5, 1.0])
    skewed[0, 1] = 0.01
    for path in (source / "s0004/ct.nii.gz", *(source / "s0004/segmentations").iterdir()):
        image = nibabel.Nifti1Image(voxels(path), None)
        image.set_sform(skewed, 1)
        image.to_filename(path)
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(source / "s0004/ct.nii.gz"))
    truncate(source / "s0005/ct.nii.gz")
    write(source / "s0006/segmentations/liver.nii.gz", np.zeros((4, 4, 4), np.uint8))
    shutil.rmtree(source / "s0007/segmentations")
    meta = source / "meta.csv"
    meta.write_text(meta.read_text() + "s0555;60;m;A;ct abdomen;train\n")
    dataset, result = converted("totalsegmentator", source)
    assert quirks_of(result) == {
        "masks-missing": ["s0000", *ids[1:5]],
        "masks-unknown": ["s0001"],
        "label-empty": ["s0002"],
        "masks-off-grid": ["s0003"],
        "not-orthonormal": ["s0004"],
    }
    missing = next(row for row in result.quirks if row["case"] == "s0001" and row["quirk"] == "masks-missing")
    assert "liver" in str(missing["detail"]).split()
    assert [row["case"] for row in result.failures] == ["s0005", "s0006", "s0007"]
    assert "8x9x6" in str(result.failures[1]["error"])
    without_liver = np.where(label_of(1, 6) == 5, 0, label_of(1, 6))
    np.testing.assert_array_equal(voxels(dataset.folder / "labelsTr/s0001.nii.gz"), without_liver)
    plan = plan_conversion("totalsegmentator", source, tmp_path / "Dataset043_Again")
    assert any("1 cases of meta.csv have no folder" in note for note in plan.notes)


def test_totalsegmentator_without_its_table(tmp_path: Path) -> None:
    source = downloads.totalsegmentator(tmp_path / "ts", V1[:6], {"s0000": "train", "s0001": "train"})
    (source / "meta.csv").unlink()
    with pytest.raises(InputError, match=r"got none \(there is no .*meta.csv\); get that file, or choose"):
        converted("totalsegmentator", source)
    assert converted("totalsegmentator", source, split="random")[1].n_test == 1
    (source / "s0000/segmentations/face.nii.gz").touch()
    (source / "s0001/segmentations/skull.nii.gz").touch()
    with pytest.raises(InputError, match="face of version 1 and skull of version 2"):
        plan_conversion("totalsegmentator", source, tmp_path / "Dataset043_Both", split="none")


def test_word(tmp_path: Path) -> None:
    source = downloads.word(tmp_path / "word")
    dataset, result = converted("word", source, split="own")
    check_labels(dataset, {f"word_{number:04d}": label_of(number, 16) for number in range(1, 8)})
    assert [semantic.name for semantic in dataset.classes][-2:] == ["Head_of_femur_L", "Head_of_femur_R"]
    assert len(dataset.classes) == 16
    assert quirks_of(result) == {"val-merged": ["word_0006", "word_0007"]}
    assert json.loads((dataset.folder / "splits_final.json").read_text())[0]["val"] == ["word_0006", "word_0007"]
    assert sorted(path.name for path in (dataset.folder / "labelsTs").iterdir()) == [
        "word_0008.nii.gz",
        "word_0009.nii.gz",
    ]
    np.testing.assert_array_equal(voxels(dataset.folder / "labelsTs/word_0008.nii.gz"), label_of(8, 16))
    # The paper's 120 cases are those of Tr and Val.
    plan = plan_conversion("word", source, tmp_path / "Dataset043_Paper")
    assert (len(plan.cases), plan.n_test) == (7, 1)
    assert any("2 published test cases are left out" in note for note in plan.notes)


def test_word_files_without_a_partner(tmp_path: Path) -> None:
    source = downloads.word(tmp_path / "word")
    (source / "WORD-V0.1.0/labelsTr/word_0002.nii.gz").unlink()
    (source / "WORD-V0.1.0/imagesVal/word_0006.nii.gz").unlink()
    _, result = converted("word", source)
    assert [(row["case"], row["step"]) for row in result.failures] == [
        ("word_0002", "convert"),
        ("word_0006", "convert"),
    ]
    assert "labelsTr/word_0002.nii.gz: expected a file in labelsTr, got none" in str(result.failures[0]["error"])


def test_feta(tmp_path: Path) -> None:
    source = downloads.feta(tmp_path / "feta_2.2")
    (source / "sub-002/anat/sub-002_rec-mial_dseg.nii.gz").unlink()
    dataset, result = converted("feta", source, split="none")
    ids = {1: "mial", 3: "mial", 4: "mial", 5: "irtk", 6: "irtk"}
    check_labels(dataset, {f"sub-{number:03d}_rec-{way}": label_of(number, 7) for number, way in ids.items()})
    assert not list(dataset.folder.rglob("*.nii.gz"))  # nothing is written
    assert dataset.channel_names == ("T2w",)
    assert dataset.classes[0].name == "external_cerebrospinal_fluid"
    assert {name: len(ids) for name, ids in quirks_of(result).items()} == {
        "reconstruction-mial": 3,
        "reconstruction-irtk": 2,
    }
    assert [row["case"] for row in result.failures] == ["sub-002_rec-mial"]


def test_kits23(tmp_path: Path) -> None:
    source = downloads.kits23(tmp_path)
    (source / "dataset/case_00002/imaging.nii.gz").unlink()
    dataset, result = converted("kits23", source, split="none")
    check_labels(dataset, {f"case_{number:05d}": label_of(number, 3) for number in (0, 1, 3, 4)})
    assert [(semantic.name, semantic.labels) for semantic in dataset.classes] == [
        ("kidney_and_mass", (1, 2, 3)),
        ("mass", (2, 3)),
        ("tumor", (2,)),
    ]
    assert dataset.raw["regions_class_order"] == [1, 3, 2]
    assert read_case(dataset.cases[0], dataset).geometry.spacing_mm[0] == pytest.approx(3.0)  # the slice axis
    assert set(quirks_of(result)) == {"slices-first", "not-512"}
    (failure,) = result.failures
    assert "imaging.nii.gz: expected the image beside its label, got no such file; the repository holds labels" in str(
        failure["error"]
    )


def test_kits23_cloned_but_not_downloaded(tmp_path: Path) -> None:
    source = downloads.kits23(tmp_path)
    for path in source.rglob("imaging.nii.gz"):
        path.unlink()
    with pytest.raises(InputError, match=r"got it in none of 5 case folders; .* run kits23_download_data"):
        plan_conversion("kits23", source, tmp_path / "Dataset220_KiTS23")


def test_msd_with_one_channel(tmp_path: Path) -> None:
    source = downloads.msd(tmp_path, ("ct",))
    write(source / "imagesTr/._tiny_000.nii.gz", np.zeros(downloads.SHAPE, np.uint8))
    write(source / "imagesTr/tiny_999.nii.gz", np.zeros(downloads.SHAPE, np.uint8))
    (source / "labelsTr/tiny_003.nii.gz").unlink()
    (source / "imagesTs/tiny_004.nii.gz").unlink()
    plan = plan_conversion("msd", source, tmp_path / "Dataset042_Tiny")
    assert any("1 images in imagesTr that dataset.json does not name" in note for note in plan.notes)
    assert any("1 test images of dataset.json are not there" in note for note in plan.notes)
    dataset, result = converted("msd", source)
    check_labels(dataset, {f"tiny_{number:03d}": label_of(number, 2) for number in range(3)})
    assert dataset.channel_names == ("CT",)  # as nnU-Net knows it
    assert not (dataset.folder / "imagesTr").exists()
    assert [row["case"] for row in result.failures] == ["tiny_003"]


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_msd_with_channels_in_the_last_axis(tmp_path: Path, kind: type) -> None:
    source = downloads.msd(tmp_path, ("FLAIR", "T1w"))
    path = source / "imagesTr/tiny_001.nii.gz"
    write(path, voxels(path).astype(kind))
    dataset, result = converted("msd", source)
    check_labels(dataset, {f"tiny_{number:03d}": label_of(number, 2) for number in range(4)})
    assert dataset.channel_names == ("FLAIR", "T1w")
    for channel, file in enumerate(dataset.cases[1].images):
        image = nibabel.load(file)
        assert image.shape == downloads.SHAPE
        assert image.get_data_dtype() == kind
        np.testing.assert_array_equal(np.asarray(image.dataobj), voxels(path)[..., channel])
        np.testing.assert_array_equal(image.affine, nibabel.load(path).affine)
    assert sorted(file.name for file in (dataset.folder / "imagesTs").iterdir()) == [
        "tiny_004_0000.nii.gz",
        "tiny_004_0001.nii.gz",
    ]
    assert result.failures == ()
