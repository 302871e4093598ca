"""Every rule of `auvtool check` by a planted fault: a clean data set gives nothing, each fault exactly its code."""

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # its usual name
from check_phantoms import (
    GEOMETRY,
    ODD,
    change,
    clean_case,
    ellipsoid,
    image_path,
    label_path,
    voxels_of,
    write_clean_dataset,
)
from phantoms import edit_dataset_json, truncate, write_volume

from auvtool.checking import check_dataset, finding_row
from auvtool.checks import RULES, Finding, chosen_codes
from auvtool.checks.files import survey
from auvtool.checks.sides import pairs_of_sides
from auvtool.errors import InputError, UsageError
from auvtool.workplace import Workplace


def check(folder: Path, **options: object) -> list[Finding]:
    return list(check_dataset(survey(folder), codes=chosen_codes(), **options))


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clean_dataset(tmp_path_factory.mktemp("clean") / "Dataset001_Clean")


@pytest.fixture
def folder(clean: Path, tmp_path: Path) -> Path:
    return shutil.copytree(clean, tmp_path / "Dataset001_Clean")


def test_a_clean_data_set_gives_nothing(clean: Path) -> None:
    assert check(clean) == []


def on_image(spoil: Callable[[np.ndarray], np.ndarray], **geometry: object) -> Callable[[Path], None]:
    return lambda folder: change(image_path(folder), spoil, **geometry)


def on_label(spoil: Callable[[np.ndarray], np.ndarray], **geometry: object) -> Callable[[Path], None]:
    return lambda folder: change(label_path(folder), spoil, **geometry)


def put(where: object, value: float, kind: type[np.generic] | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """Voxels with a value put in; `where` is a mask, an index, or a function of the voxels."""

    def spoil(voxels: np.ndarray) -> np.ndarray:
        spoilt = voxels.astype(kind) if kind else voxels.copy()
        spoilt[where(voxels) if callable(where) else where] = value
        return spoilt

    return spoil


def on_both(spoil: Callable[[np.ndarray], np.ndarray], **geometry: object) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        change(image_path(folder), spoil, **geometry)
        change(label_path(folder), spoil, **geometry)

    return plant


def same(voxels: np.ndarray) -> np.ndarray:
    return voxels


def rename(before: str, after: str) -> Callable[[Path], None]:
    return lambda folder: (folder / before).rename(folder / after)


def in_every_image(spoil: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        for path in sorted((folder / "imagesTr").iterdir()):
            change(path, spoil)

    return plant


def no_right_angles(folder: Path) -> None:
    for path in (image_path(folder), label_path(folder)):
        image = nibabel.load(path)
        affine = image.affine.copy()
        affine[0, 1] = 0.1
        nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj), affine), path)


def two_channels_in_a_file(folder: Path) -> None:
    image = nibabel.load(image_path(folder))
    voxels = np.asanyarray(image.dataobj)
    nibabel.save(nibabel.Nifti1Image(np.stack([voxels, voxels + 1], axis=-1), image.affine), image_path(folder))


def same_image(folder: Path) -> None:
    shutil.copy(image_path(folder, "case_05"), image_path(folder))


def same_label(folder: Path) -> None:
    shutil.copy(label_path(folder, "case_05"), label_path(folder))


def labels_exchanged(folder: Path) -> None:
    """Two cases on grids of their own, each with the label of the other."""
    for case_id, cut in ((ODD, 1), ("case_06", 2)):
        for path in (image_path(folder, case_id), label_path(folder, case_id)):
            change(path, lambda voxels, cut=cut: voxels[:, cut:])
    one, other = label_path(folder), label_path(folder, "case_06")
    one.rename(folder / "kept")
    other.rename(one)
    (folder / "kept").rename(other)


def swap(first: int, second: int) -> Callable[[np.ndarray], np.ndarray]:
    def spoil(label: np.ndarray) -> np.ndarray:
        swapped = label.copy()
        swapped[label == first], swapped[label == second] = second, first
        return swapped

    return spoil


def twice(voxels: np.ndarray) -> np.ndarray:
    return np.concatenate([voxels, voxels])


def another_phase(image: np.ndarray) -> np.ndarray:
    """The same slices again, brighter and with noise of their own."""
    noise = np.random.default_rng(9).normal(0.0, 3.0, image.shape)
    return np.concatenate([image, np.rint(image * 1.1 + noise).astype(np.int16)])


def with_background_again(label: np.ndarray) -> np.ndarray:
    return np.concatenate([label, np.zeros_like(label)])


