"""`auvtool filter` as a user runs it."""

import csv
import io
import json
import subprocess
import sys

import pytest
from command_line import auvtool
from phantoms import write_raw_dataset
from typer.testing import CliRunner

from auvtool import run_lock
from auvtool.cli.app import app
from auvtool.dataset import open_dataset
from auvtool.errors import ExitCode
from auvtool.keep_list import read_keep_list
from auvtool.schema import KEEP_LIST, SCORES
from auvtool.tables import render

# Ten cases; case_09 is the most uncertain, and case_04 has no AUV.
AUV = [0.1, 0.2, 0.3, 0.4, None, 0.5, 0.6, 0.7, 0.8, 1.0]


def scores_text(kind="csv", *, small_only_in=None):
    rows = []
    for number, auv in enumerate(AUV):
        case = f"case_{number:02d}"
        status = "absent" if auv is None else "ok"
        for class_id, name in ((1, "large"), (2, "small"), (None, "all")):
            absent = auv is None or (name == "small" and small_only_in is not None and case != small_only_in)
            row = {
                "case": case,
                "class_id": class_id,
                "class_name": name,
                "status": "absent" if absent else status,
                "quantifier": "auv",
                "method": "test",
                "axis": "log",
            }
            rows.append(row | {"auv": None if absent else auv, "volume_ml": None if absent else 1.0})
    return render(rows, SCORES, kind)


@pytest.fixture
def scores(tmp_path):
    path = tmp_path / "S.csv"
    path.write_text(scores_text())
    return path


def test_plot_shows_where_the_quantile_cuts(scores, tmp_path):
    out, plot = tmp_path / "K.csv", tmp_path / "K.svg"
    assert auvtool("filter", scores, "-o", out, "--plot", plot).returncode == 0
    assert plot.read_text().startswith("<?xml")
    by_class = tmp_path / "C.svg"
    assert auvtool("filter", scores, "--per-class", "union", "-o", out, "--plot", by_class, "-f").returncode == 0
    assert by_class.read_text() != plot.read_text()
    same = auvtool("filter", scores, "-o", plot, "--plot", plot, "-f")
    assert (same.returncode, same.stderr.count("\n")) == (2, 1)


def test_keep_list_with_manifest(scores, tmp_path):
    done = auvtool("filter", scores, "--quantile", "0.8", "-o", tmp_path / "K.csv")
    assert (done.returncode, done.stdout) == (0, "")
    assert read_keep_list(tmp_path / "K.csv").dropped == {"case_09"}
    assert "filter: 9 of 10 cases kept, 1 dropped" in done.stderr
    assert "kept because not judged: 1 case (case_04)" in done.stderr
    assert "filter: large: in 8 kept and 1 dropped cases, median volume 1 and 1 ml" in done.stderr
    manifest = json.loads((tmp_path / "K.csv.manifest.json").read_text())
    assert manifest["command"] == "filter"
    assert manifest["options"]["quantile"] == 0.8
    assert manifest["counts"] == {"kept": 9, "dropped": 1}
    assert auvtool("filter", scores, "-o", tmp_path / "K.csv").returncode == ExitCode.USAGE
    assert auvtool("filter", scores, "-o", tmp_path / "K.csv", "--force", "--quiet").stderr == ""


@pytest.mark.parametrize("options", [["-o", "/dev/full"], ["-o", "/dev/full", "--ids"]])
def test_full_disk(scores, options):
    done = auvtool("filter", scores, *options, "--quiet")
    assert done.returncode == ExitCode.UNEXPECTED
    assert done.stderr.count("\n") == 1
    assert "got 'No space left on device'" in done.stderr


def test_pipe_in_and_out():
    done = auvtool("filter", "-", "--quantile", "0.8", input=scores_text("jsonl"))
    assert done.returncode == 0
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0]) == KEEP_LIST.column_names()
    assert [row["keep"] for row in rows] == ["true"] * 9 + ["false"]
    assert rows[4]["reason"] == "not judged: absent"
    assert rows[9]["reason"] == "AUV 1 above 0.8"


def test_ids(scores):
    done = auvtool("filter", scores, "--quantile", "0.5", "--ids", "--quiet")
    assert done.stdout.split() == [f"case_0{number}" for number in range(6)]
    assert done.stderr == ""


