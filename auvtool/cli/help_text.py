"""How `--help` reads: an example before the details, and no word of Python."""

import inspect
import re
from pathlib import Path
from typing import Any, get_args

from typer.core import TyperCommand

_METAVARS = {int: "N", float: "X", Path: "PATH", str: "TEXT"}


class Command(TyperCommand):
    """A command whose arguments are shown by their name alone, without the type that typer adds."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        parameters = self.get_params(ctx)
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            records = [help_record(one, ctx) for one in parameters if one.param_type_name == kind]
            if shown := [record for record in records if record is not None]:
                with formatter.section(title):
                    formatter.write_dl(shown)


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
