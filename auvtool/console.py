"""What a person sees: messages and progress on stderr, tables on a terminal. The only module that draws.

stdout carries a command's result and nothing else. rich is imported only where something is drawn with it.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from auvtool.schema import Row
from auvtool.visible_text import visible

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_PROGRESS_SECONDS = 30.0


@dataclass
class Verbosity:
    """How much is said on stderr: -1 errors only (--quiet), 0 normal, 1 details (-v)."""

    level: int = 0


_verbosity = Verbosity()


def be_quiet() -> None:
    """For --quiet, which wins over --verbose."""
    _verbosity.level = -1


def be_verbose() -> None:
    """For --verbose."""
    if not is_quiet():
        _verbosity.level = 1


def is_quiet() -> bool:
    """Whether --quiet was given."""
    return _verbosity.level < 0


def error(message: str) -> None:
    """Said whatever the verbosity."""
    _say(f"auvtool: {message}")


def warn(message: str) -> None:
    """A finding that the user should know of; said unless --quiet."""
    if _verbosity.level >= 0:
        _say(f"auvtool: warning: {message}")


def warn_of_killed_worker(case_ids: list[str]) -> None:
    """Of a pool, which tries the cases that it worked on again; said unless --quiet."""
    warn(f"a worker process was killed while {', '.join(case_ids)} were in work; trying them one by one")


def info(message: str) -> None:
    """Said unless --quiet."""
    if _verbosity.level >= 0:
        _say(message)


def detail(message: str) -> None:
    """Said under --verbose."""
    if _verbosity.level >= 1:
        _say(message)


def _say(line: str) -> None:
    _write_on_stderr(f"{visible(line)}\n")


def _write_on_stderr(text: str) -> None:
    """Where the reader has gone (`2>&1 | head -2`) the work goes on and nobody is told: outputs are files."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except BrokenPipeError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Give what is left of a stream whose reader has gone somewhere to go: Python flushes it once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Progress:
    """Counts finished cases: a bar on a terminal, elsewhere one plain line every 30 s with done, total and ETA."""

    def __init__(self, description: str, total: int) -> None:
        self.description, self.total, self.done = description, total, 0
        self._start = self._last = time.monotonic()

    def advance(self, case: str) -> None:
        """One more case is done (or has failed)."""
        self.done += 1
        now = time.monotonic()
        if now - self._last >= PLAIN_PROGRESS_SECONDS or self.done == self.total:
            self._last = now
            remaining = (now - self._start) / self.done * (self.total - self.done)
            info(f"{self.description}: {self.done}/{self.total}, {now - self._start:.0f} s, ETA {remaining:.0f} s")


class _Bar(Progress):
    def __init__(self, description: str, total: int, console: "Console") -> None:
        super().__init__(description, total)
        from rich.progress import BarColumn, MofNCompleteColumn, RenderableColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column
        from rich.text import Text

        # A column that may wrap gives way on a narrow terminal, and does not take the place of the count.
        self._case = Text(no_wrap=True, overflow="ellipsis")
        self.bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True), elapsed_when_finished=True),
            RenderableColumn(self._case),
            console=console,
        )
        self._task = self.bar.add_task(description, total=total)

    def advance(self, case: str) -> None:
        self.done += 1
        self._case.plain = visible(case)
        self.bar.update(self._task, completed=self.done)

    def hide(self) -> None:
        """Leave nothing of it on the screen."""
        self.bar.update(self._task, visible=False)


@contextmanager
def progress(description: str, total: int) -> Iterator[Progress]:
    """A counter of cases for the block; silent under --quiet."""
    if not is_terminal(sys.stderr) or _verbosity.level < 0:
        yield Progress(description, total)
        return
    from rich.console import Console

    bar = _Bar(description, total, Console(stderr=True))
    with bar.bar:
        try:
            yield bar
        finally:
            if not bar.done:  # refused before the first case, or nothing to do
                bar.hide()


