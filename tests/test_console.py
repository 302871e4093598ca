"""What a person sees: plain text where there is no terminal, nothing but errors under --quiet."""

import io
import re
import sys
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


class Terminal(io.StringIO):
    """What is written on a terminal of a width, last line by line."""

    def isatty(self):
        return True

    def screen(self):
        frames = re.sub(r"\x1b\[[0-9;]*m", "", self.getvalue())
        lines = (line.split("\x1b[2K")[-1] for line in frames.split("\n"))
        return [re.sub(r"\x1b\[[0-9;?]*\w", "", line).strip("\r") for line in lines]


def on_terminal(monkeypatch, columns):
    """Standard output and error on a terminal of that width."""
    shown = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, shown)
    return shown


@pytest.mark.parametrize("columns", [100, 80, 60])
def test_a_long_text_leaves_the_count_of_a_bar(monkeypatch, columns):
    terminal = on_terminal(monkeypatch, columns)
    with console.progress("epochs", 3) as bar:
        for epoch in range(3):
            bar.advance(f"epoch {epoch}: loss 0.6929 val 0.6318 pseudo Dice anterior 0.118 posterior 0.017 [a]\x1b[2J")
    [last] = [line for line in terminal.screen() if line]
    assert re.match(r"epochs ━+ 3/3 0:00:00 epoch 2: .*…", last), last


def test_no_bar_stays_of_what_was_refused(monkeypatch):
    terminal = on_terminal(monkeypatch, 80)
    with pytest.raises(ValueError, match="no"), console.progress("epochs", 3):
        raise ValueError("no")
    assert not any(terminal.screen())


WIDE = [
    {"class": name, "dice": 0.829, "hd95_mm": 12.25, "n_defined": 20, "n_false_alarm": 0, "p": "<0.001", "reason": text}
    for name, text in (("anterior", "short"), ("posterior", None))
]


@pytest.mark.parametrize("columns", [70, 60, 50, 42])
def test_numbers_of_a_table_stay_whole_on_a_narrow_terminal(monkeypatch, columns):
    terminal = on_terminal(monkeypatch, columns)
    console.print_table(WIDE, list(WIDE[0]))
    lines = [line.rstrip() for line in terminal.screen() if line]
    assert lines[1].split() == ["anterior", "0.829", "12.250", "20", "0", "<0.001", "short"]
    assert lines[2].split() == ["posterior", "0.829", "12.250", "20", "0", "<0.001", "-"]
    assert max(map(len, lines)) <= columns


def test_numbers_stay_whole_on_a_dumb_terminal(monkeypatch):
    terminal = on_terminal(monkeypatch, 80)
    monkeypatch.setenv("TERM", "dumb")
    console.print_table(
        [{f"number_{place:02d}": 123456.789 for place in range(8)}], [f"number_{place:02d}" for place in range(8)]
    )
    assert terminal.getvalue().split("\n")[1].split() == ["123456.789"] * 8


@pytest.mark.parametrize("columns", [60, 50])
def test_long_texts_of_a_table_give_way_first(monkeypatch, columns):
    terminal = on_terminal(monkeypatch, columns)
    console.print_table([{**row, "reason": "reason " * 20} for row in WIDE], ["class", "n_false_alarm", "reason"])
    lines = [line.rstrip() for line in terminal.screen() if line]
    assert lines[0].split() == ["class", "n_false_alarm", "reason"]
    assert lines[1].startswith("anterior               0  reason reason")
    assert lines[1].endswith("…")
    assert len(lines[1]) == columns


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