def shrunk(label: np.ndarray) -> np.ndarray:
    small = np.where(label == 3, 0, label)
    small[ellipsoid((6.5, 22.0, 17.5), (1.6, 1.6, 1.6))] = 3
    return small


def hollow(label: np.ndarray) -> np.ndarray:
    hole = ellipsoid((6.5, 13.0, 25.0), (2.0, 1.5, 1.5))
    return np.where(hole & (label == 1), 0, label).astype(np.uint8)


def extended(label: np.ndarray) -> np.ndarray:
    """The spine cut where it is widest."""
    cut = label.copy()
    cut[:7][cut[:7] == 3] = 0
    return cut


def into_air(label: np.ndarray) -> np.ndarray:
    """The spine behind the patient's back, as far as the view goes."""
    moved = np.where(label == 3, 0, label)
    moved[ellipsoid((6.5, 27.5, 3.5), (4.6, 1.9, 3.2))] = 3
    return moved


def in_padding(image: np.ndarray) -> np.ndarray:
    padded = image.copy()
    padded[:, 20:] = -2000
    return padded


def a_whole_turn(folder: Path) -> None:
    """The label's voxels and header turned together: the header tells the truth, nnU-Net does not look at it."""
    label = sitk.ReadImage(str(label_path(folder)))
    sitk.WriteImage(sitk.Flip(label, [True, False, False], False), str(label_path(folder)))


PLANTED = [
    ("F001", lambda folder: edit_dataset_json(folder, file_ending=None)),
    ("F001", lambda folder: (folder / "dataset.json").write_text("{")),
    ("F001", lambda folder: edit_dataset_json(folder, labels={"background": 0, "kidney_left": 2})),
    ("F002", lambda folder: edit_dataset_json(folder, numTraining=9)),
    ("F003", rename(f"imagesTr/{ODD}_0000.nii.gz", f"imagesTr/{ODD}.nii.gz")),
    ("F004", rename(f"imagesTr/{ODD}_0000.nii.gz", f"imagesTr/{ODD}_0001.nii.gz")),
    ("F005", lambda folder: label_path(folder).unlink()),
    ("F006", lambda folder: shutil.copy(label_path(folder), label_path(folder, "case_99"))),
    ("F007", lambda folder: write_volume(folder / "imagesTr/case_99_0000.nrrd", clean_case(99)[0])),
    ("F008", lambda folder: truncate(image_path(folder))),
    ("F008", lambda folder: truncate(label_path(folder))),
    ("F008", lambda folder: label_path(folder).write_bytes(b"")),
    ("F009", lambda folder: shutil.rmtree(folder / "imagesTr")),
    ("F010", two_channels_in_a_file),
    ("G001", on_label(lambda label: label[:, 1:])),
    ("G002", on_label(same, spacing_mm=(3.0, 1.5, 1.6))),
    ("G003", on_label(same, origin_mm=(-40.0, 25.0, 311.0))),
    ("G004", on_label(same, direction=np.diag([-1.0, 1.0, 1.0]))),
    ("G004", a_whole_turn),
    ("G005", on_both(same, spacing_mm=(1.0, 1.0, 1.0))),
    ("G006", on_both(same, direction=np.diag([1.0, -1.0, 1.0]))),
    ("G007", on_both(same, spacing_mm=(3000.0, 1.5, 1.5))),
    ("G008", no_right_angles),
    ("I001", on_image(put((5, 3, 4), np.nan, np.float32))),
    ("I001", on_image(put((5, 3, 4), np.inf, np.float32))),
    ("I002", on_image(lambda image: np.full_like(image, 7))),
    ("I003", on_image(put(5, -1000))),
    ("I004", on_image(lambda image: image[[0, 1, 2, 2, *range(4, 14)]])),
    ("I005", lambda folder: (on_image(twice)(folder), on_label(with_background_again)(folder))),
    ("I006", on_image(lambda image: image + 1024)),
    ("I006", on_image(lambda image: np.clip(image / 4.0 + 60.0, 0, 255).astype(np.uint8))),
    ("I006", in_every_image(lambda image: np.clip(image / 4.0 + 60.0, 0, 255).astype(np.uint8))),
    ("I007", lambda folder: edit_dataset_json(folder, channel_names={"0": "scan"})),
    ("I008", lambda folder: (on_image(another_phase)(folder), on_label(with_background_again)(folder))),
    ("L001", on_label(put((5, 3, 4), 0.5, np.float32))),
    ("L001", on_label(put((5, 3, 4), np.nan, np.float32))),
    ("L002", on_label(put((5, 3, 4), 9))),
    ("L003", on_label(np.zeros_like)),
    ("L005", on_label(put((slice(6, 8), slice(None), slice(20, None)), 0))),
    ("L006", on_label(shrunk)),
    ("L007", on_label(put((slice(3, 5), slice(3, 5), slice(16, 19)), 2))),
    ("L008", on_label(hollow)),
    ("L009", on_label(extended)),
    ("L010", on_image(in_padding)),
    ("L011", on_label(swap(1, 3))),
    ("D001", same_image),
    ("D002", same_label),
    ("D003", labels_exchanged),
    ("D004", on_label(swap(1, 2))),
    (
        "D005",
        lambda folder: edit_dataset_json(
            folder, labels={"background": 0, "kidney_left": 1, "kidney_right": 2, "spine": 3, "bladder": 4}
        ),
    ),
]
# What a fault brings along: two exchanged labels do not fit their images, a gap leaves a class in two pieces, ....
BESIDE = {
    "G004": {"D004", "L011"},
    "G005": {"L006"},
    "G006": {"D004", "L011"},
    "G007": {"L006"},
    "L005": {"L007", "L009"},
    "L011": {"D004"},
    "D003": {"G001"},
    "D004": {"L011"},
}
COUNTS = {"D003": 2, "G008": 2}  # both cases, both files


