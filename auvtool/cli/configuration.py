"""Defaults of options from a TOML file and from the environment: flag, AUVTOOL_*, file, in this order."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import typer

from auvtool.errors import InputError, one_line
from auvtool.file_limits import TABLE_VARIABLE, VOLUME_VARIABLE

Table: TypeAlias = dict[str, Any]

CONFIG_VARIABLE = "AUVTOOL_CONFIG"
_PREFIX = "AUVTOOL_"
# Read by the program itself, or by its tests.
_OTHER_VARIABLES = frozenset({CONFIG_VARIABLE, "AUVTOOL_DEBUG", "AUVTOOL_VERSION", VOLUME_VARIABLE, TABLE_VARIABLE})


def set_defaults(context: typer.Context, path: Path | None) -> Path | None:
    """Make the table of this command in a configuration file the defaults of its options.

    Raises:
        InputError: the file cannot be read, or names a command or an option that there is not.
    """
    names = {option_key(parameter): parameter.name for parameter in context.command.params if is_option(parameter)}
    for parameter in context.command.params:
        if is_option(parameter) and option_key(parameter) != parameter.name:
            parameter.envvar = f"{context.auto_envvar_prefix}_{option_key(parameter)}".upper()
    if path is None:
        return None
    tables = _read_tables(path, context.find_root())
    table = tables.get(context.command_path.split(" ", 1)[-1], {})
    context.default_map = {**(context.default_map or {}), **{names[key]: value for key, value in table.items()}}
    return path


def is_option(parameter: Any) -> bool:
    """Whether a parameter is an option, and no argument."""
    return bool(parameter.param_type_name == "option")


def option_key(parameter: Any) -> str:
    """An option's name in a file and in the environment: as it is typed, without dashes before and with _ for -."""
    long = next(name for name in parameter.opts if name.startswith("--"))
    return str(long[2:].replace("-", "_"))


def configured(context: typer.Context, path: Path | None) -> dict[str, str]:
    """Every option that a configuration file or the environment sets: its value, and which of them sets it.

    Variables that begin like an option's and are none are listed as such.

    Raises:
        InputError: see `set_defaults`.
    """
    root = context.find_root()
    found: dict[str, str] = {}
    variables = set(_OTHER_VARIABLES)
    tables = {} if path is None else _read_tables(path, root)
    for name, command in _commands(root.command, root):
        for parameter in command.params:
            if not is_option(parameter):
                continue
            key = option_key(parameter)
            variable = f"{_PREFIX}{name}_{key}".upper().replace(" ", "_").replace("-", "_")
            variables.add(variable)
            option = f"{name} {parameter.opts[-1]}"
            if os.environ.get(variable):
                found[option] = f"{os.environ[variable]} ({variable})"
            elif key in tables.get(name, {}):
                found[option] = f"{tables[name][key]} ({path})"
    for variable in sorted(set(os.environ) - variables):
        if variable.startswith(_PREFIX):
            found[variable] = "no option has this name"
    return found


def _read_tables(path: Path, root: Any) -> Mapping[str, Table]:
    """Tables of a file by the command they are for; that of a command in a group is a table within the group's."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        raise InputError(path, expected="a readable TOML file", found=f"'{reason}'", cure="check --config") from error
    commands = dict(_commands(root.command, root))
    tables: dict[str, Table] = {}
    for name, table in content.items():
        inner = {f"{name} {key}": value for key, value in table.items()} if isinstance(table, dict) else {}
        if inner and set(inner) <= set(commands):
            tables |= inner
        else:
            tables[name] = table
    for name, table in tables.items():
        if name not in commands:
            raise InputError(
                path, expected="a table a command", found=f"one for '{name}'", cure="see auvtool --help for their names"
            )
        options = {option_key(parameter): parameter for parameter in commands[name].params if is_option(parameter)}
        unknown = sorted(set(table) - set(options)) if isinstance(table, dict) else []
        if not isinstance(table, dict) or unknown:
            raise InputError(
                path,
                expected=f"options of {name} in its table (dashes as underscores)",
                found=", ".join(unknown) or "no table",
                cure=f"see auvtool {name} --help",
            )
        for key, value in table.items():
            if isinstance(value, bool) and not options[key].is_flag:  # which would count as 1 or 0
                raise InputError(
                    f"{path}: {name}",
                    expected=f"a value of {key}, which is no yes or no",
                    found=str(value).lower(),
                    cure=f"see auvtool {name} --help",
                )
    return tables


def _commands(group: Any, context: Any) -> Iterator[tuple[str, Any]]:
    """Every command with its path below the program."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            yield from ((f"{name} {inner}", one) for inner, one in _commands(command, context))
        else:
            yield name, command
