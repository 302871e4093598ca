"""Names from a stranger, of cases, classes and files: nothing is written elsewhere, shown as something else, or run."""

import csv
import json
import os
import re
import tempfile
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from command_line import auvtool
from features import case_features, random_maps, write_features
from hypothesis import assume, example, given
from hypothesis import strategies as st
from phantoms import edit_dataset_json, write_raw_dataset
from report_inputs import score_rows, write_scores

from auvtool.case_id import case_id_fault
from auvtool.dataset import open_dataset
from auvtool.errors import InputError
from auvtool.keep_list import plain_ids, read_keep_list
from auvtool.schema import FAILURES, SCORES
from auvtool.tables import parse_table, read_table, render, write_table
from auvtool.visible_text import visible

HOSTILE = {
    "..": "no name",
    "": "no name",
    "../outside": "a path",
    "/outside": "a path",
    "a/../../outside": "a path",
    "..\\outside": "a path",
    "line\nfeed": "hidden characters",
    "tab\there": "hidden characters",
    "nul\0": "hidden characters",
    "\x1b[2Jescape": "hidden characters",
    "right\u202eto left": "hidden characters",
    "half \ud800": "hidden characters",
    "case\u200b": "hidden characters",
    "ca\xadse": "hidden characters",
    "case\U000e0041": "hidden characters",
    "n" * 300: "more than 180 bytes",
    "é" * 91: "more than 180 bytes",
}
# Odd, and names of files all the same.
HARMLESS = [
    "-rf",
    "=1+1",
    "+1",
    "@SUM(A1)",
    "%2e%2e",
    ".hidden",
    "a b",
    "ａ／ｂ",
    "CON",
    "~",
    " space ",
    "$HOME",
    "#1",
    "'q'",
    "n" * 180,
]


@pytest.mark.parametrize(("case_id", "fault"), HOSTILE.items(), ids=map(repr, HOSTILE))
def test_ids_that_are_no_names(case_id, fault):
    assert case_id_fault(case_id, windows=False) == fault


@pytest.mark.parametrize("case_id", HARMLESS)
def test_ids_that_are_names(case_id):
    assert case_id_fault(case_id, windows=False) is None


@pytest.mark.parametrize("case_id", ["CON", "nul.nii", "C:x", "a:stream", "what?", "dot.", "space ", "a|b"])
def test_windows_has_rules_of_its_own(case_id):
    assert case_id_fault(case_id, windows=True) == "a name that Windows keeps for itself"
    assert case_id_fault("case_01.b", windows=True) is None


def mapped(folder: Path, names) -> Path:
    """A data set whose dataset.json gives these ids to the files of one case."""
    write_raw_dataset(folder, n_cases=1, as_map=True)
    entry = json.loads((folder / "dataset.json").read_text())["dataset"]["case_00"]
    edit_dataset_json(folder, dataset=dict.fromkeys(names, entry), numTraining=len(names))
    return folder


def test_hostile_ids_are_cases_that_cannot_be_used(tmp_path):
    names = [name for name in HOSTILE if "\ud800" not in name]  # which JSON cannot hold
    dataset = open_dataset(mapped(tmp_path / "d", [*names, *HARMLESS]))
    assert [case.case_id for case in dataset.cases] == sorted(HARMLESS)
    assert len(dataset.problems) == len(names)
    for problem in dataset.problems:
        assert problem.reason == "name"
        assert "expected a case id that can be part of a file name" in problem.error
        assert problem.error == visible(problem.error)
        assert problem.case_id == visible(problem.case_id)


