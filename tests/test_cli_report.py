"""`auvtool report`: exit codes, outputs, refusals."""

import csv
import json

import pytest
from command_line import auvtool, auvtool_on_terminal
from features import case_features, random_maps, write_features
from phantoms import truncate, write_raw_dataset
from report_inputs import write_keep, write_run, write_scores

from auvtool.errors import ExitCode
from auvtool.feature_store import FeatureFile


@pytest.fixture
def scores(tmp_path):
    return write_scores(tmp_path / "S.csv")


def test_a_file_its_manifest_and_force(scores, tmp_path):
    out = tmp_path / "R.html"
    arguments = ("report", scores, "--keep", write_keep(tmp_path / "K.csv"), "--training", write_run(tmp_path / "RUN"))
    done = auvtool(*arguments, "-o", out)
    assert (done.returncode, done.stdout) == (0, "")
    assert "10 cases" in done.stderr
    assert out.read_text().startswith("<!DOCTYPE html>")
    manifest = json.loads((tmp_path / "R.html.manifest.json").read_text())
    assert manifest["options"] == {"top": 6, "case": None, "format": "html"}
    assert manifest["counts"] == {"cases": 10, "with_slices": 0, "failed": 0}
    assert len(manifest["inputs"]) == 3
    first = out.read_bytes()
    assert auvtool(*arguments, "-o", out).returncode == ExitCode.USAGE
    assert auvtool(*arguments, "-o", out, "--force", "-q").stderr == ""
    assert out.read_bytes() == first


def test_pipes_and_formats(scores, tmp_path):
    done = auvtool("report", "-", "--format", "md", "-q", input=scores.read_text())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("# scores\n")
    assert auvtool("report", scores, "-o", tmp_path / "R.md").returncode == 0
    assert (tmp_path / "R.md").read_text().startswith("# S.csv\n")
    assert auvtool("report", scores).stdout.startswith("<!DOCTYPE html>")


def test_a_terminal_gets_markdown(scores):
    done = auvtool_on_terminal("report", scores, "-q")
    assert done.returncode == 0
    assert done.stdout.startswith("# S.csv")


def test_a_bad_case_is_a_row_of_the_failures_and_exit_4(scores, tmp_path):
    dataset = write_raw_dataset(tmp_path / "Dataset001_All", n_cases=10)
    truncate(dataset / "imagesTr" / "case_09_0000.nii.gz")
    out = tmp_path / "R.html"
    done = auvtool("report", scores, "--dataset", dataset, "--top", 1, "-o", out)
    assert done.returncode == ExitCode.SOME_CASES_FAILED
    assert "the slices of 1 case could not be shown; the page says so" in done.stderr
    assert "No slices: " in out.read_text()
    (row,) = csv.DictReader((tmp_path / "R.html.failures.csv").read_text().splitlines())
    assert (row["case"], row["step"]) == ("case_09", "report")
    assert auvtool("report", scores, "-o", out, "--force").returncode == 0
    assert not (tmp_path / "R.html.failures.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--case", "nobody"), ExitCode.USAGE, "--case: expected a case of"),
        (("--top", "51"), ExitCode.USAGE, "--top"),
        (("--format", "pdf"), ExitCode.USAGE, "--format"),
        (("-o", "R.pdf"), ExitCode.USAGE, "-o: expected a file that ends in .html or .md, got R.pdf"),
        (("--features", "none.h5"), ExitCode.INVALID_INPUT, "none.h5: expected a feature file, got no such file"),
        (("--dataset", "none"), ExitCode.INVALID_INPUT, "none: expected a readable folder"),
        (("--keep", "none.csv"), ExitCode.INVALID_INPUT, "none.csv: expected a readable table"),
        (("--metrics", "none.csv"), ExitCode.INVALID_INPUT, "none.csv: expected a readable table"),
        (("--training", "none"), ExitCode.INVALID_INPUT, "none: expected a folder that train wrote"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(arguments, code, said, scores, tmp_path):
    done = auvtool("report", scores, "-o", tmp_path / "R.html", *arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert not (tmp_path / "R.html").exists()


def test_an_input_is_never_replaced(scores):
    before = scores.read_bytes()
    done = auvtool("report", scores, "-o", scores, "--force")
    assert done.returncode == ExitCode.USAGE
    assert "-o: expected a file that ends in .html or .md" in done.stderr
    assert (
        "expected another file than those that are read"
        in auvtool("report", scores, "-o", scores, "--force", "--format", "html").stderr
    )
    assert scores.read_bytes() == before


def test_features_of_another_extraction_are_refused(scores, tmp_path):
    rows = scores.read_text().splitlines()
    column = rows[0].split(",").index("method")
    method = rows[1].split(",")[column]
    scores.write_text("\n".join(row.replace(method, "litemedsam mask-box mask 0123abcd") for row in rows) + "\n")
    with FeatureFile(write_features(tmp_path / "F.h5", [case_features("case_0", random_maps(0))])) as file:
        given = file.header.extraction
    done = auvtool("report", scores, "--features", tmp_path / "F.h5", "-o", tmp_path / "R.html")
    assert done.returncode == ExitCode.INVALID_INPUT
    said = f"expected the features that were scored (litemedsam mask-box mask 0123abcd), got {given}; name their file"
    assert said in done.stderr
