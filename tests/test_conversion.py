"""`auvtool convert` as a run: splits, resume, workers, replacing, failures, and what the other commands make of it."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import downloads
import nibabel
import numpy as np
import pytest
from command_line import auvtool
from downloads import label_of
from phantoms import truncate

from auvtool import conversion
from auvtool.conversion import ConversionResult, write_converted_dataset
from auvtool.conversion_plan import ConversionPlan, plan_conversion
from auvtool.converters import SourceCase
from auvtool.converters.case_files import CaseFiles
from auvtool.converters.totalsegmentator_classes import V2
from auvtool.dataset import open_dataset
from auvtool.errors import ExitCode, InputError, OutputError, UsageError
from auvtool.inspection import describe_file
from auvtool.schema import FAILURES, QUIRKS
from auvtool.tables import read_table
from auvtool.volume import read_case
from auvtool.workplace import Workplace

PARTS = {f"s{number:04d}": "test" if number == 5 else "val" if number == 4 else "train" for number in range(6)}


def masks_of(folder: Path) -> Path:
    return downloads.totalsegmentator(folder / "ts", V2[:30], PARTS)


def plan_of(source: Path, **options: object) -> ConversionPlan:
    return plan_conversion("totalsegmentator", source, source.parent / "Dataset117_Tiny", **options)


def write(plan: ConversionPlan, **options: object) -> ConversionResult:
    return write_converted_dataset(plan, options={}, **options)


def digest(folder: Path) -> dict[str, str]:
    """What a data set holds, but for its manifest (the time of day) and the records (where the source lies)."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".convert" not in path.parts and not path.name.endswith(".manifest.json")
    }


def test_a_fifth_is_drawn_by_the_seed(tmp_path: Path) -> None:
    source = downloads.kits23(tmp_path, n_cases=15)
    target = tmp_path / "Dataset220_Tiny"

    def drawn(**options: object) -> list[str]:
        plan = plan_conversion("kits23", source, target, **options)
        return [item.source.case_id for item in plan.cases if item.is_test]

    assert len(drawn()) == 3
    assert drawn() == drawn(seed=0, split="random") != drawn(seed=1)
    assert len(drawn(test_share=0.01)) == 1
    assert drawn(split="none") == drawn(split="own") == []
    # A case that is put right later changes no other case's part.
    before = drawn()
    hidden = next(place for place in (source / "dataset").iterdir() if place.name not in before)
    (hidden / "imaging.nii.gz").unlink()
    assert drawn() == before
    with pytest.raises(UsageError, match="--test-share: expected a number above 0 and below 1, got 1"):
        drawn(test_share=1.0)


def test_workers_write_the_same_bytes(tmp_path: Path) -> None:
    digests = []
    for name, jobs in (("first", 1), ("second", 2)):
        write(plan_of(masks_of(tmp_path / name)), workplace=Workplace(jobs))
        digests.append(digest(tmp_path / name / "Dataset117_Tiny"))
    assert digests[0] == digests[1]
    assert len([name for name in digests[0] if name.startswith("labels")]) == 6