def test_per_class(scores):
    done = auvtool(
        "filter", scores, "--quantile", "0.8", "--per-class", "intersection", "--classes", "small", "--format", "jsonl"
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows[9]["reason"] == "small AUV 1 above 0.8"
    done = auvtool("filter", scores, "--classes", "kidney")
    assert done.returncode == ExitCode.USAGE
    assert "--classes: expected classes among large, small, got kidney; correct them" in done.stderr


def test_appended_fold_prints_its_number(scores, tmp_path):
    splits = tmp_path / "splits_final.json"
    cases = [f"case_{number:02d}" for number in range(10)]
    fold = {"train": [*cases[:8], "case_09"], "val": ["case_08"]}
    splits.write_text(json.dumps([fold]))
    dry = auvtool("filter", scores, "--quantile", "0.7", "--append-fold", splits, "--dry-run")
    assert (dry.returncode, dry.stdout) == (0, "")
    assert "fold 1 would be appended" in dry.stderr
    assert json.loads(splits.read_text()) == [fold]
    for again in (False, True):
        done = auvtool(
            "filter", scores, "--quantile", "0.7", "--append-fold", splits, "-o", tmp_path / "K.csv", "--force"
        )
        assert (done.returncode, done.stdout) == (0, "1\n")
        assert "not dropped: 1 validation case (case_08)" in done.stderr
        assert ("found (it is there already)" in done.stderr) == again
        assert json.loads(splits.read_text()) == [fold, {"train": cases[:8], "val": ["case_08"]}]


def test_filters_of_one_split_file_wait_for_one_another(scores, tmp_path, monkeypatch):
    splits = tmp_path / "splits_final.json"
    cases = [f"case_{number:02d}" for number in range(10)]
    fold, appended = {"train": cases[:8], "val": ["case_08"]}, {"train": cases[:2], "val": ["case_08"]}
    splits.write_text(json.dumps([fold]))
    other = run_lock.run_lock(splits, warn=pytest.fail)
    other.__enter__()

    def the_other_ends(*_):
        splits.write_text(json.dumps([fold, appended]))
        other.__exit__(None, None, None)

    monkeypatch.setattr(run_lock, "_wait_or_raise", the_other_ends)
    done = CliRunner().invoke(app, ["filter", str(scores), "--quantile", "0.5", "--append-fold", str(splits), "--ids"])
    assert done.exit_code == 0, done.output
    found = json.loads(splits.read_text())
    assert found[:2] == [fold, appended]
    assert len(found) == 3


def test_new_dataset_by_reference(tmp_path):
    source = write_raw_dataset(tmp_path / "Dataset001_All", n_cases=10)
    (tmp_path / "S.csv").write_text(scores_text())
    options = ("--new-dataset", "Dataset101_Kept", "--by-reference", "--dataset", source.name)
    dry = auvtool("filter", "S.csv", "--quantile", "0.8", *options, "--dry-run", cwd=tmp_path)
    assert dry.returncode == 0
    assert not (tmp_path / "Dataset101_Kept").exists()
    done = auvtool("filter", "S.csv", "--quantile", "0.8", *options, "--ids", cwd=tmp_path)
    assert done.returncode == 0
    assert "Dataset101_Kept written: 9 cases by reference" in done.stderr
    assert [case.case_id for case in open_dataset(tmp_path / "Dataset101_Kept").cases] == done.stdout.split()


def test_a_class_is_not_lost_and_nothing_is_written(tmp_path):
    splits = tmp_path / "splits_final.json"
    splits.write_text('[{"train": ["case_00", "case_09"], "val": []}]')
    (tmp_path / "S.csv").write_text(scores_text(small_only_in="case_09"))
    done = auvtool("filter", tmp_path / "S.csv", "-o", tmp_path / "K.csv", "--append-fold", splits, "--quantile", "0.8")
    assert done.returncode == ExitCode.INVALID_INPUT
    assert done.stderr.count("\n") == 1
    assert "expected a training case left for every class, got none for small; use a larger --quantile" in done.stderr
    assert not (tmp_path / "K.csv").exists()
    assert len(json.loads(splits.read_text())) == 1


def test_a_class_is_not_lost_in_the_fold_alone(tmp_path):
    """The class is left in a validation case, which does not help training."""
    splits = tmp_path / "splits_final.json"
    splits.write_text('[{"train": ["case_00", "case_09"], "val": ["case_01"]}]')
    text = scores_text(small_only_in="case_09").replace(
        "case_01,2,small,absent,auv,test,,,log,", "case_01,2,small,ok,auv,test,,0.2,log,"
    )
    (tmp_path / "S.csv").write_text(text)
    assert auvtool("filter", tmp_path / "S.csv", "--quantile", "0.8", "--ids").returncode == 0
    done = auvtool("filter", tmp_path / "S.csv", "--quantile", "0.8", "--ids", "--append-fold", splits)
    assert done.returncode == ExitCode.INVALID_INPUT
    assert "got none for small" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--quantile", "0"], "--quantile: expected a number above 0 and up to 1, got 0"),
        (["--quantile", "90"], "--quantile: expected a number above 0 and up to 1, got 90"),
        (["--fold", "1"], "--fold: expected --append-fold beside it"),
        (["--new-dataset", "Dataset101_Kept"], "expected --new-dataset DIR --dataset SRC together"),
        (["--by-reference"], "expected --new-dataset DIR --dataset SRC together"),
    ],
)
def test_wrong_usage(scores, options, message):
    done = auvtool("filter", scores, *options)
    assert done.returncode == ExitCode.USAGE
    assert message in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("lines", [0, 2])
def test_the_keep_list_is_written_though_nobody_reads_the_messages(scores, tmp_path, lines):
    words = " ".join(
        map(str, [sys.executable, "-m", "auvtool", "filter", scores, "--quantile", "0.8", "-o", tmp_path / "K.csv"])
    )
    shell = f"{words} 2>&1 | head -{lines}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, lines, "")
    assert read_keep_list(tmp_path / "K.csv").dropped == {"case_09"}
    assert (tmp_path / "K.csv.manifest.json").is_file()


def test_the_scores_are_not_replaced_by_the_keep_list(scores):
    done = auvtool("filter", scores, "-o", scores, "--force")
    assert (done.returncode, done.stderr.count("\n"), scores.read_text()) == (ExitCode.USAGE, 1, scores_text())


def test_standard_output_as_a_file_is_written_in_place(scores, tmp_path):
    with (tmp_path / "K.csv").open("w") as file:
        words = [sys.executable, "-m", "auvtool", "filter", scores, "--quantile", "0.8", "-q", "-o", "/dev/stdout"]
        done = subprocess.run(list(map(str, words)), stdout=file, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_keep_list(tmp_path / "K.csv").dropped == {"case_09"}


def test_a_quantile_that_drops_no_case_is_said(scores):
    said = "warning: --quantile 0.95 of 10 cases drops none; a smaller one drops some"
    assert said in auvtool("filter", scores, "--quantile", "0.95").stderr
    assert said not in auvtool("filter", scores, "--quantile", "0.8").stderr
