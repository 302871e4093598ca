"""Extraction over a data set: resume, shards, failures, killed processes; all with the identity, which is fast."""

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import phantoms
import pytest

from auvtool import case_extraction, extraction, extraction_plan, workplace
from auvtool.case_extraction import ExtractionSettings, shard_path
from auvtool.dataset import open_dataset
from auvtool.errors import InputError, OutputError, UsageError
from auvtool.extraction import run_extraction
from auvtool.extraction_plan import map_bytes, parse_shard, parts_folder, plan_extraction
from auvtool.failures import failures_path
from auvtool.feature_store import FeatureFile
from auvtool.gram import map_spectra
from auvtool.normalize import normalize
from auvtool.schema import FAILURES
from auvtool.tables import read_table
from auvtool.volume import read_case
from auvtool.worker_pool import WorkerDied
from auvtool.workplace import Workplace

IDENTITY = ExtractionSettings(extractor="identity")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=3)


def extracted(
    folder: Path, output: Path, settings: ExtractionSettings = IDENTITY, **options
) -> extraction.ExtractionResult:
    run_options = {name: options.pop(name) for name in ("workplace", "keep_going", "on_case") if name in options}
    plan = plan_extraction(open_dataset(folder), settings, output, **options)
    return run_extraction(plan, force=options.get("force", False), **run_options)


def test_identity_stores_the_spectra_of_slices_and_boxes(folder: Path, tmp_path: Path) -> None:
    result = extracted(folder, tmp_path / "F.h5")
    assert (result.n_cases, result.n_resumed, result.failures) == (3, 0, ())
    assert not parts_folder(tmp_path / "F.h5").exists()
    dataset = open_dataset(folder)
    with FeatureFile(tmp_path / "F.h5") as file:
        assert file.case_ids == ("case_00", "case_01", "case_02")
        assert file.header.channels == ((1, "large"), (2, "small"))
        assert (file.header.input, file.header.prompt, file.header.weights_sha256) == ("mask", "mask-box", None)
        for case in dataset.cases:
            volume = read_case(case, dataset)
            image = normalize(volume.image[0], volume.label, "mask")
            found = file.case(case.case_id)
            assert found.status == ("ok", "ok")
            assert found.n_voxels.tolist() == [phantoms.VOXELS[1], phantoms.VOXELS[2]]
            np.testing.assert_allclose(found.volume_ml, found.n_voxels / 1000)
            assert np.isnan(found.agreement).all()
            for index, class_id in enumerate((1, 2)):
                inside = volume.label == class_id
                box = tuple(slice(axis.min(), axis.max() + 1) for axis in np.nonzero(inside))
                for (unfolding, centering), values in map_spectra(image[box]).items():
                    stored = found.spectra["class-box", "logits", unfolding, centering][index]
                    np.testing.assert_allclose(stored, values, rtol=1e-9, atol=1e-7 * values[0])
                carrying = image[box[0]]
                for (unfolding, centering), values in map_spectra(carrying).items():
                    stored = found.spectra["volume", "logits", unfolding, centering][index]
                    np.testing.assert_allclose(stored, values, rtol=1e-9, atol=1e-7 * values[0])
                assert found.n_slices[index] == image[box].shape[0]
                np.testing.assert_allclose(found.class_features[index, 0], image[inside].mean(), rtol=1e-5)


def test_without_prompts_the_volume_is_one_channel(tmp_path: Path) -> None:
    folder = phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=2, labels=False)
    extracted(folder, tmp_path / "F.h5", replace(IDENTITY, prompt="none", input="raw"))
    dataset = open_dataset(folder)
    with FeatureFile(tmp_path / "F.h5") as file:
        assert file.header.channels == ((1, "volume"),)
        image = read_case(dataset.cases[0], dataset).image[0]
        stored = file.case("case_00").spectra["volume", "logits", "d_hw", "centered"][0]
        np.testing.assert_allclose(stored, map_spectra(image)["d_hw", "centered"], rtol=1e-12)


