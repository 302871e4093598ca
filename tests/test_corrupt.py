"""A data set made dirty on purpose: the plan of `auvtool corrupt`, its key, what it refuses, and runs killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from command_line import auvtool
from dirty_datasets import digest, key_of, run, source_of, written
from phantoms import truncate, write_raw_dataset

from auvtool.cli.corrupt import corrupt as corrupt_command
from auvtool.corrupting import DEFAULT_KINDS, SpoiltCase, plan_corruption, write_corrupt_dataset
from auvtool.corruption.kinds import KINDS
from auvtool.dataset import open_dataset
from auvtool.errors import ExitCode, InputError, UsageError
from auvtool.faults import put_fault
from auvtool.schema import FAILURES
from auvtool.tables import read_table
from auvtool.volume import read_case
from auvtool.workplace import Workplace


@pytest.mark.parametrize(("share", "n"), [(0.2, 2), (0.25, 2), (1.0, 10), (0.01, 1)])
def test_the_share_is_rounded_to_at_least_one_case(tmp_path: Path, share: float, n: int) -> None:
    plan = plan_corruption(source_of(tmp_path, n_cases=10), tmp_path / "Dataset002_Dirty", share=share)
    assert (len(plan.dirty), len(plan.clean)) == (n, 10 - n)


def test_kinds_and_levels_are_dealt_evenly(tmp_path: Path) -> None:
    kinds = ("blur", "dilated", "swapped-classes")
    source = source_of(tmp_path, n_cases=20, shape=(6, 8, 9))
    plan = plan_corruption(source, tmp_path / "Dataset002_Dirty", share=1.0, kinds=kinds)
    assert sorted(plan.n_of_kind().values()) == [6, 7, 7]
    levels = {kind: Counter(one.faults[0].level for one in plan.dirty if one.faults[0].kind == kind) for kind in kinds}
    assert set(levels["swapped-classes"]) == {"high"}
    for kind in kinds[:2]:
        assert set(levels[kind]) == {"low", "medium", "high"}
        assert max(levels[kind].values()) - min(levels[kind].values()) <= 1
    low = plan_corruption(source, tmp_path / "Dataset002_Dirty", share=1.0, kinds=kinds, level="low")
    assert {(one.faults[0].kind, one.faults[0].level) for one in low.dirty} == {
        ("blur", "low"),
        ("dilated", "low"),
        ("swapped-classes", "high"),
    }


def test_another_seed_spoils_other_cases_and_null_tests_must_be_asked_for(tmp_path: Path) -> None:
    source = source_of(tmp_path, n_cases=12)
    plans = [plan_corruption(source, tmp_path / "Dataset002_Dirty", share=0.5, seed=seed) for seed in (0, 0, 1)]
    assert plans[0] == plans[1]
    assert {one.case.case_id for one in plans[0].dirty} != {one.case.case_id for one in plans[2].dirty}
    assert set(KINDS) - set(DEFAULT_KINDS) == {"contrast", "wrong-units"}


def test_the_key_says_what_the_files_hold(tmp_path: Path) -> None:
    source = source_of(tmp_path, n_cases=10, n_channels=2, spacing_mm=(4.0, 1.0, 1.0))
    before = digest(source.folder)
    dirty, result = written(source, share=0.8)
    assert digest(source.folder) == before
    assert dirty.classes == source.classes
    assert dirty.raw["numTraining"] == 10
    assert result.failures == ()
    key = key_of(dirty)
    assert sum(bool(row["dirty"]) for row in key.values()) == 8
    for clean_case, case in zip(source.cases, dirty.cases, strict=True):
        row, clean, volume = key[case.case_id], read_case(clean_case, source), read_case(case, dirty)
        assert volume.geometry == clean.geometry
        assert volume.warnings == ()
        if not row["dirty"]:
            assert case == clean_case
            assert (row["kind"], row["level"], row["parameters"], row["dice"], row["psnr"]) == (None,) * 3 + (1.0, None)
            continue
        planned = next(
            item
            for item in plan_corruption(source, tmp_path / "Dataset003_Again", share=0.8).dirty
            if item.case == clean_case
        )
        fault = next(one for one in planned.faults if one.kind == row["kind"])
        faulty = put_fault(clean, fault, source)
        np.testing.assert_array_equal(volume.image, faulty.volume.image)
        np.testing.assert_array_equal(volume.label, faulty.volume.label)
        assert json.loads(str(row["parameters"])) == faulty.parameters
        assert (row["level"], row["dice"], row["psnr"]) == (fault.level, faulty.dice, faulty.psnr)
        # Only what the fault changed is a file of its own.
        of = KINDS[fault.kind].of
        assert all((path.parent == dirty.folder / "imagesTr") == (of == "image") for path in case.images)
        assert case.label is not None
        assert (case.label.parent == dirty.folder / "labelsTr") == (of == "label")


@pytest.mark.parametrize("jobs", [1, 2])
def test_equal_runs_write_equal_bytes(tmp_path: Path, jobs: int) -> None:
    digests = []
    for name in ("first", "second"):
        source = source_of(tmp_path / name, n_cases=6)
        folder = source.folder.with_name("Dataset002_Dirty")
        plan = plan_corruption(source, folder, share=0.7, seed=4)
        write_corrupt_dataset(plan, options={}, workplace=Workplace(jobs if name == "second" else 1))
        digests.append(digest(folder))
    assert digests[0] == digests[1]
    assert len(digests[0]) > 5


def test_a_kind_that_changes_nothing_gives_way(tmp_path: Path) -> None:
    """All phantoms have one label: that of another case is the same."""
    source = source_of(tmp_path, n_cases=4)
    dirty, result = written(source, share=1.0, kinds=["other-label", "blur"])
    assert {row["kind"] for row in key_of(dirty).values()} == {"blur"}
    assert len(result.substituted) == 2
    assert result.failures == ()


def test_bad_cases_fail_alone(tmp_path: Path) -> None:
    source = source_of(tmp_path, n_cases=5)
    truncate(source.folder / "imagesTr/case_01_0000.nii.gz")
    (source.folder / "labelsTr/case_03.nii.gz").unlink()
    code, _ = run(source.folder, "-o", tmp_path / "Dataset002_Dirty", "--share", 1, "--kinds", "blur,eroded")
    assert code != 0
    dirty = open_dataset(tmp_path / "Dataset002_Dirty")
    assert [case.case_id for case in dirty.cases] == ["case_00", "case_02", "case_04"]
    assert set(key_of(dirty)) == {case.case_id for case in dirty.cases}
    failures = read_table(dirty.folder / "failures.csv", FAILURES)
    assert [(row["case"], row["step"]) for row in failures] == [("case_01", "corrupt"), ("case_03", "read")]
    assert dirty.raw["numTraining"] == 3


def test_exit_codes(tmp_path: Path) -> None:
    source = source_of(tmp_path, n_cases=3)
    truncate(source.folder / "imagesTr/case_01_0000.nii.gz")
    arguments = ("corrupt", source.folder, "-o", tmp_path / "Dataset002_Dirty", "--share", 1, "--kinds", "gamma")
    done = auvtool(*arguments)
    assert done.returncode == ExitCode.SOME_CASES_FAILED
    assert "1 of 3 cases failed" in done.stderr
    # The whole of what was wrong, however narrow a terminal is.
    failure = read_table(tmp_path / "Dataset002_Dirty" / "failures.csv", FAILURES)[0]
    assert f"auvtool: {failure['case']}: {failure['error']}\n" in done.stderr
    assert done.stdout == f"{tmp_path / 'Dataset002_Dirty'}\n"
    for extra, code in (((), ExitCode.USAGE), (("--force",), ExitCode.SOME_CASES_FAILED)):
        assert auvtool(*arguments, *extra).returncode == code
    assert "Traceback" not in done.stderr


def test_nothing_is_written_where_no_fault_can_be_put_in(tmp_path: Path) -> None:
    source = source_of(tmp_path, n_cases=2, shape=(1, 10, 12))
    with pytest.raises(InputError, match="expected a case that a fault can be put into"):
        written(source, share=1.0, kinds=["thick-slices"])
    assert [path.name for path in tmp_path.iterdir()] == ["Dataset001_All"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"share": 0.0}, "--share"),
        ({"share": 1.5}, "--share"),
        ({"share": 0.5, "kinds": ["fog"]}, "got fog"),
        ({"share": 0.5, "kinds": ["blur", "blur"]}, "one twice"),
        ({"share": 0.5, "kinds": []}, "got none"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        plan_corruption(source_of(tmp_path), tmp_path / "Dataset002_Dirty", **options)


@pytest.mark.parametrize("name", ["Dirty", "Dataset1_Dirty", "Dataset001_Dirty", "nowhere/Dataset002_Dirty"])
def test_wrong_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        plan_corruption(source_of(tmp_path), tmp_path / name, share=0.5)


def test_a_plain_folder_is_refused(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    plain = open_dataset(source.cases[0].images[0].parent, labels=source.folder / "labelsTr")
    with pytest.raises(InputError, match="nnU-Net raw data set"):
        plan_corruption(plain, tmp_path / "Dataset002_Dirty", share=0.5)


def test_force_replaces_what_corrupt_made_and_nothing_else(tmp_path: Path) -> None:
    source = source_of(tmp_path, n_cases=4)
    folder = tmp_path / "Dataset002_Dirty"
    assert run(source.folder, "-o", folder, "--kinds", "blur", "--share", 1)[0] == 0
    assert len(list((folder / "imagesTr").iterdir())) == 4
    with pytest.raises(UsageError, match="--force"):
        plan_corruption(source, folder, share=0.5)
    assert run(source.folder, "-o", folder, "--kinds", "eroded", "--share", 0.5, "--force")[0] == 0
    assert list((folder / "imagesTr").iterdir()) == []
    assert len(list((folder / "labelsTr").iterdir())) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Dataset001_All", "Dataset002_Dirty"]
    # Neither a data set of someone's own, nor the one that this one is made from.
    other = write_raw_dataset(tmp_path / "Dataset003_Own")
    for target, of in ((other, source), (folder, open_dataset(folder))):
        with pytest.raises(UsageError, match="corrupt did not make"):
            plan_corruption(of, target, share=0.5, force=True)


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    source = source_of(tmp_path, n_cases=4)
    code, said = run(source.folder, "-o", tmp_path / "Dataset002_Dirty", "--kinds", "blur", "--dry-run")
    assert code == 0
    assert "1 of 4 cases of Dataset001_All would get a fault: blur 1" in said
    assert [path.name for path in tmp_path.iterdir()] == ["Dataset001_All"]


def test_the_manifest_stands_beside_the_key(tmp_path: Path) -> None:
    source = source_of(tmp_path, n_cases=4)
    assert run(source.folder, "-o", tmp_path / "Dataset002_Dirty", "--seed", 3, "--kinds", "blur,holes")[0] == 0
    manifest = json.loads((tmp_path / "Dataset002_Dirty/answer_key.csv.manifest.json").read_text())
    assert manifest["command"] == "corrupt"
    assert manifest["options"]["seed"] == 3
    assert manifest["counts"] == {"cases": 4, "dirty": 1, "failed": 0}
    assert list(manifest["inputs"]) == [str(source.folder)]


def test_both_data_sets_can_be_moved_together_and_far_ones_are_named_whole(tmp_path: Path) -> None:
    source = source_of(tmp_path / "raw", n_cases=4)
    assert run(source.folder, "-o", tmp_path / "raw/Dataset002_Dirty", "--kinds", "blur")[0] == 0
    assert run(source.folder, "-o", tmp_path / "Dataset002_Dirty", "--kinds", "blur")[0] == 0
    assert len(open_dataset(tmp_path / "Dataset002_Dirty").cases) == 4
    (tmp_path / "raw").rename(tmp_path / "moved")
    moved = open_dataset(tmp_path / "moved/Dataset002_Dirty")
    assert len(moved.cases) == 4
    assert len(read_case(moved.cases[0], moved).image) == 1


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_goes_on(tmp_path: Path, how: signal.Signals) -> None:
    source = source_of(tmp_path, n_cases=60, shape=(30, 64, 64))
    folder, parts = tmp_path / "Dataset002_Dirty", tmp_path / ".Dataset002_Dirty.parts"
    command = [sys.executable, "-m", "auvtool", "corrupt", str(source.folder), "-o", str(folder), "--share", "1"]
    process = subprocess.Popen([*command, "-q"], stderr=subprocess.DEVNULL, env={**os.environ})
    try:
        end = time.monotonic() + 300
        while not any(parts.glob("records/case_*.json")):
            assert time.monotonic() < end
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.001)
        process.send_signal(how)
        process.wait(timeout=300)
    finally:
        process.kill()
        process.wait()
    assert not folder.exists()
    made = [path.stem for path in parts.glob("records/case_*.json")]
    half = parts / "dataset/imagesTr/half_0000.nii.gz"
    half.write_bytes(b"half a file")
    before = {path.name: path.stat().st_mtime_ns for path in parts.glob("dataset/*Tr/case_*.nii.gz")}
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"60 of 60 cases dirty, as answer_key.csv says, {len(made)} of them made before" in done.stderr
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*Tr/*.nii.gz")}
    assert len(after) == 60
    assert before.items() <= after.items()
    (tmp_path / "whole").mkdir()
    assert run(source.folder, "-o", tmp_path / "whole/Dataset002_Dirty", "--share", 1)[0] == 0
    assert (folder / "answer_key.csv").read_bytes() == (tmp_path / "whole/Dataset002_Dirty/answer_key.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Dataset001_All", "Dataset002_Dirty", "whole"]


def test_what_changed_since_a_kill_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, folder = source_of(tmp_path, n_cases=4), tmp_path / "Dataset002_Dirty"
    plan = plan_corruption(source, folder, share=1.0)

    def stop_before_the_end(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("auvtool.corrupting.put_folder_in_place", stop_before_the_end)
        with pytest.raises(KeyboardInterrupt):
            write_corrupt_dataset(plan, options={})
    changed, gone = plan.dirty[0].case, plan.dirty[1].case
    os.utime(changed.images[0], ns=(1, 1))
    for path in (tmp_path / ".Dataset002_Dirty.parts/dataset").glob(f"*Tr/{gone.case_id}*"):
        path.unlink()
    assert write_corrupt_dataset(plan, options={}).n_made_before == 2
    other = plan_corruption(source, tmp_path / "Dataset003_Other", share=1.0, seed=1)
    assert write_corrupt_dataset(other, options={}).n_made_before == 0


@pytest.mark.parametrize("change", [None, '"small": 2', '"sequence_0"'])
def test_what_dataset_json_now_calls_otherwise_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str | None
) -> None:
    folder = source_of(tmp_path, n_cases=2).folder
    monkeypatch.setattr("auvtool.corrupting.put_folder_in_place", lambda *_: None)

    def made_before() -> int:
        plan = plan_corruption(open_dataset(folder), tmp_path / "Dataset002_Dirty", share=1.0)
        with monkeypatch.context() as patch:
            patch.setattr("auvtool.corrupting.remove_folder", lambda *_: None)
            return write_corrupt_dataset(plan, options={}).n_made_before

    assert made_before() == 0
    path = folder / "dataset.json"
    new = {None: "", '"small": 2': '"small": 2, "ignore": 3', '"sequence_0"': '"CT"'}[change]
    path.write_text(path.read_text().replace(change or "none", new))
    assert made_before() == (2 if change is None else 0)


def test_what_is_made_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush, flushed = os.fsync, set[int]()
    monkeypatch.setattr(os, "fsync", lambda file: flushed.add(os.fstat(file).st_ino) or flush(file))
    folder = tmp_path / "Dataset002_Dirty"
    write_corrupt_dataset(plan_corruption(source_of(tmp_path, n_cases=4), folder, share=1.0), options={})
    assert {path.stat().st_ino for path in folder.rglob("*") if path.is_file()} <= flushed


def test_a_case_that_no_reader_foresaw_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise MemoryError("Unable to allocate 9 TiB")

    source = source_of(tmp_path, n_cases=2)
    monkeypatch.setattr("auvtool.corrupting.put_fault", broken)
    seen: list[SpoiltCase] = []
    plan = plan_corruption(source, tmp_path / "Dataset002_Dirty", share=0.5)
    with pytest.raises(InputError, match="Unable to allocate"):
        write_corrupt_dataset(plan, options={}, on_case=seen.append)
    assert "MemoryError" in str(seen[0].error)


def test_the_help_names_every_kind_and_its_levels() -> None:
    text = " ".join((corrupt_command.__doc__ or "").split())
    images, labels = text.split("Faults of images: ")[1].split(". Faults of labels: ")
    graded, null_tests = images.split("; null tests, which change gain and offset alone: ")
    named = {
        "image": graded.split(", ") + null_tests.split(", "),
        "label": labels.split(". ")[0].split(", "),
    }
    for of, names in named.items():
        assert set(names) == {kind for kind, facts in KINDS.items() if facts.of == of}
    assert null_tests.split(", ") == [kind for kind, facts in KINDS.items() if facts.null_test]
    one_level = labels.split(". ")[1].split(" have one level")[0].replace(" and ", ", ").split(", ")
    assert set(one_level) == {kind for kind, facts in KINDS.items() if len(facts.levels) == 1}
