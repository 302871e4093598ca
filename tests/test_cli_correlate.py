import csv
import io
import json
import re

import pytest
from command_line import auvtool, auvtool_before_head, auvtool_on_terminal
from score_tables import CASES, metric_row, random_tables, score_row

from auvtool.errors import ExitCode
from auvtool.schema import CORRELATIONS, KEEP_LIST, METRICS, SCORES
from auvtool.tables import read_table, write_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Scores of auv and fisher, and metrics, of 12 cases and 3 classes."""
    folder = tmp_path_factory.mktemp("correlate")
    auv, metrics, _ = random_tables()
    fisher, _, _ = random_tables(1, quantifier="fisher", sign=-1.0)
    write_table(auv, SCORES, folder / "S.csv")
    write_table(fisher, SCORES, folder / "fisher.csv")
    write_table(metrics, METRICS, folder / "M.csv")
    return folder


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_stdout_is_the_table_and_stderr_says_what_is_common(folder):
    done = auvtool("correlate", folder / "S.csv", folder / "M.csv")
    assert done.returncode == 0
    rows = rows_of(done.stdout)
    assert list(rows[0]) == CORRELATIONS.column_names()
    assert [(row["level"], row["class_name"], row["n"]) for row in rows] == [
        ("classes", "all", "3"),
        *(("cases", name, "12") for name in ("all", "liver", "spleen", "tumour")),
    ]
    assert rows[0]["pearson_low"] == ""
    said = done.stderr.splitlines()
    assert said[0] == ("correlate: 12 cases (12 scored, 12 evaluated) and 3 classes (liver, spleen, tumour) in common")
    assert "1 of 5 rows with fewer than 10 points" in said[1]
    assert len(said) == 2
    assert auvtool("correlate", folder / "S.csv", folder / "M.csv", "-q").stderr == ""


def test_order_of_files_does_not_matter_and_pipes_do(folder):
    expected = auvtool("correlate", folder / "S.csv", folder / "M.csv").stdout
    assert auvtool("correlate", folder / "M.csv", folder / "S.csv").stdout == expected
    scores, metrics = ((folder / name).read_text() for name in ("S.csv", "M.csv"))
    assert auvtool("correlate", "-", folder / "M.csv", input=scores).stdout == expected
    assert auvtool("correlate", folder / "S.csv", "-", input=metrics).stdout == expected


def test_options(folder):
    files = folder / "S.csv", folder / "M.csv"

    def rows(*options):
        done = auvtool("correlate", *files, *options, "-q")
        assert done.returncode == 0, done.stderr
        return rows_of(done.stdout)

    assert [row["level"] for row in rows("--level", "classes")] == ["classes"]
    assert {row["level"] for row in rows("--level", "cases")} == {"cases"}
    assert {row["metric"] for row in rows("--metric", "iou")} == {"iou"}
    assert [row["class_name"] for row in rows("--level", "cases", "--classes", "tumour, liver")] == [
        *("all", "liver", "tumour")
    ]
    assert rows("--resamples", "0")[1]["spearman_low"] == ""
    assert rows("--seed", "1")[1]["spearman_low"] != rows()[1]["spearman_low"]
    done = auvtool("correlate", *files, "--format", "jsonl", "-q")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert records[0]["pearson_low"] is None
    assert records[1]["n"] == 12


def test_several_quantifiers_stand_under_one_another_and_many_rows_are_counted(folder):
    done = auvtool("correlate", folder / "S.csv", folder / "M.csv", folder / "fisher.csv")
    assert [row["quantifier"] for row in rows_of(done.stdout)] == ["auv", "fisher"] * 5
    assert "10 rows are tested at once" in done.stderr
    assert "0.005 for one (Bonferroni)" in done.stderr


def test_file_and_manifest(folder, tmp_path):
    out = tmp_path / "T.csv"
    arguments = ("correlate", folder / "S.csv", folder / "M.csv", "-o", out)
    done = auvtool(*arguments, "--seed", "3")
    assert (done.returncode, done.stdout) == (0, "")
    assert len(read_table(out, CORRELATIONS)) == 5
    manifest = json.loads((tmp_path / "T.csv.manifest.json").read_text())
    assert manifest["command"] == "correlate"
    assert manifest["options"] == {"metric": "dice", "level": "both", "classes": [], "resamples": 2000, "seed": 3}
    assert set(manifest["inputs"]) == {str(folder / "S.csv"), str(folder / "M.csv")}
    assert manifest["counts"] == {"score_tables": 1, "rows": 5}
    first = out.read_bytes()
    assert auvtool(*arguments, "--seed", "3").returncode == ExitCode.USAGE
    assert auvtool(*arguments, "--seed", "3", "--force").returncode == 0
    assert out.read_bytes() == first
    described = auvtool("info", out).stdout
    assert "correlations (auvtool.correlations version 1)" in described
    assert re.search(r"quantifiers +auv\n", described)


def test_scores_and_metrics_that_are_not_of_the_same(folder, tmp_path):
    scores, _, _ = random_tables()
    kidney = [row | {"class_id": 4, "class_name": "kidney"} for row in scores if row["class_id"] == 1]
    fewer = [row for row in (*scores, *kidney) if row["case"] not in CASES[:2]]
    write_table(fewer, SCORES, tmp_path / "S.csv")
    done = auvtool("correlate", tmp_path / "S.csv", folder / "fisher.csv", folder / "M.csv")
    assert done.returncode == 0
    assert (
        "correlate: auv: 10 cases (10 scored, 12 evaluated) and 3 classes (liver, spleen, tumour) in common; "
        "fisher: 12 cases (12 scored, 12 evaluated)"
    ) in done.stderr
    assert "do not hold the same cases" in done.stderr
    assert "classes that are scored but not evaluated are left out (auv: kidney)" in done.stderr


def terminal(*arguments, columns):
    """The lines that `auvtool ARGUMENTS` prints on a terminal of that width, and what it says."""
    done = auvtool_on_terminal(*arguments, columns=columns)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_terminal_gets_the_layout_of_table_4(folder):
    files = folder / "S.csv", folder / "fisher.csv", folder / "M.csv"
    lines, said = terminal("correlate", *files, columns=140)
    assert " ".join(lines[0].split()) == "quantifier level class n Pearson p Spearman p partial p"
    assert [line.split()[:4] for line in lines[1:5]] == [
        ["auv", "classes", "all", "3"],
        ["fisher", "classes", "all", "3"],
        ["auv", "cases", "all", "12"],
        ["fisher", "cases", "all", "12"],
    ]
    assert len(lines) == 11
    number = r"-?\d\.\d{3}"
    interval = r"\[ ?-?\d\.\d\d, +-?\d\.\d\d\]"
    p = r"(<0\.001|\d\.\d{3})"
    assert re.fullmatch(rf"auv +cases +all +12 +({number} {interval} +{p} +){{2}}{number} +{p} *", lines[3])
    assert re.fullmatch(rf"auv +classes +all +3 +({number} +{p} +){{2}}({number}|-) +({p}|-) *", lines[1])
    assert "narrow" not in said


def test_narrow_terminal_loses_the_intervals_but_no_digit(folder):
    lines, said = terminal("correlate", folder / "S.csv", folder / "M.csv", columns=80)
    assert " ".join(lines[0].split()) == "quantifier points n Pearson p Spearman p partial p"
    assert lines[3].startswith("auv         cases: liver")
    assert not any("\N{HORIZONTAL ELLIPSIS}" in line or "[" in line for line in lines)
    assert max(map(len, lines)) <= 80
    assert "too narrow for the intervals" in said


def test_methods_are_shown_where_they_tell_rows_apart(folder, tmp_path):
    scores, _, _ = random_tables()
    write_table([row | {"method": "other"} for row in scores], SCORES, tmp_path / "S.csv")
    lines, _ = terminal("correlate", folder / "S.csv", tmp_path / "S.csv", folder / "M.csv", "-q", columns=140)
    assert lines[0].split()[:2] == ["quantifier", "level"]
    assert [line.split("  ")[0] for line in lines[1:3]] == ["auv m", "auv other"]


def test_closed_pipe(folder):
    done = auvtool_before_head("correlate", folder / "S.csv", folder / "M.csv", "-q")
    assert done.stdout.startswith("quantifier,method")
    assert done.returncode in {0, 141}
    assert done.stderr == ""


def broken(change):
    """A folder whose tables were changed."""

    def make(path):
        scores = [score_row(case, 1, 0.5, quantifier="auv") for case in "abc"]
        metrics = [metric_row(case, 1, 0.5) for case in "abc"]
        change(scores, metrics)
        write_table(scores, SCORES, path / "S.csv")
        write_table(metrics, METRICS, path / "M.csv")
        write_table([{"case": "a", "keep": True}], KEEP_LIST, path / "K.csv")
        (path / "empty").touch()

    return make


@pytest.mark.parametrize(
    ("change", "arguments", "code", "words"),
    [
        (lambda s, m: None, ["S.csv"], ExitCode.USAGE, "expected one metrics table, got none"),
        (lambda s, m: None, ["S.csv", "M.csv", "M.csv"], ExitCode.USAGE, "expected one metrics table, got two"),
        (lambda s, m: None, ["M.csv"], ExitCode.USAGE, "expected scores beside the metrics"),
        (lambda s, m: None, ["S.csv", "S.csv", "M.csv"], ExitCode.INVALID_INPUT, "expected another quantifier or"),
        (lambda s, m: None, ["S.csv", "K.csv", "M.csv"], ExitCode.INVALID_INPUT, "K.csv: expected scores"),
        (lambda s, m: None, ["empty", "M.csv"], ExitCode.INVALID_INPUT, "empty: expected scores"),
        (lambda s, m: None, ["none.csv", "M.csv"], ExitCode.INVALID_INPUT, "none.csv: expected a readable table"),
        (lambda s, m: None, ["-", "-"], ExitCode.USAGE, "expected '-' once"),
        (lambda s, m: None, ["S.csv", "M.csv", "--classes", "x"], ExitCode.USAGE, "--classes: expected classes"),
        (lambda s, m: None, ["S.csv", "M.csv", "--format", "xls"], ExitCode.USAGE, "--format: expected one of"),
        (
            lambda s, m: s[0].update(quantifier="guess"),
            ["S.csv", "M.csv"],
            ExitCode.INVALID_INPUT,
            "expected a quantifier of auv",
        ),
        (
            lambda s, m: [row.update(case="x" + row["case"]) for row in m],
            ["S.csv", "M.csv"],
            ExitCode.INVALID_INPUT,
            "got none, but a",
        ),
    ],
)
def test_errors_are_one_line(change, arguments, code, words, tmp_path):
    broken(change)(tmp_path)
    done = auvtool("correlate", *arguments, cwd=tmp_path, input="")
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_all_equal_is_a_row_with_empty_cells_and_no_warning_of_a_library(tmp_path):
    broken(lambda s, m: None)(tmp_path)
    done = auvtool("correlate", tmp_path / "S.csv", tmp_path / "M.csv", "-q")
    assert (done.returncode, done.stderr) == (0, "")
    # The whole cases have no row in these scores: no points.
    assert [(row["n"], row["pearson"], row["spearman_p"]) for row in rows_of(done.stdout)] == [
        *(("1", "", ""), ("0", "", ""), ("3", "", ""))
    ]