def test_prompts_need_labels(tmp_path: Path) -> None:
    folder = phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=1, labels=False)
    with pytest.raises(InputError, match="expected labels"):
        extracted(folder, tmp_path / "F.h5")


def test_regions_are_classes(tmp_path: Path) -> None:
    folder = phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=1, regions=True)
    extracted(folder, tmp_path / "F.h5")
    with FeatureFile(tmp_path / "F.h5") as file:
        assert file.header.channels == ((1, "whole"), (2, "core"))
        assert file.case("case_00").n_voxels.tolist() == [sum(phantoms.VOXELS.values()), phantoms.VOXELS[2]]


def test_channel_is_chosen_and_checked(tmp_path: Path) -> None:
    folder = phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=1, n_channels=2)
    extracted(folder, tmp_path / "F.h5", replace(IDENTITY, channel=1, input="raw"))
    with FeatureFile(tmp_path / "F.h5") as file:
        case = file.case("case_00")
        assert case.voxel_statistics[0, case.statistic_names.index("mean")] == pytest.approx(110, abs=1)
    with pytest.raises(UsageError, match="--channel"):
        extracted(folder, tmp_path / "G.h5", replace(IDENTITY, channel=2))


def test_stride_and_limit_thin_out_the_slices(folder: Path, tmp_path: Path) -> None:
    extracted(folder, tmp_path / "F.h5", replace(IDENTITY, slice_stride=2, max_slices=2))
    with FeatureFile(tmp_path / "F.h5") as file:
        assert file.case("case_00").n_slices.sum() == 2
        assert file.header.options["slice_stride"] == 2
        assert file.header.options["max_slices"] == 2


@pytest.mark.parametrize("store", ["maps", "both"])
def test_maps_are_stored_with_their_slices(folder: Path, tmp_path: Path, store: str) -> None:
    settings = replace(IDENTITY, store=store)
    plan = plan_extraction(open_dataset(folder), settings, tmp_path / "F.h5")
    estimate = map_bytes(plan)
    extracted(folder, tmp_path / "F.h5", settings)
    with FeatureFile(tmp_path / "F.h5") as file:
        assert file.map_ids("case_00") == (1, 2)
        logits, slices = file.map("case_00", 1)
        assert bool(file.case("case_00").spectra) == (store == "both")
        assert len(slices) == len(logits) == file.case("case_00").n_slices[0]
        n_bytes = sum(file.map(case, class_id)[0].nbytes for case in file.case_ids for class_id in (1, 2))
    assert estimate is not None
    assert n_bytes <= estimate


def test_a_disk_that_is_too_small_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = extraction_plan.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(extraction_plan.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match="expected about"):
        extracted(folder, tmp_path / "F.h5", replace(IDENTITY, store="both"))
    assert not parts_folder(tmp_path / "F.h5").exists()
    extracted(folder, tmp_path / "F.h5")


