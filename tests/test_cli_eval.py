import csv
import io
import json
import math
import os
import subprocess
import sys

import numpy as np
import phantoms
import pytest
from command_line import auvtool, auvtool_on_terminal

from auvtool.errors import ExitCode
from auvtool.schema import FAILURES, METRICS, PAIRED_METRICS
from auvtool.tables import read_table


@pytest.fixture
def pair(tmp_path):
    """A data set of 3 cases and perfect predictions of them."""
    dataset = phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=3)
    for path in (dataset / "labelsTr").iterdir():
        phantoms.write_volume(tmp_path / "P" / path.name, phantoms.box_label())
    return tmp_path / "P", dataset


def test_stdout_is_the_table_and_a_file_has_its_manifest(pair, tmp_path):
    done = auvtool("eval", *pair)
    assert done.returncode == 0
    assert done.stderr.startswith("eval: 3/3")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(rows) == 9
    assert {float(row["dice"]) for row in rows} == {1.0}
    done = auvtool("eval", *pair, "-o", tmp_path / "M.tsv", "-j", "2")
    assert (done.returncode, done.stdout) == (0, "")
    assert "means over 3 of 3 cases" in done.stderr
    assert len(read_table(tmp_path / "M.tsv", METRICS)) == 9
    assert json.loads((tmp_path / "M.tsv.manifest.json").read_text())["counts"]["cases"] == 3
    assert auvtool("eval", *pair, "-o", tmp_path / "M.tsv", "--force", "-q").stderr == ""


def test_terminal_gets_the_means(pair):
    done = auvtool_on_terminal("eval", "-q", *pair)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert "means over 3 of 3 cases" in lines[0]
    assert [line.split()[0] for line in lines[2:]] == ["large", "small", "all"]


def test_nnunet_format(pair, tmp_path):
    done = auvtool("eval", *pair, "--format", "nnunet", "-q")
    assert json.loads(done.stdout)["foreground_mean"]["Dice"] == 1.0
    assert auvtool("eval", *pair, "--format", "nnunet", "-o", tmp_path / "summary.json", "-q").returncode == 0
    assert (tmp_path / "summary.json").read_text() + "\n" == done.stdout
    assert auvtool("eval", *pair, "--format", "nnunet", "-o", tmp_path / "summary.json").returncode == ExitCode.USAGE


def test_missing_predictions_are_listed_and_refused(pair):
    (pair[0] / "case_01.nii.gz").unlink()
    done = auvtool("eval", *pair)
    assert (done.returncode, done.stdout) == (ExitCode.INVALID_INPUT, "")
    assert "got none of case_01;" in done.stderr
    done = auvtool("eval", *pair, "--allow-missing")
    assert done.returncode == 0
    assert "in no mean: case_01" in done.stderr
    assert len(done.stdout.splitlines()) == 1 + 6


def test_a_bad_case_is_a_failure_row_and_exit_4(pair, tmp_path):
    phantoms.truncate(pair[0] / "case_01.nii.gz")
    done = auvtool("eval", *pair, "-o", tmp_path / "M.csv", "-q")
    assert done.returncode == ExitCode.SOME_CASES_FAILED
    assert len(read_table(tmp_path / "M.csv", METRICS)) == 6
    assert [row["case"] for row in read_table(tmp_path / "M.csv.failures.csv", FAILURES)] == ["case_01"]
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["auvtool"] * 2
    assert auvtool("eval", *pair, "--fail-fast").returncode == ExitCode.INVALID_INPUT
    phantoms.write_volume(pair[0] / "case_01.nii.gz", phantoms.box_label())
    assert auvtool("eval", *pair, "-o", tmp_path / "M.csv", "--force").returncode == 0
    assert not (tmp_path / "M.csv.failures.csv").exists()


def test_nothing_to_evaluate(pair, tmp_path):
    for path in pair[0].iterdir():
        phantoms.truncate(path)
    done = auvtool("eval", *pair, "-o", tmp_path / "M.csv", "-q")
    assert done.returncode == ExitCode.SOME_CASES_FAILED
    assert not (tmp_path / "M.csv").exists()
    assert auvtool("eval", pair[0], tmp_path / "none").returncode == ExitCode.INVALID_INPUT
    assert auvtool("eval", *pair, "--format", "xlsx").returncode == ExitCode.USAGE


def test_absent_class_is_an_empty_cell(pair):
    for path in (pair[0] / "case_00.nii.gz", pair[1] / "labelsTr" / "case_00.nii.gz"):
        phantoms.write_volume(path, phantoms.box_label(boxes={1: phantoms.BOXES[1]}))
    rows = list(csv.DictReader(io.StringIO(auvtool("eval", *pair).stdout)))
    assert (rows[1]["status"], rows[1]["dice"]) == ("absent", "")
    summary = json.loads(auvtool("eval", *pair, "--format", "nnunet").stdout)
    assert math.isnan(summary["metric_per_case"][0]["metrics"]["2"]["Dice"])


