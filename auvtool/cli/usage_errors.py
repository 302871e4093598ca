"""What typer says of a wrong command line, as one line like any other error."""

import re
from typing import Any, get_args

from auvtool.errors import UsageError, one_line

# As the parser of typer says it.
_NO_COMMAND = re.compile(r"No such command '(.*?)'(?:\. Did you mean (.*)\?)?")
_TOO_FEW = re.compile(r"Option '(.*)' requires (?:an argument|(\d+) arguments)")
_TOO_MANY = re.compile(r"Got unexpected extra argument\(s\) \((.*)\)")
_NOUNS = {int: "a whole number", float: "a number", bool: "true or false"}


def usage_error(error: Any) -> UsageError:
    """`{where}: expected {expected}, got {found}; {cure}` of an exception that typer raised while it parsed."""
    context, parameter, option = (getattr(error, name, None) for name in ("ctx", "param", "option_name"))
    program = "auvtool COMMAND" if context is None else context.command_path
    cure = f"see {program} --help"
    if parameter is not None:
        found = _found(error)
        given = "none" if found is None else one_line(found)
        return UsageError(f"{_name(parameter)}: expected {_expected(parameter)}, got {given}; {cure}")
    if hasattr(error, "possibilities"):
        alike = ", ".join(sorted(error.possibilities or ()))
        cure = f"is it {alike}? {cure}" if alike else cure
        return UsageError(f"{one_line(option)}: expected an option of {program}, got another; {cure}")
    said = one_line(error.format_message()).rstrip(".")
    if command := _NO_COMMAND.fullmatch(said):
        name, alike = command[1], (command[2] or "").replace("'", "")
        cure = f"is it {alike}? {cure}" if alike else cure
        return UsageError(f"{name}: expected a command of {program}, got another; {cure}")
    if few := _TOO_FEW.fullmatch(said):
        option, number = few.groups()
        expected, given = ("a value", "none") if number is None else (f"{number} values", "less")
        return UsageError(f"{option}: expected {expected}, got {given}; {cure}")
    if more := _TOO_MANY.fullmatch(said):
        return UsageError(f"{more[1]}: expected no more arguments of {program}, got these too; {cure}")
    where = "" if option is None else f"{option}: "
    return UsageError(f"{where}{said[:1].lower()}{said[1:]}; {cure}")


def _name(parameter: Any) -> str:
    """The long name of an option, or what stands for an argument in the help."""
    if parameter.param_type_name == "option":
        return str(parameter.opts[-1])
    return str(parameter.display_name_raw)


def _expected(parameter: Any) -> str:
    """What the values of a parameter are, in words."""
    kind = parameter.type_descriptor
    if kind.choices:
        return f"one of {', '.join(str(getattr(choice, 'value', choice)) for choice in kind.choices)}"
    nouns = [noun for type_, noun in _NOUNS.items() if type_ in (kind.annotation, *get_args(kind.annotation))]
    noun, low, high = (nouns[0] if nouns else "a value"), parameter.min, parameter.max
    if low is not None and high is not None:
        return f"{noun} from {low} to {high}"
    return noun if low is None else f"{noun}, {low} or more"


def _found(error: Any) -> object:
    """The value that was given; None where there was none."""
    cause = error.__cause__
    if cause is None or not hasattr(cause, "errors"):
        return None
    details = cause.errors()
    return details[0]["input"] if details else None