def test_a_run_resumes_by_case(folder: Path, tmp_path: Path) -> None:
    extracted(folder, tmp_path / "whole.h5")
    output = tmp_path / "F.h5"

    def stop(outcome: case_extraction.CaseOutcome) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extracted(folder, output, on_case=stop)
    assert not output.exists()
    shard = shard_path(parts_folder(output), "case_00")
    before = shard.stat().st_mtime_ns
    done: list[str] = []
    result = extracted(folder, output, on_case=lambda outcome: done.append(outcome.case_id))
    assert done == ["case_01", "case_02"]
    assert (result.n_cases, result.n_resumed) == (3, 1)
    assert before < output.stat().st_mtime_ns
    assert output.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_a_run_of_some_cases_leaves_the_shards_of_the_others(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "F.h5"
    plan = plan_extraction(open_dataset(folder), IDENTITY, output)
    plan.parts.mkdir()
    case_extraction.work_on_case(plan.waiting()[0], task=plan.task)
    (plan.parts / ".tmp-1-2-case_02.h5").touch()
    extracted(folder, output, case_ids=["case_01"])
    assert [path.name for path in plan.parts.iterdir()] == ["case_00.h5"]
    assert extracted(folder, output, force=True).n_resumed == 1
    assert not plan.parts.exists()


@pytest.mark.parametrize("change", ["option", "input file", "damaged shard", "meaning", "folder of labels"])
def test_an_outdated_shard_is_made_again(tmp_path: Path, change: str) -> None:
    folder = phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", regions=True)
    output, labels = tmp_path / "F.h5", None
    plan = plan_extraction(open_dataset(folder), IDENTITY, output)
    plan.parts.mkdir()
    for case in plan.waiting():
        case_extraction.work_on_case(case, task=plan.task)
    assert len(plan_extraction(open_dataset(folder), IDENTITY, output).finished) == 3
    settings = IDENTITY
    if change == "option":
        settings = replace(IDENTITY, slice_stride=2)
    elif change == "input file":
        os.utime(open_dataset(folder).cases[0].images[0], ns=(1, 1))
    elif change == "meaning":
        path = folder / "dataset.json"
        path.write_text(path.read_text().replace('"core": 2', '"core": 1'))
    elif change == "folder of labels":
        labels = shutil.copytree(folder / "labelsTr", tmp_path / "others")  # of the same names, sizes and times
    else:
        phantoms.truncate(shard_path(plan.parts, "case_00"))
    finished = plan_extraction(open_dataset(folder, labels=labels), settings, output).finished
    assert finished == ({"case_01", "case_02"} if change in {"input file", "damaged shard"} else frozenset())


def test_a_bad_case_is_a_row_and_is_tried_again(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "F.h5"
    image = folder / "imagesTr" / "case_01_0000.nii.gz"
    content = image.read_bytes()
    phantoms.truncate(image)
    result = extracted(folder, output)
    assert [row["case"] for row in result.failures] == ["case_01"]
    assert read_table(failures_path(output), FAILURES)[0]["case"] == "case_01"
    with FeatureFile(output) as file:
        assert file.case_ids == ("case_00", "case_02")
    image.write_bytes(content)
    result = extracted(folder, output, force=True)
    assert (result.n_cases, result.n_resumed, result.failures) == (3, 2, ())
    assert not failures_path(output).exists()
    assert not parts_folder(output).exists()


def test_an_error_of_the_model_is_a_row_too(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = case_extraction.extract_case

    def fail(case, *others):
        if case.case_id == "case_00":
            raise RuntimeError("out of\nmemory")
        return real(case, *others)

    monkeypatch.setattr(case_extraction, "extract_case", fail)
    result = extracted(folder, tmp_path / "F.h5")
    assert "RuntimeError: out of memory" in str(result.failures[0]["error"])
    with pytest.raises(InputError, match="out of memory"):
        extracted(folder, tmp_path / "G.h5", keep_going=False)


def test_when_every_case_fails_nothing_is_written(folder: Path, tmp_path: Path) -> None:
    for image in (folder / "imagesTr").iterdir():
        phantoms.truncate(image)
    result = extracted(folder, tmp_path / "F.h5")
    assert result.n_cases == 0
    assert len(result.failures) == 3
    assert not (tmp_path / "F.h5").exists()
    assert failures_path(tmp_path / "F.h5").exists()


def test_a_full_disk_ends_the_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OutputError("disk full")

    monkeypatch.setattr(case_extraction, "extract_case", full)
    with pytest.raises(OutputError, match="disk full"):
        extracted(folder, tmp_path / "F.h5")


def test_a_killed_worker_is_a_row(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_dies(work, items, *, jobs, on_worker_died, limit):
        on_worker_died(items[:2])
        for case in items:
            yield case, WorkerDied() if case.case_id == "case_01" else work(case)

    monkeypatch.setattr(workplace, "run_in_workers", one_dies)
    died: list[list[str]] = []
    plan = plan_extraction(open_dataset(folder), IDENTITY, tmp_path / "F.h5")
    result = run_extraction(plan, workplace=Workplace(2), on_worker_died=died.append)
    assert died == [["case_00", "case_01"]]
    assert "worker process was killed" in str(result.failures[0]["error"])
    assert result.n_cases == 2


def test_the_next_case_is_read_while_one_is_in_work_and_the_first_when_the_model_is_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    was_read = {f"case_{number:02d}": threading.Event() for number in range(3)}
    read_files, waited = case_extraction.read_files, []

    def noted(case, task):
        files = read_files(case, task)
        was_read[case.case_id].set()
        return files

    def work_on_case(case, *, task, read):
        def read_and_wait():
            files, number = read(), int(case.case_id[-2:])
            if number < 2:
                waited.append(was_read[f"case_{number + 1:02d}"].wait(timeout=300))
            return files

        return case_extraction.work_on_case(case, task=task, read=read_and_wait)

    def load_extractor(*words, **options):
        unread.append(not any(event.is_set() for event in was_read.values()))
        return load(*words, **options)

    load, unread = case_extraction.load_extractor, []
    monkeypatch.setattr(case_extraction, "_loaded", {})
    monkeypatch.setattr(case_extraction, "load_extractor", load_extractor)
    monkeypatch.setattr(extraction, "read_files", noted)
    monkeypatch.setattr(extraction, "work_on_case", work_on_case)
    assert extracted(folder, tmp_path / "F.h5").n_cases == 3
    assert waited == [True, True]
    assert unread == [True]  # warnings that are caught while it loads are caught for the thread that reads too


def test_workers_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    extracted(folder, tmp_path / "one.h5")
    extracted(folder, tmp_path / "two.h5", workplace=Workplace(2))
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_chosen_cases_and_shards(folder: Path, tmp_path: Path) -> None:
    extracted(folder, tmp_path / "F.h5", case_ids=["case_02"])
    with FeatureFile(tmp_path / "F.h5") as file:
        assert file.case_ids == ("case_02",)
    extracted(folder, tmp_path / "1.h5", shard=(1, 2))
    extracted(folder, tmp_path / "2.h5", shard=(2, 2))
    with FeatureFile(tmp_path / "1.h5") as first, FeatureFile(tmp_path / "2.h5") as second:
        assert first.case_ids == ("case_00", "case_02")
        assert second.case_ids == ("case_01",)
        assert first.header.fingerprint == second.header.fingerprint
    with pytest.raises(UsageError, match="case_77"):
        extracted(folder, tmp_path / "G.h5", case_ids=["case_77"])
    with pytest.raises(UsageError, match="as many shards as cases"):
        extracted(folder, tmp_path / "G.h5", shard=(4, 4))


def test_shard_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_shard("2/8") == (2, 8)
    for wrong in ("0/3", "4/3", "1", "a/b", "/", "-1/3", "1/0"):
        with pytest.raises(UsageError, match="--shard"):
            parse_shard(wrong)
    for name in (*(f"SLURM_ARRAY_TASK_{part}" for part in ("ID", "COUNT", "MIN", "MAX", "STEP")), "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="SLURM"):
        parse_shard("auto")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert parse_shard("auto") == (1, 4)
    for name, value in {"ID": "14", "COUNT": "3", "MIN": "10", "MAX": "14", "STEP": "2"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert parse_shard("auto") == (3, 3)
    # sbatch --array=1,3,7: every task has to refuse, since together they would leave cases out.
    for number in ("1", "3", "7"):
        for name, value in {"ID": number, "COUNT": "3", "MIN": "1", "MAX": "7", "STEP": "1"}.items():
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
        with pytest.raises(UsageError, match=f"without gaps .*, got task {number} of 3 from 1 to 7"):
            parse_shard("auto")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MAX", "?")
    with pytest.raises(UsageError, match="expected numbers"):
        parse_shard("auto")


def test_an_existing_output_is_refused_before_any_work(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "F.h5").write_text("mine")
    with pytest.raises(UsageError, match="--force"):
        extracted(folder, tmp_path / "F.h5")
    assert (tmp_path / "F.h5").read_text() == "mine"