@pytest.mark.parametrize(
    ("code", "plant"), PLANTED, ids=[f"{code}-{position}" for position, (code, _) in enumerate(PLANTED)]
)
def test_a_planted_fault_gives_its_code(code: str, plant: Callable[[Path], None], folder: Path) -> None:
    plant(folder)
    found = check(folder)
    codes = {finding.code for finding in found}
    assert code in codes
    assert codes <= {code} | BESIDE.get(code, set()), found
    of_code = [finding for finding in found if finding.code == code]
    assert len(of_code) == COUNTS.get(code, 1), of_code
    row = finding_row(of_code[0])
    assert row["what"]
    assert row["cure"]
    if row["case"] is not None and code not in {"F006", "D001", "D002", "D003"}:
        assert row["case"] == ODD
    assert "\n" not in "".join(str(cell) for cell in row.values())


def test_every_rule_is_planted() -> None:
    planted = {code for code, _ in PLANTED}
    # In tests of their own: what is out of the common in several ways, a worker that dies, a second channel.
    assert planted | {"L004", "F011", "D006"} == set(RULES)


def test_a_slip_of_the_pen(folder: Path) -> None:
    """A class of two voxels is reported in its case, and against the others."""
    on_label(lambda label: put((slice(4, 6), 3, 3), 3)(np.where(label == 3, 0, label).astype(np.uint8)))(folder)
    found = check(folder)
    assert {finding.code for finding in found} == {"L004", "L006", "L011"}
    few = next(finding for finding in found if finding.code == "L004")
    assert (few.class_name, few.what) == ("spine", "expected a structure, got 2 voxels of spine")


def test_the_slice_is_that_of_the_file(folder: Path) -> None:
    """Slices count as the file does, whichever way they go in the patient."""
    spoil = put((4, slice(0, 3), 5), np.nan, np.float32)
    on_image(spoil)(folder)
    assert [(finding.code, finding.place) for finding in check(folder)] == [("I001", 4)]
    for path in (image_path(folder), label_path(folder)):
        turned = {"direction": np.diag([1.0, 1.0, -1.0]), "origin_mm": (-40.0, 25.0, 349.0)}
        # SimpleITK reads the NaN of a NIfTI file as 0.
        change(path, lambda voxels, path=path: (spoil if "images" in str(path) else same)(voxels[::-1]), **turned)
    assert {finding.code: finding.place for finding in check(folder)} == {"I001": 4, "G006": None}


@pytest.mark.parametrize(
    ("spoil", "geometry", "verdict"),
    [
        (lambda label: label.transpose(0, 2, 1), {}, "the image's shape with its axes in the order 1, 0, 2"),
        (same, {"spacing_mm": (1, 1, 1), "origin_mm": (0, 0, 0)}, "its header holds no geometry"),
        (same, {"origin_mm": (-40.0, 25.0, 316.0)}, "got one off by 6 mm (0, 0, 2 voxels)"),
        (same, {"spacing_mm": (3.0, 1.5, 3.0)}, "expected the image's spacing 1.5x1.5x3 mm, got 3x1.5x3 mm"),
        (
            lambda label: label[:, ::-1],
            {"direction": np.diag([1.0, -1.0, 1.0]), "origin_mm": (-40.0, 25.0 + 1.5 * 29, 310.0)},
            "the same grid with its axes in another order or direction; reorder the voxels by the header",
        ),
    ],
)
def test_geometry_comes_with_a_verdict(
    folder: Path, spoil: Callable[[np.ndarray], np.ndarray], geometry: dict[str, object], verdict: str
) -> None:
    on_label(spoil, **geometry)(folder)
    told = [finding.what for finding in check(folder) if finding.code.startswith("G")]
    assert told
    assert any(verdict in what for what in told), told