def test_ids_that_are_one_file_elsewhere(tmp_path):
    names = ["Case", "case", "caf\u00e9", "cafe\u0301", "cases"]
    dataset = open_dataset(mapped(tmp_path / "d", names))
    assert [case.case_id for case in dataset.cases] == ["Case", "caf\u00e9", "cases"]
    assert [problem.case_id for problem in dataset.problems] == ["cafe\u0301", "case"]
    assert r"got 'cafe\u0301' beside 'caf\xe9'" in dataset.problems[0].error
    assert "got 'case' beside 'Case'" in dataset.problems[1].error


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_nothing_is_written_outside_and_odd_ids_come_back(tmp_path, monkeypatch):
    names = [*(name for name in HOSTILE if "\ud800" not in name), *HARMLESS]
    folder = mapped(tmp_path / "in" / "Dataset001_Odd", names)
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.chdir(out)
    before = everything(tmp_path)
    done = auvtool("extract", str(folder), "-o", "F.h5", "--extractor", "identity", "-j", "1")
    assert done.returncode == 4, done.stderr
    assert done.stderr == visible(done.stderr)
    scored = auvtool("score", "F.h5", "-o", "S.csv", "--quantifier", "variance")
    assert scored.returncode == 0, scored.stderr
    assert sorted({row["case"] for row in read_table(out / "S.csv", SCORES)}) == sorted(HARMLESS)
    kept = auvtool("filter", "S.csv", "-o", "K.csv", "--quantile", "0.9")
    assert kept.returncode == 0, kept.stderr
    spoilt = auvtool("corrupt", str(folder), "-o", "Dataset905_Dirty", "--kinds", "eroded", "--share", "0.5")
    assert spoilt.returncode in {0, 4}, spoilt.stderr
    assert all(name.startswith("out") for name in everything(tmp_path) - before)
    assert not list(Path(tmp_path.parent).glob("outside*"))
    with (out / "S.csv").open(newline="") as file:
        cells = [cell for record in csv.reader(file) for cell in record]
    assert "'=1+1" in cells
    assert not any(re.match(r"[=+@\t\r]", cell) or re.match(r"-\D", cell) for cell in cells)


def test_a_label_of_another_case_is_not_taken_for_a_hostile_name(tmp_path):
    """File names that only a file system can have: not valid UTF-8, with a line feed."""
    folder = write_raw_dataset(tmp_path / "d", n_cases=1)
    source = folder / "imagesTr" / "case_00_0000.nii.gz"
    for name in (b"bad\xff_0000.nii.gz", b"line\nfeed_0000.nii.gz"):
        try:
            Path(os.fsdecode(os.fsencode(folder / "imagesTr") + b"/" + name)).write_bytes(source.read_bytes())
        except OSError:
            pytest.skip("this file system takes no such names")
    dataset = open_dataset(folder)
    assert [case.case_id for case in dataset.cases] == ["case_00"]
    assert sorted(problem.case_id for problem in dataset.problems) == ["bad\\udcff", "line\\nfeed"]
    found = auvtool("check", str(folder))
    assert found.returncode == 3
    assert "\udcff" not in found.stdout + found.stderr


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
FORMULA = st.builds(
    "{}{}".format, st.sampled_from(["=", "+", "-", "@", "\t", "\r", "\n", "'", "''=", "'-", "＝"]), ANY_TEXT
)


@given(ANY_TEXT | FORMULA, ANY_TEXT | FORMULA, st.sampled_from(["csv", "tsv", "json", "jsonl"]))
def test_any_text_comes_back_from_a_table(first, second, kind):
    rows = [{"case": first, "step": second, "error": "e"}]
    assert parse_table(render(rows, FAILURES, kind).encode(), FAILURES, "t") == rows


@given(st.lists(FORMULA | st.sampled_from([";", ",", "a;", " ", '"']), min_size=1, max_size=4).map("".join))
@example("a;=1+1;b")
@example(" =1+1")
@example("a\n=1+1")
@example('a;"=1+1&";b')
def test_no_cell_of_text_is_a_formula(text):
    written = render([{"case": text, "step": "s", "error": text}], FAILURES, "csv")
    (cell, *_) = list(csv.reader(StringIO(written, newline="")))[1]
    assert not re.match(r" *[=+\-@\t\r\n＝].", cell, re.DOTALL)
    # Where columns are told by semicolons, also within what commas tell.
    cells = [part for line in re.split(r"[\r\n]", written) for part in line.split(";")]
    assert not any(re.match(r'"*[=+\-@\t＝][^"]', part, re.DOTALL) for part in cells)
    assert parse_table(written.encode(), FAILURES, "t")[0]["error"] == text


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**63), 2**63 - 1))
def test_numbers_are_never_touched(value, whole):
    row = {**score_rows(2)[0], "value": value, "class_id": whole}
    cells = next(csv.DictReader(StringIO(render([row], SCORES, "csv"))))
    assert cells["value"] == repr(value)
    assert cells["class_id"] == str(whole)


