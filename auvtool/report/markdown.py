"""A page as Markdown for a pull request or the summary of a CI job: tables, no pictures."""

import re
from collections.abc import Sequence

from auvtool.plural import counted
from auvtool.report.page import NONE, Page, Table, number, table
from auvtool.visible_text import visible

# Whatever could begin markup; an underscore within a word begins none.
_SPECIAL = re.compile(r"[\\`*{}\[\]#!|<>&~$@]|:(?=\S)|(?<![^\W_])_|_(?![^\W_])")


def render_markdown(page: Page, *, n_cases: int) -> str:
    """The text: facts, the `n_cases` most uncertain cases (or the classes of one), filter, metrics."""
    parts = [f"# {plain(page.title)}", _table(table("", ("", ""), page.facts, text=2), heading=False)]
    parts += [plain(page.meaning[0]), plain(page.meaning[-1])]
    if page.chosen is None:
        parts += [_table(_ranking(page, n_cases))] if n_cases else []
    else:
        case = page.cases[0]
        parts.append(f"AUV {number(case.auv)}" + (f": {plain(case.reason)}" if case.reason else ""))
    parts += [_table(one) for one in (page.evidence, page.classes) if one is not None and page.chosen is not None]
    parts += [f"AUV against {plot.quantity}: {plot.correlation}" for plot in page.sizes]
    parts += [_table(one) for one in page.filters[:1]]
    parts += [_table(one) for one in page.metrics[:1]]
    for training in page.trainings:
        last = [(name, number(None if dice[-1] != dice[-1] else dice[-1])) for name, dice in training.pseudo_dice]
        caption = f"{training.name}: {counted(len(training.epochs), 'epoch')}"
        parts.append(_table(table(caption, ("class", "pseudo Dice of the last epoch"), last)))
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """A text on one line in which nothing is markup."""
    return _SPECIAL.sub(lambda found: "\\" + found.group(), visible(" ".join(text.split())))


def _ranking(page: Page, n_cases: int) -> Table:
    columns = ["case", "AUV", "value", *(["keep list"] if page.has_keep_list else [])]
    columns += ["reason"] if page.has_reasons else []
    rows = []
    for case in page.cases[:n_cases]:
        row = [case.case_id, number(case.auv), number(case.value)]
        row += [NONE if case.kept is None else "kept" if case.kept else "dropped"] if page.has_keep_list else []
        rows.append(row + ([case.reason] if page.has_reasons else []))
    numeric = tuple(name in {"AUV", "value"} for name in columns)
    caption = f"The {len(rows)} most uncertain of {page.n_cases} cases"
    return Table(caption, tuple(columns), numeric, tuple(map(tuple, rows)))


def _table(one: Table, *, heading: bool = True) -> str:
    lines: list[Sequence[str]] = [one.columns, ["---:" if numeric else "---" for numeric in one.numeric]]
    cells = [*lines[:1], *one.rows]
    text = [f"| {' | '.join(plain(cell) for cell in row)} |" for row in cells]
    text.insert(1, f"| {' | '.join(lines[1])} |")
    said = [f"## {plain(one.caption)}", ""] if heading else []
    return "\n".join([*said, *text, *(["", plain(one.note)] if one.note else [])])
