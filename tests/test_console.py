"""What a person sees: plain text where there is no terminal, nothing but errors under --quiet."""

from pathlib import Path

import pytest

from auvtool import console

ROWS = [
    {"case": "[a]", "keep": True, "auv": 0.12345, "reason": None},
    {"case": "b", "keep": False, "auv": None, "reason": "AUV 1 above 0.5"},
]


@pytest.fixture(autouse=True)
def normal_verbosity(monkeypatch):
    monkeypatch.setattr(console, "_verbosity", console.Verbosity())
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


def test_a_table_in_a_pipe_is_plain_text(capsys):
    console.print_table(ROWS, ["case", "keep", "auv", "reason"])
    lines = [line.strip().split(maxsplit=3) for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["[a]", "yes", "0.123", "-"]  # brackets of a name are no markup
    assert lines[2] == ["b", "no", "-", "AUV 1 above 0.5"]


def test_a_table_of_text_after_the_fact_goes_to_stderr_unless_quiet(capsys):
    console.print_table(ROWS, ["case"], to_stderr=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "[a]" in captured.err
    console.be_quiet()
    console.print_table(ROWS, ["case"], to_stderr=True)
    assert capsys.readouterr().err == ""


def test_what_is_said_at_each_verbosity(capsys):
    def said() -> str:
        console.detail("detail")
        console.info("info")
        console.warn("warn")
        console.error("error")
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err

    assert said() == "info\nauvtool: warning: warn\nauvtool: error\n"
    console.be_verbose()
    assert said() == "detail\ninfo\nauvtool: warning: warn\nauvtool: error\n"
    console.be_quiet()
    console.be_verbose()  # quiet wins whatever the order
    assert said() == "auvtool: error\n"


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    seconds = iter([0.0, 1.0, 40.0, 41.0, 90.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(seconds))
    with console.progress("extract", 4) as bar:
        for case in "abcd":
            bar.advance(case)
    assert capsys.readouterr().err.splitlines() == [
        "extract: 2/4, 40 s, ETA 40 s",
        "extract: 4/4, 90 s, ETA 0 s",
    ]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({"TERM": "dumb", "FORCE_COLOR": "1"}, False), ({"FORCE_COLOR": "1"}, True), ({}, False)],
)
def test_what_counts_as_a_terminal(environment, expected, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert console.is_terminal(object()) is expected


def test_a_pipe_gets_csv_even_when_colour_is_forced(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not console.wants_reading(Path("-"), None)  # stdout is captured here: no terminal
    monkeypatch.setattr(console.sys, "stdout", type("Terminal", (), {"isatty": lambda self: True})())
    assert console.wants_reading(Path("-"), None)
    assert not console.wants_reading(Path("-"), "csv")
    assert not console.wants_reading(Path("S.csv"), None)