# --- surfaces, means for DVC, two runs ---


def test_surfaces_on_request(pair, tmp_path):
    shifted = np.roll(phantoms.box_label(), 1, axis=2)
    phantoms.write_volume(pair[0] / "case_01.nii.gz", shifted)
    done = auvtool("eval", *pair, "--hd95", "--nsd", "0.5", "-o", tmp_path / "M.csv")
    assert done.returncode == 0
    # Behind lines of progress, of which a busy machine sees more than one.
    header = next(line for line in done.stderr.splitlines() if line.startswith("class"))
    assert header.split()[:5] == ["class", "dice", "iou", "hd95_mm", "nsd"]
    rows = [row for row in read_table(tmp_path / "M.csv", METRICS) if row["class_name"] == "large"]
    assert [row["hd95_mm"] for row in rows] == [0.0, 1.0, 0.0]
    assert [row["nsd"] < 1.0 for row in rows] == [False, True, False]
    assert {row["nsd_tolerance_mm"] for row in rows} == {0.5}
    only = [row for row in csv.DictReader(io.StringIO(auvtool("eval", *pair, "--hd95").stdout)) if row["class_id"]]
    assert {row["nsd"] for row in only} == {""}
    done = auvtool("eval", *pair, "--nsd", "-1")
    assert (done.returncode, "0 or more, got -1" in done.stderr) == (ExitCode.USAGE, True)


def test_means_are_numbers_in_numbers(pair, tmp_path):
    phantoms.write_volume(pair[0] / "case_01.nii.gz", phantoms.box_label(boxes={1: phantoms.BOXES[1]}))
    done = auvtool("eval", *pair, "-o", tmp_path / "M.csv", "--means", tmp_path / "M.json", "-q")
    assert (done.returncode, done.stderr) == (0, "")
    means = json.loads((tmp_path / "M.json").read_text())
    assert means["dice"] == {"large": 1.0, "small": 2 / 3, "all": pytest.approx(5 / 6)}
    assert (means["n_cases"], means["n_missed"]["small"]) == (3, 1)
    assert auvtool("eval", *pair, "--means", tmp_path / "M.json").returncode == ExitCode.USAGE
    done = auvtool("eval", *pair, "-o", tmp_path / "x", "--means", tmp_path / "x")
    assert "name two files" in done.stderr


def test_a_class_without_a_mean_is_no_number(pair, tmp_path):
    for path in [*pair[0].iterdir(), *(pair[1] / "labelsTr").iterdir()]:
        phantoms.write_volume(path, phantoms.box_label(boxes={1: phantoms.BOXES[1]}))
    assert auvtool("eval", *pair, "--means", tmp_path / "M.json").returncode == 0
    assert json.loads((tmp_path / "M.json").read_text())["dice"] == {"large": 1.0, "all": 1.0}


def test_a_class_called_as_all_of_them(pair, tmp_path):
    phantoms.edit_dataset_json(pair[1], labels={"background": 0, "all": 1, "small": 2})
    phantoms.write_volume(pair[0] / "case_01.nii.gz", phantoms.box_label(boxes={1: phantoms.BOXES[1]}))
    done = auvtool("eval", *pair, "-o", tmp_path / "M.csv", "--means", tmp_path / "M.json")
    assert [line.split("  ")[0] for line in done.stderr.splitlines()[-3:]] == ["all (class)", "small", "all"]
    means = json.loads((tmp_path / "M.json").read_text())["dice"]
    assert means == {"all (class)": 1.0, "small": 2 / 3, "all": pytest.approx(5 / 6)}
    done = auvtool("eval", "--compare", tmp_path / "M.csv", tmp_path / "M.csv", "-o", tmp_path / "C.csv")
    assert sum(line.startswith("dice ") for line in done.stderr.splitlines()) == 1


@pytest.fixture
def runs(pair, tmp_path):
    """Metrics A of a run, and B of a worse one."""
    assert auvtool("eval", *pair, "-o", tmp_path / "A.csv").returncode == 0
    for path in pair[0].iterdir():
        phantoms.write_volume(path, np.roll(phantoms.box_label(), 1, axis=2))
    assert auvtool("eval", *pair, "-o", tmp_path / "B.csv").returncode == 0
    return tmp_path / "A.csv", tmp_path / "B.csv"


def test_two_runs_are_compared(runs, tmp_path):
    done = auvtool("eval", "--compare", *runs)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(row["metric"], row["class_name"]) for row in rows] == [
        (metric, name) for metric in ("dice", "iou") for name in ("large", "small", "all")
    ]
    assert {(row["n"], row["n_better"], row["n_worse"]) for row in rows} == {("3", "0", "3")}
    assert all(float(row["difference"]) < 0 for row in rows)
    done = auvtool("eval", "--compare", *runs, "-o", tmp_path / "C.csv", "--seed", "3")
    assert (done.returncode, done.stdout) == (0, "")
    assert [line.split()[:3] for line in done.stderr.splitlines()[3:]] == [["dice", "all", "3"], ["iou", "all", "3"]]
    assert read_table(tmp_path / "C.csv", PAIRED_METRICS)[0]["n_worse"] == 3
    assert json.loads((tmp_path / "C.csv.manifest.json").read_text())["options"]["seed"] == 3


