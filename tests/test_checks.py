"""Every rule of `auvtool check` by a planted fault: a clean data set gives nothing, each fault exactly its code."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from check_phantoms import GEOMETRY, ODD, change, image_path, label_path, voxels_of, write_clean_dataset
from phantoms import edit_dataset_json, write_volume
from planted_faults import (
    BESIDE,
    COUNTS,
    PLANTED,
    a_whole_turn,
    check,
    hollow,
    no_right_angles,
    on_both,
    on_image,
    on_label,
    put,
    same,
)

from auvtool.checking import finding_row
from auvtool.checks import RULES
from auvtool.checks.sides import pairs_of_sides


@pytest.fixture
def folder(clean_dataset: Path, tmp_path: Path) -> Path:
    return shutil.copytree(clean_dataset, tmp_path / "Dataset001_Clean")


def test_a_clean_data_set_gives_nothing(clean_dataset: Path) -> None:
    assert check(clean_dataset) == []


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


def test_names_of_left_and_right() -> None:
    names = ["Left_Kidney", "right_kidney", "Head_of_femur_L", "Head_of_femur_R", "cleft", "crest", "left ventricle"]
    assert pairs_of_sides(["Left_Kidney", "Right_Kidney", *names[1:]]) == [
        ("Left_Kidney", "right_kidney"),
        ("Head_of_femur_L", "Head_of_femur_R"),
    ]


def test_left_and_right_turned_in_all_cases_is_one_line(folder: Path) -> None:
    edit_dataset_json(folder, labels={"background": 0, "kidney_right": 1, "kidney_left": 2, "spine": 3})
    assert [(one.code, one.case_id) for one in check(folder)] == [("D004", None)]