def test_a_reader_that_reorients_is_believed(folder: Path) -> None:
    a_whole_turn(folder)
    edit_dataset_json(folder, overwrite_image_reader_writer="NibabelIOWithReorient")
    assert check(folder) == []
    on_both(same, direction=np.diag([1.0, -1.0, 1.0]))(folder)
    assert "G006" not in {finding.code for finding in check(folder)}


def test_a_reader_that_takes_any_axes(folder: Path) -> None:
    no_right_angles(folder)
    edit_dataset_json(folder, overwrite_image_reader_writer="NibabelIO")
    assert check(folder) == []


def test_files_of_the_map(folder: Path) -> None:
    """Every kind of entry of dataset.json's map: whole, without a label, with a file that is not there, broken."""
    entries = {
        f"case_{number:02d}": {
            "images": [f"imagesTr/case_{number:02d}_0000.nii.gz"],
            "label": f"labelsTr/case_{number:02d}.nii.gz",
        }
        for number in range(8)
    }
    entries["case_00"]["label"] = None
    entries["case_01"]["images"] = ["imagesTr/nothing_0000.nii.gz"]
    entries["case_02"] = {"images": "imagesTr/case_02_0000.nii.gz"}
    edit_dataset_json(folder, dataset=entries)
    assert [(one.case_id, one.code) for one in check(folder)] == [
        ("case_00", "F005"),
        ("case_01", "F009"),
        ("case_02", "F001"),
    ]


def test_a_second_channel(tmp_path: Path, folder: Path) -> None:
    """Every channel is looked at, and compared with the first."""
    edit_dataset_json(folder, channel_names={"0": "CT", "1": "PET"})
    for number in range(8):
        path = image_path(folder, f"case_{number:02d}")
        second = path.with_name(path.name.replace("_0000", "_0001"))
        write_volume(second, np.abs(voxels_of(path)) / 7.0, **GEOMETRY)
    assert check(folder) == []
    second = image_path(folder).with_name(f"{ODD}_0001.nii.gz")
    change(second, put((0, 0, 0), np.nan), origin_mm=(-40.0, 25.0, 313.0))
    assert [(one.code, one.file) for one in check(folder)] == [
        (code, f"imagesTr/{second.name}") for code in ("G003", "I001")
    ]
    shutil.copy(image_path(folder), second)
    assert [(one.code, one.case_id) for one in check(folder)] == [("D006", ODD)]
    second.unlink()
    assert [(one.code, one.case_id) for one in check(folder)] == [("F004", ODD)]


def test_pictures_have_no_geometry(tmp_path: Path) -> None:
    from phantoms import write_raw_dataset

    flat = write_raw_dataset(tmp_path / "Dataset002_Flat", n_cases=5, file_ending=".png", shape=(6, 20, 24))
    assert {one.code for one in check(flat)} <= {"L003", "D002", "D005"}