def test_cases_of_one_run_alone_are_named(runs):
    lines = runs[1].read_text().splitlines(keepends=True)
    runs[1].write_text("".join(line for line in lines if not line.startswith("case_01")))
    done = auvtool("eval", "--compare", *runs)
    assert (done.returncode, done.stdout) == (ExitCode.INVALID_INPUT, "")
    assert f"{runs[1]}: expected the cases of {runs[0]}, got none of case_01;" in done.stderr
    done = auvtool("eval", "--compare", *runs, "--allow-missing")
    assert (done.returncode, f"cases of {runs[0]} alone, in no pair: case_01" in done.stderr) == (0, True)
    assert {row["n"] for row in csv.DictReader(io.StringIO(done.stdout))} == {"2"}


def test_options_that_would_change_nothing_are_refused(pair, runs):
    for words in (
        *(["P", "--compare", *runs], ["--hd95", "--compare", *runs], ["-j", "2", "--compare", *runs], [pair[0]], []),
        *([*pair, "--seed", "1"], [*pair, "--resamples", "9"], [*pair, "--format", "xlsx"]),
    ):
        done = auvtool("eval", *words)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (ExitCode.USAGE, "", 1), words


def test_a_default_of_the_other_mode_does_not_stand_in_the_way(runs, tmp_path):
    config = tmp_path / "auvtool.toml"
    config.write_text('[eval]\nnsd = 1\nhd95 = true\nmeans = "M.json"\nformat = "nnunet"\n')
    plain = auvtool("eval", "--compare", *runs, "-q")
    configured = auvtool("eval", "--compare", *runs, "-q", "--config", config)
    assert (configured.returncode, configured.stderr, configured.stdout) == (0, "", plain.stdout)
    environment = {**os.environ, "AUVTOOL_EVAL_NSD": "1"}
    assert auvtool("eval", "--compare", *runs, "-q", env=environment).stdout == plain.stdout
    typed = auvtool("eval", "--compare", *runs, "--nsd", "2", "--config", config)
    assert (typed.returncode, typed.stderr.split(":")[1]) == (ExitCode.USAGE, " --nsd")


def test_many_missing_cases_are_counted_and_some_named(runs):
    lines = [line for line in runs[0].read_text().splitlines() if "case_00" in line or line.startswith("case,")]
    for number in range(1, 30):
        lines += [line.replace("case_00", f"more_{number:02d}") for line in lines[1:4]]
    runs[0].write_text("\n".join(lines) + "\n")
    done = auvtool("eval", "--compare", *runs, "--allow-missing")
    assert f"29 cases of {runs[0]} alone, in no pair: more_01, more_02, more_03, more_04, more_05, ...\n" in done.stderr
    refused = auvtool("eval", "--compare", *runs)
    assert "got none of more_01, more_02, more_03, more_04, more_05, ...; evaluate" in refused.stderr


def test_no_output_takes_the_place_of_what_is_read(runs, pair):
    before = runs[0].read_bytes()
    done = auvtool("eval", "--compare", *runs, "-o", runs[0], "--force")
    assert (done.returncode, done.stderr.count("\n"), runs[0].read_bytes()) == (ExitCode.USAGE, 1, before)
    done = auvtool("eval", *pair, "--format", "nnunet", "-o", pair[1] / "dataset.json", "--force")
    assert (done.returncode, "labels" in (pair[1] / "dataset.json").read_text()) == (ExitCode.USAGE, True)


def test_a_dataset_json_that_is_not_there_is_named_as_given(pair, tmp_path):
    for name, where in (("none.json", "none.json"), ("none", "none/dataset.json")):
        done = auvtool("eval", *pair, "-d", name, cwd=tmp_path)
        assert (done.returncode, done.stderr.split(": ")[1]) == (ExitCode.INVALID_INPUT, where)


def test_the_table_is_written_though_nobody_reads_the_messages(pair, tmp_path):
    phantoms.truncate(pair[0] / "case_01.nii.gz")
    words = " ".join(map(str, [sys.executable, "-m", "auvtool", "eval", *pair, "-o", tmp_path / "M.csv"]))
    shell = f"{words} 2>&1 | true; exit ${{PIPESTATUS[0]}}"
    assert subprocess.run(["bash", "-c", shell], check=False).returncode == ExitCode.SOME_CASES_FAILED
    assert {path.name for path in tmp_path.glob("M.csv*")} == {"M.csv", "M.csv.manifest.json", "M.csv.failures.csv"}
