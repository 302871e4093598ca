"""Errors that a user can act on, and the exit code of each."""

import re
from enum import IntEnum

from auvtool.visible_text import visible

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # torch writes its errors for a terminal


class ExitCode(IntEnum):
    """How a command ended (the table of README "Exit codes")."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    INVALID_INPUT = 3
    SOME_CASES_FAILED = 4
    INTERRUPTED = 130
    TERMINATED = 143


class AuvtoolError(Exception):
    """Base of every error whose message is meant for the user: one line, no traceback."""

    exit_code: ExitCode = ExitCode.UNEXPECTED


class UsageError(AuvtoolError):
    """The command line asks for something that cannot be done."""

    exit_code = ExitCode.USAGE


class InputError(AuvtoolError):
    """An input is not what was expected.

    The message reads `{where}: expected {expected}, got {found}; {cure}`.

    Args:
        where: the file, case or option that is wrong.
        expected: what stands there in a valid input.
        found: what stands there instead.
        cure: what the user can do about it.
    """

    exit_code = ExitCode.INVALID_INPUT

    def __init__(self, where: object, *, expected: str, found: object, cure: str) -> None:
        self.where, self.expected, self.found, self.cure = str(where), expected, str(found), cure
        super().__init__(one_line(f"{where}: expected {expected}, got {found}; {cure}"))

    def __reduce__(self) -> tuple[object, ...]:  # worker processes send errors back pickled
        return _rebuild_input_error, (self.where, self.expected, self.found, self.cure)


class OutputError(AuvtoolError):
    """An output cannot be written (it exists, the disk is full, the folder is read-only)."""

    exit_code = ExitCode.UNEXPECTED


class ClusterError(AuvtoolError):
    """A cluster cannot be reached, is lost, or has workers that cannot do the work."""

    exit_code = ExitCode.UNEXPECTED


class CasesFailed(AuvtoolError):
    """The run finished, but some cases did not."""

    exit_code = ExitCode.SOME_CASES_FAILED


def _rebuild_input_error(where: str, expected: str, found: str, cure: str) -> InputError:
    return InputError(where, expected=expected, found=found, cure=cure)


def one_line(error: object) -> str:
    """The text of an error on one line, whatever a library put in it, hidden characters as escapes."""
    return visible(" ".join(_COLOURS.sub("", str(error)).split())) or type(error).__name__