_WAITS_AT_THE_LAST = """
import time
from auvtool import conversion
from auvtool.cli.app import main

make = conversion.make_case_files

def wait_at_the_last(source, **options):
    if source.case_id == "s0005":
        time.sleep(300)
    return make(source, **options)

conversion.make_case_files = wait_at_the_last
main()
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_goes_on(tmp_path: Path, how: signal.Signals) -> None:
    whole, killed = masks_of(tmp_path / "whole"), masks_of(tmp_path / "killed")
    write(plan_of(whole))
    folder, parts = tmp_path / "killed/Dataset117_Tiny", tmp_path / "killed/.Dataset117_Tiny.parts"
    command = [sys.executable, "-c", _WAITS_AT_THE_LAST, "convert", "totalsegmentator", str(killed), str(folder), "-q"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 300
        while len(list(parts.glob(".convert/s*.json"))) < 5:
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(how)
        process.wait(timeout=300)
    finally:
        process.kill()
    assert not folder.exists()
    (parts / "labelsTr/half.nii.gz").write_bytes(b"half a file")
    before = {path: path.stat().st_mtime_ns for path in (parts / "labelsTr").glob("s*.gz")}
    done = auvtool("convert", "totalsegmentator", killed, folder)
    assert done.returncode == 0, done.stderr
    assert "5 training and 1 test cases, 5 of them made before" in done.stderr
    assert {folder / path.relative_to(parts): when for path, when in before.items()} == {
        path: path.stat().st_mtime_ns for path in (folder / "labelsTr").iterdir()
    }
    assert digest(folder) == digest(tmp_path / "whole/Dataset117_Tiny")
    assert not parts.exists()


def test_what_changed_since_is_made_again(tmp_path: Path) -> None:
    source = masks_of(tmp_path)
    write(plan_of(source))
    mask = source / "s0001/segmentations/spleen.nii.gz"
    downloads.write(mask, np.ones(downloads.SHAPE, np.uint8), np.diag([1.5, 1.5, 1.5, 1.0]))
    assert write(plan_of(source, force=True)).n_made_before == 5
    label = np.asarray(nibabel.load(tmp_path / "Dataset117_Tiny/labelsTr/s0001.nii.gz").dataobj)
    np.testing.assert_array_equal(label, np.maximum(label_of(1, 30), 1))
    # Cases that change their part leave nothing behind.
    result = write(plan_of(source, split="random", link=True, force=True))
    folder = tmp_path / "Dataset117_Tiny"
    assert (result.n_training, result.n_test, result.n_made_before) == (4, 1, 0)
    assert len(list((folder / "imagesTr").iterdir())) == len(list((folder / "labelsTr").iterdir())) == 4
    assert len(list((folder / "imagesTs").iterdir())) == 1
    assert not (folder / "splits_final.json").exists()
    assert len(open_dataset(folder).cases) == 4


def test_bad_cases_fail_alone_and_are_put_right(tmp_path: Path) -> None:
    source, folder = downloads.kits23(tmp_path), tmp_path / "Dataset220_Tiny"
    image = source / "dataset/case_00001/imaging.nii.gz"
    content = image.read_bytes()
    image.write_bytes(b"<html>Not Found</html>")
    truncate(source / "dataset/case_00003/segmentation.nii.gz", 0.1)
    (source / "dataset/case_00004/segmentation.nii.gz").unlink()
    done = auvtool("convert", "kits23", source, folder, "--split", "none")
    assert done.returncode == ExitCode.SOME_CASES_FAILED
    assert done.stdout == f"{folder}\n"
    assert "3 of 5 cases failed" in done.stderr
    failures = read_table(folder / "failures.csv", FAILURES)
    assert [(row["case"], row["step"]) for row in failures] == [
        (f"case_{number:05d}", "convert") for number in (1, 3, 4)
    ]
    assert [case.case_id for case in open_dataset(folder).cases] == ["case_00000", "case_00002"]
    image.write_bytes(content)
    done = auvtool("convert", "kits23", source, folder, "--split", "none")
    assert done.returncode == ExitCode.USAGE
    assert "add --force to replace it (finished cases stay)" in done.stderr
    done = auvtool("convert", "kits23", source, folder, "--split", "none", "--force")
    assert "2 of 5 cases failed" in done.stderr
    assert "3 training and 0 test cases, 2 of them made before" in done.stderr


def test_no_data_set_where_every_case_fails(tmp_path: Path) -> None:
    source = downloads.kits23(tmp_path)
    for image in source.rglob("imaging.nii.gz"):
        image.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    done = auvtool("convert", "kits23", source, tmp_path / "Dataset220_Tiny")
    assert done.returncode == ExitCode.INVALID_INPUT
    assert "expected a case that can be trained on" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["kits23"]


def test_a_full_disk_ends_the_run_and_anything_else_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, source = conversion.make_case_files, downloads.kits23(tmp_path)
    plan = plan_conversion("kits23", source, tmp_path / "Dataset220_Tiny", split="none")

    def broken(error: Exception) -> Callable[..., CaseFiles]:
        def make(case: SourceCase, **options: Any) -> CaseFiles:
            if case.case_id == "case_00002":
                raise error
            return made(case, **options)

        return make

    monkeypatch.setattr(conversion, "make_case_files", broken(OutputError("DST: the disk is full")))
    with pytest.raises(OutputError, match="disk is full"):
        write(plan)
    assert not plan.folder.exists()
    monkeypatch.setattr(conversion, "make_case_files", broken(MemoryError("Unable to allocate 9 TiB")))
    result = write(plan)
    assert (result.n_training, result.n_made_before) == (4, 2)
    assert [row["case"] for row in result.failures] == ["case_00002"]
    assert "MemoryError: Unable to allocate 9 TiB" in str(result.failures[0]["error"])


def test_what_stands_there_is_not_replaced(tmp_path: Path) -> None:
    source = downloads.feta(tmp_path / "feta")
    other = tmp_path / "Dataset122_Other"
    other.mkdir()
    for force in (False, True):
        with pytest.raises(UsageError, match="got one that convert did not make"):
            plan_conversion("feta", source, other, force=force)
    with pytest.raises(UsageError, match="DST: expected a folder DatasetXXX_Name"):
        plan_conversion("feta", source, tmp_path / "FeTA")
    with pytest.raises(UsageError, match="DST: expected a number not taken beside it, got 122 of Dataset122_Other"):
        plan_conversion("feta", source, tmp_path / "Dataset122_FeTA")


@pytest.mark.parametrize("name", ["lits", "totalsegmentator", "word", "feta", "kits23", "msd"])
def test_another_folder_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "none"):
        with pytest.raises(InputError, match=r": expected .*, got .*; ") as caught:
            plan_conversion(name, folder, tmp_path / "Dataset001_X")
        assert "\n" not in str(caught.value)


def test_a_folder_of_several_data_sets_is_refused(tmp_path: Path) -> None:
    shutil.copytree(downloads.msd(tmp_path / "MSD"), tmp_path / "MSD/Task05_Tiny")
    with pytest.raises(InputError, match=r"got 2 \(Task04_Tiny, Task05_Tiny\); name the folder of one of them"):
        plan_conversion("msd", tmp_path / "MSD", tmp_path / "Dataset004_Tiny")


def test_a_share_of_test_cases_that_nothing_draws_is_refused(tmp_path: Path) -> None:
    source = downloads.kits23(tmp_path)
    done = auvtool("convert", "kits23", source, tmp_path / "Dataset220_Tiny", "--split", "none", "--test-share", "0.3")
    assert done.returncode == ExitCode.USAGE
    assert done.stderr == (
        "auvtool: --test-share: expected --split random beside it, got none; add it, or leave this out\n"
    )
    assert not (tmp_path / "Dataset220_Tiny").exists()


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    source = downloads.kits23(tmp_path)
    (source / "dataset/case_00001/imaging.nii.gz").unlink()
    done = auvtool("convert", "kits23", source, tmp_path / "Dataset220_Tiny", "-n")
    assert done.returncode == 0
    assert "3 cases would be for training, 1 for testing (split random, seed 0), 1 not usable" in done.stderr
    assert "case_00001: " in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"kits23"}


def test_quirks_are_said_and_kept(tmp_path: Path) -> None:
    done = auvtool("convert", "lits", downloads.lits(tmp_path / "lits"), tmp_path / "Dataset003_Tiny")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("convert: unit-spacing: ")]
    assert lines == [
        "convert: unit-spacing: 1 case (lits_028): the header says 1 mm and no rotation: the voxel size of the scan is "
        "lost; the file stays as it is"
    ]
    rows = read_table(tmp_path / "Dataset003_Tiny/quirks.csv", QUIRKS)
    assert {row["case"] for row in rows if row["quirk"] == "label-header"} == {"lits_053"}
    assert describe_file(tmp_path / "Dataset003_Tiny/quirks.csv")["what"] == "quirks (auvtool.quirks version 1)"
    manifest = json.loads((tmp_path / "Dataset003_Tiny/dataset.json.manifest.json").read_text())
    assert manifest["options"]["split"] == "random"
    assert manifest["counts"] == {"training": 5, "test": 1, "failed": 0}


@pytest.mark.parametrize("link", [False, True])
def test_source_and_data_set_can_be_moved_together(tmp_path: Path, link: bool) -> None:
    source = downloads.lits(tmp_path / "raw/lits")
    plan = plan_conversion("lits", source, tmp_path / "raw/Dataset003_Tiny", link=link)
    write(plan)
    (tmp_path / "raw").rename(tmp_path / "moved")
    moved = open_dataset(tmp_path / "moved/Dataset003_Tiny")
    assert len(moved.cases) == 5
    assert all(path.is_file() for path in (moved.folder / "imagesTs").iterdir())
    far = plan_conversion("lits", tmp_path / "moved/lits", tmp_path / "Dataset003_Tiny", link=link)
    write(far)
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "Dataset003_Tiny", tmp_path / "elsewhere/Dataset003_Tiny")
    assert len(open_dataset(tmp_path / "elsewhere/Dataset003_Tiny").cases) == 5


def test_the_chain_goes_on_from_it(tmp_path: Path) -> None:
    """KiTS23 with its regions: features, a training's plan, and its test labels as references."""
    source, folder = downloads.kits23(tmp_path, n_cases=8), tmp_path / "Dataset220_Tiny"
    assert auvtool("convert", "kits23", source, folder).returncode == 0
    done = auvtool("extract", folder, "-o", tmp_path / "F.h5", "--extractor", "identity")
    assert done.returncode == 0, done.stderr
    done = auvtool("train", folder, "-o", tmp_path / "RUN", "--dry-run")
    assert done.returncode == 0, done.stderr
    done = auvtool("eval", folder / "labelsTs", folder / "labelsTs", "-o", tmp_path / "M.csv")
    assert done.returncode == 0, done.stderr