def is_terminal(stream: object) -> bool:
    """Whether `stream` is a terminal that can be drawn on (FORCE_COLOR says yes, TERM=dumb says no)."""
    if os.environ.get("TERM") == "dumb":
        return False
    isatty = getattr(stream, "isatty", None)
    return bool(os.environ.get("FORCE_COLOR")) or bool(isatty is not None and isatty())


def some(names: Sequence[str], shown: int = 5) -> str:
    """The first of many names on a line."""
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")


def wants_reading(output: Path, table_format: str | None) -> bool:
    """Whether a table goes to a person: no file, no format was named, and stdout is a terminal (not a pipe)."""
    return str(output) == "-" and table_format is None and sys.stdout.isatty()


def print_columns(cells: Sequence[str], widths: Sequence[int]) -> None:
    """One row of a readable table that grows as its rows come: on stdout, each cell but the last as wide as told."""
    padded = [f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=False)]
    print(visible("  ".join([*padded, *cells[len(widths) :]])), flush=True)


_LONG = 40  # characters of a cell
_NARROWEST = 12  # characters that a column of texts keeps


def print_table(rows: Sequence[Row], columns: Sequence[str], *, title: str = "", to_stderr: bool = False) -> None:
    """A readable table (floats to three decimals, '-' for a missing value) on stdout, or on stderr unless --quiet.

    On a narrow terminal columns of long texts give way first and end in an ellipsis, then the gaps, then headers and
    other texts. Numbers stay whole: where all that is not enough, lines run on.
    """
    if to_stderr and _verbosity.level < 0:
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    stream = sys.stderr if to_stderr else sys.stdout
    available = Console(file=stream).width if is_terminal(stream) or stream.isatty() else 160
    cells = [[_readable(row.get(name)) for row in rows] for name in columns]
    widths, gap = _layout(columns, cells, available)
    table = Table(title=title or None, title_justify="left", box=None, padding=(0, gap, 0, 0), pad_edge=False)
    table.header_style = "bold"
    for name, width in zip(columns, widths, strict=True):
        numeric = all(isinstance(row.get(name), int | float) or row.get(name) is None for row in rows)
        table.add_column(Text(name), justify="right" if numeric else "left", width=width, no_wrap=True)
    for record in zip(*cells, strict=True):
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in record))
    width = max(available, sum(widths) + gap * len(widths))
    drawing = Console(file=stream, width=width, height=25, soft_wrap=True)  # without a height a dumb terminal has 80
    with drawing.capture() as drawn:  # rich would end the program with exit 1 where the reader has gone
        drawing.print(table)
    if to_stderr:
        _write_on_stderr(drawn.get())
    else:
        sys.stdout.write(drawn.get())


def _layout(columns: Sequence[str], cells: Sequence[Sequence[str]], available: int) -> tuple[list[int], int]:
    """Widths of the columns of a table, and the gap between them, that fit `available` characters as far as can be."""
    from rich.cells import cell_len

    longest = [max(map(cell_len, column), default=0) for column in cells]
    widths = [max(cell_len(name), length) for name, length in zip(columns, longest, strict=True)]
    texts = [not all(_is_number(cell) for cell in column) for column in cells]
    narrow = [min(length, _NARROWEST) if text else length for length, text in zip(longest, texts, strict=True)]
    gap = 2
    for least in (
        [least if length > _LONG else width for least, length, width in zip(narrow, longest, widths, strict=True)],
        None,  # the gap
        longest,
        narrow,
    ):
        excess = sum(widths) + gap * (len(widths) - 1) - available
        if excess <= 0:
            break
        if least is None:
            gap = 1
        else:
            _shrink(widths, least, excess)
    return widths, gap


def _shrink(widths: list[int], least: Sequence[int], excess: int) -> None:
    """Take `excess` characters from the columns that are widest, as long as each keeps its least."""
    for _ in range(excess):
        wide = [place for place, width in enumerate(widths) if width > max(least[place], 1)]
        if not wide:
            return
        widths[max(wide, key=lambda place: widths[place])] -= 1


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.lstrip(" <-+").replace(".", "").isdecimal()


def _readable(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else visible(str(value))