def test_what_stands_in_the_file(tmp_path):
    rows = [
        {"case": case, "step": "-", "error": error} for case, error in (("=1+1", "-0.5"), ("'a", "it's"), ("'=", "="))
    ]
    write_table(rows, FAILURES, tmp_path / "f.csv")
    assert (tmp_path / "f.csv").read_text() == "case,step,error\n'=1+1,-,'-0.5\n'a,-,it's\n'=,-,=\n"
    assert read_table(tmp_path / "f.csv", FAILURES) == rows


@pytest.mark.parametrize("case_id", ["a,b", "#1", " a", "a\tb", "a\nb", "half \ud800", "[1]", "{1}", "PAR1"])
def test_ids_that_a_plain_list_would_lose_are_not_written_to_one(case_id):
    with pytest.raises(InputError, match="expected ids that can stand one a line"):
        plain_ids([case_id, "a"])


@given(st.lists(ANY_TEXT, min_size=1, unique=True))
def test_plain_lists_come_back(case_ids):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kept.txt"
        usable = [one for one in case_ids if case_id_fault(one) is None and not re.search(r"^#|,|^\s|\s$", one)]
        assume(usable and not usable[0].startswith(("[", "{", "PAR1", "\ufeff")))
        path.write_text(plain_ids(usable), encoding="utf-8", newline="")
        assert read_keep_list(path).kept == set(usable)


class Page(HTMLParser):
    """Elements with attributes, and the text of a page but for what a sheet or script holds."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.shown, self.inside = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = [tag] if tag in {"style", "script"} else []

    def handle_endtag(self, tag):
        self.inside = []

    def handle_data(self, data):
        if not self.inside:
            self.shown.append(data)


NASTY = [
    "<script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "</title></svg><svg onload=alert(1)>",
    '" onmouseover="alert(1)',
    "' onfocus='alert(1)' autofocus='",
    "javascript:alert(1)",
    "]]><![CDATA[<img src=x>",
    "<!-- -->",
    "&lt;b&gt;&#x3C;b&#x3E;",
    "{{ 7*7 }}{% raw %}",
    "\u202egnp.exe",
    "nul\x00 bell\x07",
    "a" * 3000,
]


@pytest.mark.parametrize("one_case", [False, True], ids=["data set", "one case"])
def test_names_in_a_report_are_text(one_case, tmp_path):
    """In ids, class names, reasons and folder names: through the command, into HTML and Markdown."""
    names, classes = NASTY, ("<b>large</b>", '"><script>alert(1)</script>')
    rows = [
        row | {"reason": row["reason"] and f"shape: {NASTY[1]}"}
        for row in score_rows(len(names), classes=classes, names=names)
    ]
    folder = tmp_path / "<b>&'\"\u202e"
    folder.mkdir()
    scores = write_scores(folder / "S.csv", rows)
    listed = tuple(enumerate(classes, start=1))
    cases = [case_features(name, random_maps(k), dice=(0.5, 0.9), classes=listed) for k, name in enumerate(names)]
    features = write_features(folder / "F.h5", cases, classes=listed)
    more = ["--case", names[3]] if one_case else []
    for output in (tmp_path / "R.html", tmp_path / "R.md"):
        done = auvtool("report", str(scores), "-o", str(output), "--features", str(features), *more)
        assert done.returncode == 0, done.stderr
    text = (tmp_path / "R.html").read_text(encoding="utf-8")
    assert visible(text) == text
    page = Page(text)
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert {tag for tag, _ in page.elements}.isdisjoint({"b", "img", "iframe", "object", "embed", "link", "base"})
    for _, attributes in page.elements:
        assert not any(
            name.startswith("on") or name in {"autofocus", "src", "srcdoc", "formaction"} for name in attributes
        )
        assert all(attributes.get(name, "#").startswith("#") for name in ("href", "xlink:href"))
    shown = "".join(page.shown)
    assert classes[1] in shown
    assert "49" not in page.shown[0]
    assert "\\u202egnp.exe" in shown or one_case
    markdown = (tmp_path / "R.md").read_text(encoding="utf-8")
    assert visible(markdown) == markdown
    assert not re.search(r"(?<!\\)<(script|b|svg|img)", markdown)


@pytest.mark.parametrize("name", ["می\u200cروم", "क्\u200dष", "葛\U000e0100", "☺\ufe0f"])
def test_joiners_and_variants_that_words_are_written_with_stay(name):
    assert case_id_fault(name) is None
    assert visible(name) == name