def test_references_of_a_data_set_that_holds_some_labels_itself(tmp_path: Path) -> None:
    """Labels of LiTS are the source's but for the one that had to be written."""
    source, folder = downloads.lits(tmp_path / "lits"), tmp_path / "Dataset003_Tiny"
    write(plan_conversion("lits", source, folder, split="none"))
    predictions = tmp_path / "P"
    predictions.mkdir()
    for case in open_dataset(folder).cases:
        shutil.copy(case.label, predictions / f"{case.case_id}.nii")
    done = auvtool("eval", predictions, folder, "-o", tmp_path / "M.csv")
    assert done.returncode == 0, done.stderr
    assert "means over 6 of 6 cases" in done.stderr


def test_a_real_ct_from_its_masks(tmp_path: Path, real_data: Path) -> None:
    """A CT of TotalSegmentator's repository, its label map taken apart into masks and put together again."""
    labels = nibabel.load(real_data / "totalseg_examples/example_seg.nii.gz")
    values, place = np.asarray(labels.dataobj), tmp_path / "ts/s0000"
    (place / "segmentations").mkdir(parents=True)
    shutil.copy(real_data / "totalseg_examples/example_ct_sm.nii.gz", place / "ct.nii.gz")
    for value, name in enumerate(V2, start=1):
        mask = nibabel.Nifti1Image((values == value).astype(np.uint8), labels.affine)
        mask.to_filename(place / f"segmentations/{name}.nii.gz")
    plan = plan_conversion("totalsegmentator", tmp_path / "ts", tmp_path / "Dataset117_One", split="none")
    assert write(plan).quirks == ()
    np.testing.assert_array_equal(
        np.asarray(nibabel.load(tmp_path / "Dataset117_One/labelsTr/s0000.nii.gz").dataobj), values
    )
    done = auvtool("extract", tmp_path / "Dataset117_One", "-o", tmp_path / "F.h5", "--extractor", "identity")
    assert done.returncode == 0, done.stderr


