"""`auvtool bench downstream` as a command."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import auvtool
from downstream_arms import score_rows

from auvtool.experiment_schema import ANSWER_KEY, DOWNSTREAM, DOWNSTREAM_SUMMARY
from auvtool.schema import SCORES
from auvtool.tables import read_table, write_table


@pytest.mark.parametrize("arguments", [("bench", "--help"), ("bench", "downstream", "--help")])
def test_help_has_the_common_options_and_imports_nothing_heavy(arguments):
    code = f"import sys; from auvtool.cli.app import main; sys.argv = ['auvtool', *{arguments!r}]\ntry:\n    main()\n"
    code += "finally:\n    assert not {'torch', 'numpy', 'scipy', 'nnunetv2', 'rich', 'h5py'} & sys.modules.keys()\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "downstream" in done.stdout
    if "downstream" in arguments:
        assert all(option in done.stdout for option in ("-q, --quiet", "-v, --verbose", "--config", "-n, --dry-run"))


@pytest.fixture(scope="module")
def phantoms_once(tmp_path_factory):
    from auvtool.demonstration.phantom_data import DataPlan, write_phantom_dataset

    tmp_path, shape = tmp_path_factory.mktemp("phantoms"), (4, 48, 64)
    write_phantom_dataset(tmp_path, plan=DataPlan(14, 2, 2, shape, seed=1), on_case=lambda _: None)
    key = read_table(tmp_path / "answer_key.csv", ANSWER_KEY)
    dirty = [str(row["case"]) for row in key if row["dirty"]]
    cases = [str(row["case"]) for row in key]
    volumes = {case: 100.0 - place for place, case in enumerate(cases)}
    # Five of the seven dirty cases look the dirtiest, the other two the cleanest.
    good = {
        case: place / 100 + (1 if case in dirty[:5] else -1 if case in dirty else 0) for place, case in enumerate(cases)
    }
    write_table(score_rows(good, volumes=volumes), SCORES, tmp_path / "good.csv")
    write_table(score_rows({case: -value for case, value in good.items()}), SCORES, tmp_path / "bad.csv")
    return tmp_path


@pytest.fixture
def phantoms_with_faults(phantoms_once, tmp_path):
    """A data set of the demo's kind, 12 cases to train on of which 7 are dirty, and two tables of scores."""
    return Path(shutil.copytree(phantoms_once, tmp_path / "work"))


def bench(folder: Path, *options: str):
    fixed = ("--key", "answer_key.csv", "--scores", "good.csv", "--scores", "bad.csv", "-o", "D")
    return auvtool("bench", "downstream", "Dataset900_Phantoms", *fixed, *options, cwd=folder, timeout=1800)


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(phantoms_with_faults):
    before = sorted(phantoms_with_faults.rglob("*"))
    done = bench(phantoms_with_faults, "-n", "--seeds", "4", "--ratios", "0.75,0.5")
    assert done.returncode == 0, done.stderr
    assert "12 cases to train on, 7 of them dirty" in done.stdout
    assert "validation   2 clean cases: phantom_013, phantom_014" in done.stdout
    assert "trainings    13, of which 0 are done" in done.stdout
    assert "auvtool train Dataset900_Phantoms --keep D/keep/all_seed4.csv -o D/runs/all_seed4" in done.stdout
    assert sorted(phantoms_with_faults.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ratios", "1.5"], "--ratios: expected different numbers between 0 and 1, got 1.5"),
        (["--ratios", "many"], "--ratios: expected numbers like 0.9,0.8, got many"),
        (["--seeds", "0,0"], "--seeds: expected different numbers"),
        (
            ["--arms", "best"],
            "expected arms among all, random, good, bad, volume, oracle, clean, duo, duo-rw, duo-en, duo-base, got",
        ),
        (["--train", "--seed 1"], "--train: expected options that are the same for every arm, got --seed"),
        (["--train", "--epchs 3"], "--epchs: expected an option of auvtool train, got another; is it --epochs"),
        (["--train", "--epochs none"], "--epochs: expected a whole number, 1 or more, got none"),
        (["--scores", "good.csv"], "expected a file name that no other arm has"),
        (["--val-cases", "phantom_013,nobody"], "--val-cases: expected clean cases of Dataset900_Phantoms, got nobody"),
        (["--test", "imagesTs", "labelsTs"], "imagesTs: expected a folder of clean test cases, got none"),
    ],
)
def test_wrong_usage_is_one_line(phantoms_with_faults, options, message):
    done = bench(phantoms_with_faults, "-n", *options)
    assert done.returncode in {2, 3}
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_key_of_another_data_set_is_refused(phantoms_with_faults):
    path = phantoms_with_faults / "answer_key.csv"
    path.write_text(path.read_text().replace("phantom_003", "liver_3"))
    done = bench(phantoms_with_faults, "-n")
    assert done.returncode == 3
    assert "the answer key: expected the cases of Dataset900_Phantoms, got no row of phantom_003" in done.stderr


@pytest.mark.slow
def test_the_whole_experiment_with_tiny_trainings(phantoms_with_faults):
    size = "-c 2d --patch-size 40,64 --batch-size 2 --features 4 --epochs 1 --iterations 2 --val-iterations 1 --lr 0.1"
    options = ("--train", size, "--seeds", "0,1", "--arms", "all,random,good,oracle,clean,duo", "-j", "2")
    done = bench(phantoms_with_faults, *options)
    assert done.returncode == 0, done.stderr
    folder = phantoms_with_faults / "D"
    rows = read_table(folder / "downstream.csv", DOWNSTREAM)
    names = {row["class_name"] for row in rows}
    assert len(rows) == 6 * 2 * len(names)
    n_dirty_left = {row["arm"]: row["n_dirty_left"] for row in rows}
    assert (n_dirty_left["all"], n_dirty_left["good"], n_dirty_left["oracle"], n_dirty_left["clean"]) == (7, 2, 0, 0)
    assert {row["arm"]: row["n_training"] for row in rows} == {
        "all": 12, "random": 5, "good": 5, "oracle": 5, "clean": 5, "duo": 12,
    }  # fmt: skip
    assert all(row["dice"] is None or 0 <= float(str(row["dice"])) <= 1 for row in rows)
    dice = {(row["arm"], row["seed"], row["class_name"]): row["dice"] for row in rows}
    assert all(dice["oracle", seed, "all"] == dice["clean", seed, "all"] for seed in (0, 1))
    assert len(list((folder / "runs").glob("*.manifest.json"))) == 10  # clean is oracle's training
    assert sum("nnU-Net: fingerprint" in log.read_text() for log in (folder / "logs").glob("train_*.log")) <= 1
    record = json.loads((folder / "runs" / "duo_seed0" / "auvtool_run.json").read_text())
    assert record["recipe"]["loss"] == "duo"
    assert record["val_cases"] == ["phantom_013", "phantom_014"]
    summary = read_table(folder / "downstream_summary.csv", DOWNSTREAM_SUMMARY)
    assert len(summary) == 6 * len(names)
    assert (folder / "downstream.svg").is_file()
    assert "2 seeds, 2 test cases, one data set" in (folder / "downstream.md").read_text()
    again = bench(phantoms_with_faults, *options)
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    assert "\n$ " not in again.stderr
    refused = bench(phantoms_with_faults, *shlex.split("--seeds 0"))
    assert refused.returncode == 2
    assert "expected an experiment with the same plan" in refused.stderr
