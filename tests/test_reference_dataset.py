"""A filtered data set that names the files of another."""

import json
import shutil

import pytest
from phantoms import write_raw_dataset

from auvtool.dataset import open_dataset
from auvtool.errors import InputError, UsageError
from auvtool.keep_list import KeepList
from auvtool.reference_dataset import reference_dataset, write_reference_dataset

KEEP = KeepList(frozenset({"case_00", "case_02"}), frozenset({"case_01"}))


@pytest.fixture
def source(tmp_path):
    return open_dataset(write_raw_dataset(tmp_path / "raw/Dataset001_All", regions=True, n_channels=2))


@pytest.mark.parametrize("place", ["raw", "."])
def test_only_kept_cases_and_the_same_files(source, tmp_path, place):
    folder = tmp_path / place / "Dataset101_Kept"
    write_reference_dataset(reference_dataset(folder, source, KEEP, force=False))
    assert [path.name for path in folder.iterdir()] == ["dataset.json"]
    filtered = open_dataset(folder)
    assert filtered.cases == tuple(case for case in source.cases if case.case_id != "case_01")
    assert filtered.classes == source.classes
    record = json.loads((folder / "dataset.json").read_text())
    assert record["numTraining"] == 2
    image = record["dataset"]["case_00"]["images"][0]
    assert image.startswith("../Dataset001_All/" if place == "raw" else "/")


def test_both_data_sets_can_be_moved_together(source, tmp_path):
    write_reference_dataset(reference_dataset(tmp_path / "raw/Dataset101_Kept", source, KEEP, force=False))
    shutil.move(tmp_path / "raw", tmp_path / "elsewhere")
    assert len(open_dataset(tmp_path / "elsewhere/Dataset101_Kept").cases) == 2


def test_nnunet_verifies_it(tmp_path, monkeypatch, capsys):
    """nnU-Net's own check reads every case of the new data set by its references and finds no fault."""
    from multiprocessing.dummy import Pool

    from nnunetv2.experiment_planning import verify_dataset_integrity as verify

    source = open_dataset(write_raw_dataset(tmp_path / "Dataset001_All", n_channels=2))
    write_reference_dataset(reference_dataset(tmp_path / "Dataset101_Kept", source, KEEP, force=False))

    class Threads:
        """Its two processes as threads: each process would import nnU-Net anew."""

        @staticmethod
        def get_context(method):
            return type("Context", (), {"Pool": staticmethod(Pool)})

    monkeypatch.setattr(verify, "multiprocessing", Threads)
    verify.verify_dataset_integrity(str(tmp_path / "Dataset101_Kept"), num_processes=1)
    assert "verify_dataset_integrity Done" in capsys.readouterr().out


def test_dataset_map_is_filtered_too(tmp_path):
    source = open_dataset(write_raw_dataset(tmp_path / "Dataset001_All", as_map=True))
    write_reference_dataset(reference_dataset(tmp_path / "Dataset101_Kept", source, KEEP, force=False))
    assert [case.case_id for case in open_dataset(tmp_path / "Dataset101_Kept").cases] == ["case_00", "case_02"]


def test_faulty_and_unscored_cases_are_named(tmp_path):
    folder = write_raw_dataset(tmp_path / "Dataset001_All", n_cases=4)
    (folder / "labelsTr/case_02.nii.gz").unlink()
    (folder / "labelsTr/case_01.nii.gz").unlink()
    planned = reference_dataset(tmp_path / "Dataset101_Kept", open_dataset(folder), KEEP, force=False)
    assert planned.case_ids == ("case_00", "case_03")
    assert planned.unlisted == ("case_03",)
    assert planned.unusable == ("case_02",)


def test_force_replaces_a_reference_and_nothing_else(source, tmp_path):
    folder = tmp_path / "raw/Dataset101_Kept"
    write_reference_dataset(reference_dataset(folder, source, KEEP, force=False))
    with pytest.raises(UsageError, match="add --force to replace its dataset"):
        reference_dataset(folder, source, KEEP, force=False)
    write_reference_dataset(reference_dataset(folder, source, KeepList(frozenset({"case_00"}), None), force=True))
    assert len(open_dataset(folder).cases) == 1
    (folder / "imagesTr").mkdir()
    with pytest.raises(UsageError, match="choose another name"):
        reference_dataset(folder, source, KEEP, force=True)
    with pytest.raises(UsageError, match="choose another name"):
        reference_dataset(source.folder, source, KEEP, force=True)


def test_refusals(source, tmp_path):
    with pytest.raises(UsageError, match="expected a folder DatasetXXX_Name, XXX three digits, got Kept"):
        reference_dataset(tmp_path / "Kept", source, KEEP, force=False)
    with pytest.raises(UsageError, match="expected a number not taken beside it, got 001 of Dataset001_All"):
        reference_dataset(tmp_path / "raw/Dataset001_Kept", source, KEEP, force=False)
    with pytest.raises(UsageError, match="expected an existing folder"):
        reference_dataset(tmp_path / "nowhere/Dataset101_Kept", source, KEEP, force=False)
    with pytest.raises(InputError, match="expected cases that the keep list keeps, got none of 3"):
        reference_dataset(tmp_path / "Dataset101_Kept", source, KeepList(frozenset({"x"}), None), force=False)
    plain = open_dataset(source.folder / "imagesTr", labels=source.folder / "labelsTr")
    with pytest.raises(InputError, match="expected an nnU-Net raw data set"):
        reference_dataset(tmp_path / "Dataset101_Kept", plain, KEEP, force=False)