def test_real_scans_of_the_decathlon(tmp_path: Path, real_data: Path) -> None:
    """Hippocampus as it was before nnU-Net's names: the converted data set reads as nnU-Net's own does."""
    own = open_dataset(real_data / "hippocampus/Dataset004_Hippocampus")
    task, training = tmp_path / "Task04_Hippocampus", []
    for part in ("imagesTr", "labelsTr"):
        (task / part).mkdir(parents=True)
    for case in own.cases[:6]:
        (task / f"imagesTr/{case.case_id}.nii.gz").symlink_to(case.images[0])
        (task / f"labelsTr/{case.case_id}.nii.gz").symlink_to(case.label)
        training.append({"image": f"./imagesTr/{case.case_id}.nii.gz", "label": f"./labelsTr/{case.case_id}.nii.gz"})
    record = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "Anterior", "2": "Posterior"}}
    (task / "dataset.json").write_text(json.dumps({**record, "training": training, "test": []}))
    result = write(plan_conversion("msd", task, tmp_path / "Dataset004_Hippocampus"))
    assert (result.quirks, result.failures) == ((), ())
    dataset = open_dataset(tmp_path / "Dataset004_Hippocampus")
    for case, ours in zip(own.cases[:6], dataset.cases, strict=True):
        there, here = read_case(case, own), read_case(ours, dataset)
        np.testing.assert_array_equal(there.image, here.image)
        np.testing.assert_array_equal(there.label, here.label)
        assert there.geometry == here.geometry
