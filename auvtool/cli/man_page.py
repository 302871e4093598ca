"""The manual page auvtool(1), made of what `--help` says of each command."""

import re
from collections.abc import Iterator
from typing import Any

import typer

from auvtool import __version__
from auvtool.cli.help_text import help_record
from auvtool.errors import ExitCode

_EXIT_STATUS = {
    ExitCode.DONE: "Done.",
    ExitCode.UNEXPECTED: "An unexpected error, or an output that cannot be written.",
    ExitCode.USAGE: "Wrong usage.",
    ExitCode.INVALID_INPUT: "An input is invalid.",
    ExitCode.SOME_CASES_FAILED: "Finished, but some cases failed.",
    ExitCode.INTERRUPTED: "Interrupted (Ctrl-C).",
    ExitCode.TERMINATED: "Terminated (SIGTERM).",
}


def man_page() -> str:
    """The page in the language of man(7), every command a section of it."""
    from auvtool.cli.app import app

    program = typer.main.get_command(app)
    with program.make_context("auvtool", [], resilient_parsing=True) as context:
        lines = [
            f'.TH AUVTOOL 1 "" "auvtool {__version__}" "User Commands"',
            ".SH NAME",
            r"auvtool \- find the cases in a medical image segmentation data set that harm training",
            ".SH SYNOPSIS",
            r"\fBauvtool\fR [OPTIONS] COMMAND [ARGS]...",
            ".SH DESCRIPTION",
            *_text(program.help or ""),
            ".SH OPTIONS",
            *_options(program, context),
            ".SH COMMANDS",
        ]
        for path, command, command_context in _commands(program, context):
            usage = " ".join(command.collect_usage_pieces(command_context))
            lines += [f".SS {_escaped(path)} {_escaped(usage)}", *_text(command.help or "")]
            lines += _options(command, command_context)
    lines.append(".SH EXIT STATUS")
    for code, meaning in _EXIT_STATUS.items():
        lines += [".TP", str(int(code)), meaning]
    lines += [
        ".SH ENVIRONMENT",
        ".TP",
        r"\fBAUVTOOL_COMMAND_OPTION\fR",
        "Default of an option, such as AUVTOOL_EXTRACT_JOBS; it wins over the file of AUVTOOL_CONFIG.",
        ".TP",
        r"\fBAUVTOOL_CONFIG\fR",
        r"The TOML file that \-\-config names, for every command.",
        ".TP",
        r"\fBAUVTOOL_DEBUG\fR",
        "Print the traceback of an error.",
    ]
    return "\n".join(lines) + "\n"


def _commands(group: Any, context: Any) -> Iterator[tuple[str, Any, Any]]:
    """Command path without the program, command and its context, groups entered."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        with command.make_context(name, [], parent=context, resilient_parsing=True) as inner:
            if hasattr(command, "list_commands"):
                yield from ((f"{name} {path}", one, within) for path, one, within in _commands(command, inner))
            else:
                yield name, command, inner


def _options(command: Any, context: Any) -> list[str]:
    lines = []
    for parameter in command.get_params(context):
        record = help_record(parameter, context)
        if record is not None:
            name, text = record
            lines += [".TP", rf"\fB{_escaped(name)}\fR", _escaped(" ".join(text.split()))]
    return lines


def _text(text: str) -> list[str]:
    """Paragraphs; those that begin with click's mark for fixed lines keep theirs."""
    lines = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines.append(".PP")
        if paragraph.startswith("\b"):
            lines += [".nf", *(_escaped(line) for line in paragraph.lstrip("\b").strip("\n").splitlines()), ".fi"]
        else:
            lines.append(_escaped(" ".join(paragraph.split())))
    return lines


def _escaped(text: str) -> str:
    """Text that roff prints as it stands: a backslash, a dash that may be copied, a line that begins like a request."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped
