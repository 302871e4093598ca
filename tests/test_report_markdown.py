"""The Markdown form: a table a reader of a pull request sees, and no markup from a name."""

import re

import pytest
from report_inputs import NASTY_CASE, NASTY_CLASS, score_rows, write_keep, write_metrics, write_run, write_scores

from auvtool.report.content import Inputs, report
from auvtool.report.markdown import plain, render_markdown


def markdown(tmp_path, *, rows=None, case_id=None, n_cases=3, **others):
    inputs = Inputs(write_scores(tmp_path / "S.csv", rows), **others)
    return render_markdown(report(inputs, top=0, case_id=case_id, with_pictures=False).page, n_cases=n_cases)


def test_the_page_by_hand(tmp_path):
    text = markdown(tmp_path, keep=write_keep(tmp_path / "K.csv"), training=write_run(tmp_path / "RUN"))
    lines = text.splitlines()
    assert lines[0] == "# S.csv"
    assert "| quantifier | deviation |" in lines
    start = lines.index("## The 3 most uncertain of 10 cases")
    assert lines[start + 2 : start + 7] == [
        "| case | AUV | value | keep list | reason |",
        "| --- | ---: | ---: | --- | --- |",
        "| case_09 | 1.000 | 3.000 | dropped | shape: holes of large z +9.0 |",
        "| case_08 | 0.889 | 2.778 | kept | shape: holes of large z +8.0 |",
        "| case_07 | 0.778 | 2.556 | kept | shape: holes of large z +7.0 |",
    ]
    assert "| 0.90 | 0.889 | 9 | 1 | 0 of 4 | 0 of 3 | 1 of 3 |" in lines
    assert "| large | 0.750 |" in lines
    assert "![" not in text
    assert "most uncertain of" not in markdown(tmp_path, n_cases=0)


def test_one_case(tmp_path):
    text = markdown(tmp_path, case_id="case_09", metrics=write_metrics(tmp_path / "M.csv", {"case_09": (0.5, 0.25)}))
    assert "| large | ok | 3.000 | 2.000 | 1.000 | 1 of 10 | 10.00 | 2 |" in text
    assert "AUV 1.000: shape: holes of large z +9.0" in text
    assert "| small | ok | 0.250 | 0.143 |" in text
    assert "most uncertain of" not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("case_01 a-b.c (x) +1", "case_01 a-b.c (x) +1"),
        ("_x_ a_b _", r"\_x\_ a_b \_"),
        ("a|b\nc", r"a\|b c"),
        ("<b>&[x](http://y)`*", r"\<b\>\&\[x\](http\://y)\`\*"),
    ],
)
def test_nothing_in_a_name_is_markup(text, expected):
    assert plain(text) == expected


def test_rows_stay_rows_whatever_a_name_holds(tmp_path):
    names = [NASTY_CASE, "a | b\n| c |", "plain"]
    text = markdown(tmp_path, rows=score_rows(3, classes=("large", NASTY_CLASS), names=names))
    assert not re.search(r"(?<!\\)<", text)
    table = [line for line in text.splitlines() if line.startswith("| ")]
    ranking = [line for line in table if "holes" in line]
    assert len(ranking) == 2
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 5 for line in ranking)