@pytest.mark.parametrize(
    ("plant", "code"),
    [
        (None, None),
        (on_label(lambda label: label[:, 1:]), "G001"),
        (on_label(same, spacing_mm=(3.0, 1.5, 1.6)), "G002"),
        (on_label(same, origin_mm=(-40.0, 25.0, 311.0)), None),
        (on_label(same, direction=np.diag([-1.0, 1.0, 1.0])), None),
        (on_label(put((5, 3, 4), 9)), "L002"),
    ],
)
def test_nnunets_own_checks_fail_where_there_is_an_error(
    folder: Path, plant: Callable[[Path], None] | None, code: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    from nnunetv2.experiment_planning.verify_dataset_integrity import check_cases, verify_labels
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    if plant is not None:
        plant(folder)
    image, label = str(image_path(folder)), str(label_path(folder))
    passes = verify_labels(label, SimpleITKIO, [0, 1, 2, 3]) and check_cases([image], label, 1, SimpleITKIO)
    errors = {one.code for one in check(folder) if one.rule.severity == "error"}
    assert errors == ({code} if code else set())
    assert passes == (not errors)


def test_few_cases_are_not_compared(tmp_path: Path) -> None:
    folder = write_clean_dataset(tmp_path / "Dataset003_Few", n_cases=4)
    for plant in (on_label(hollow), on_label(put((slice(3, 5), slice(3, 5), slice(16, 19)), 2))):
        plant(folder)
    assert check(folder) == []


def test_every_case_that_an_error_stops_is_a_finding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise MemoryError("no room")

    monkeypatch.setattr("auvtool.checks.one_case.label_key", fail)
    found = check(folder)
    assert [one.code for one in found] == ["F011"] * 8
    assert "MemoryError: no room" in found[0].what


def test_a_killed_worker_is_a_finding() -> None:
    from auvtool.cases import Case
    from auvtool.checking import _killed

    assert [one.code for one in _killed(Case("a", (), None)).findings] == ["F011"]


def test_workers_change_nothing(folder: Path) -> None:
    for plant in (same_image, on_label(put((5, 3, 4), 9))):
        plant(folder)
    truncate(label_path(folder, "case_06"))
    alone = check(folder)
    assert len(alone) == 3
    assert check(folder, workplace=Workplace(2)) == alone


def test_findings_come_before_the_last_case_is_read(folder: Path) -> None:
    label_path(folder, "case_00").unlink()
    on_label(put((5, 3, 4), 9))(folder)
    done: list[str] = []
    findings = check_dataset(survey(folder), codes=chosen_codes(), on_case=done.append)
    assert (next(findings).code, done) == ("F005", [])
    assert (next(findings).code, done[-1]) == ("L002", ODD)
    assert list(findings) == []
    assert len(done) == 8


@pytest.mark.parametrize(
    ("select", "ignore", "expected"),
    [
        ([], ["L"], {code for code in RULES if code[0] != "L"}),
        (["f005", "G00"], [], {"F005", *(code for code in RULES if code[0] == "G")}),
        (["empty-label", "D"], ["D001"], {"L003", "D002", "D003", "D004", "D005", "D006"}),
    ],
)
def test_rules_are_chosen_like_a_linters(select: list[str], ignore: list[str], expected: set[str]) -> None:
    assert chosen_codes(select, ignore) == expected


def test_a_rule_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--select: expected codes like F005, .* got X1"):
        chosen_codes(["X1"])
    with pytest.raises(UsageError, match="all of them ignored"):
        chosen_codes(["L003"], ["L"])


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(InputError):
            survey(folder)


def test_only_what_is_chosen_is_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_image(lambda image: image[:, 1:])(folder)
    for name in ("measure", "label_map"):
        monkeypatch.setattr(f"auvtool.checks.one_case.{name}", None)
    found = list(check_dataset(survey(folder), codes=chosen_codes(["F", "G"])))
    assert [one.code for one in found] == ["G001"]


def test_names_of_left_and_right() -> None:
    names = ["Left_Kidney", "right_kidney", "Head_of_femur_L", "Head_of_femur_R", "cleft", "crest", "left ventricle"]
    assert pairs_of_sides(["Left_Kidney", "Right_Kidney", *names[1:]]) == [
        ("Left_Kidney", "right_kidney"),
        ("Head_of_femur_L", "Head_of_femur_R"),
    ]


def test_left_and_right_turned_in_all_cases_is_one_line(folder: Path) -> None:
    edit_dataset_json(folder, labels={"background": 0, "kidney_right": 1, "kidney_left": 2, "spine": 3})
    assert [(one.code, one.case_id) for one in check(folder)] == [("D004", None)]


def test_memory_is_that_of_the_files(tmp_path: Path) -> None:
    """What is made beside the voxels of image and label stays a small part of them."""
    import tracemalloc

    folder = write_clean_dataset(tmp_path / "Dataset004_Large", n_cases=1)
    shape = (120, 256, 256)
    image = np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)
    label = np.zeros(shape, np.uint8)
    label[40:80, 60:120, 60:120], label[40:80, 60:120, 140:200], label[20:100, 150:180, 100:140] = 2, 1, 3
    write_volume(image_path(folder, "case_00"), image, **GEOMETRY)
    write_volume(label_path(folder, "case_00"), label, **GEOMETRY)
    check(folder)  # what is imported and cached
    tracemalloc.start()
    assert {one.code for one in check(folder)} <= {"L009"}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # int16 image, uint8 label and its int16 copy are 5 bytes a voxel; gzip's buffers come and go.
    assert peak < 9 * image.size
