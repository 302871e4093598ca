"""How `--help` reads: an example before the details, and no word of Python."""

import inspect
import re
from pathlib import Path
from typing import Any, get_args

from typer.core import TyperCommand, TyperGroup

_METAVARS = {int: "N", float: "X", Path: "PATH", str: "TEXT"}
# For those after which a line would be broken: within a word, and within quotes.
_HYPHEN, _SPACE = "\ue000", "\ue001"


class _Copied:
    """Help whose examples fit the terminal and can be copied, no name of an option or kind broken at a hyphen."""

    help: str | None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)  # type: ignore[misc]  # that of the class beside it
        formatter.buffer = [text.replace(_HYPHEN, "-") for text in formatter.buffer]

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        formatter.write_paragraph()
        with formatter.indentation():
            text = folded_examples(self.help or "", formatter.width - formatter.current_indent)
            formatter.write_text(_unbroken(text))


class Group(_Copied, TyperGroup):
    """A group of commands."""


class Command(_Copied, TyperCommand):
    """A command whose arguments are shown by their name alone, without the type that typer adds."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [re.sub(r"\{(.*?)(\.\.\.)?\}", r"\1", piece) for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        parameters = self.get_params(ctx)
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            records = [help_record(one, ctx) for one in parameters if one.param_type_name == kind]
            if shown := [record for record in records if record is not None]:
                with formatter.section(title):
                    formatter.write_dl([(name, _unbroken(text)) for name, text in shown])


def help_record(parameter: Any, context: Any) -> tuple[str, str] | None:
    """Name and text of a parameter; None for a hidden one."""
    record: tuple[str, str] | None = parameter.get_help_record(context)
    if record is None or parameter.param_type_name != "argument":
        return record
    return parameter.display_name_raw, record[1]


def metavar_of(annotation: Any) -> str | None:
    """What stands for the value of an option of this type; None where typer says it well (choices, flags)."""
    kinds = get_args(annotation) or (annotation,)
    return next((metavar for kind, metavar in _METAVARS.items() if kind in kinds), None)


def examples_first(text: str) -> str:
    """The text of a docstring with its examples behind the first paragraph."""
    summary, *others = re.split(r"\n\s*\n", inspect.cleandoc(text))
    others.sort(key=lambda paragraph: not (paragraph.startswith("\b") and "auvtool " in paragraph))
    return "\n\n".join([summary, *others])


def folded_examples(text: str, width: int) -> str:
    """The text of a help, each command of its fixed paragraphs in lines of at most `width` that a shell takes."""
    paragraphs = re.split(r"\n\s*\n", text)
    return "\n\n".join(
        "\n".join(_folded(line, width) for line in re.sub(r" \\\n +", " ", paragraph).split("\n"))
        if paragraph.startswith("\b") and "auvtool " in paragraph
        else paragraph
        for paragraph in paragraphs
    )


def _folded(line: str, width: int) -> str:
    """A line broken before options, pipes and redirections, or between other words where these are too far apart."""
    if len(line) <= width:
        return line
    quoted = re.sub(r"'[^']*'|\"[^\"]*\"", lambda found: found[0].replace(" ", _SPACE), line)
    lines = [""]
    for part in re.split(r"(?<=\S) (?=-{1,2}[a-zA-Z]|[|>] )", quoted):
        fits = len(part) + 8 <= width  # an indent before, and a space and a backslash behind
        for words in [part] if fits else re.split(r"(?<=\S) (?=\S)", part):
            if not lines[-1]:
                lines[-1] = words
            elif len(lines[-1]) + len(words) + 3 <= width:
                lines[-1] += f" {words}"
            else:
                lines.append(f"      {words}")
    return " \\\n".join(lines).replace(_SPACE, " ")


def _unbroken(text: str) -> str:
    return re.sub(r"(?<=\w)-(?=\w)", _HYPHEN, text)
