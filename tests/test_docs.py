"""The README says what the program does today."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from auvtool import experiment_schema, schema
from auvtool.cli.app import COMMANDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE_BLOCKS = re.findall(r"^```\w*\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
COMMAND_LINES = sorted(
    {
        match.group(0).strip()
        for block in CODE_BLOCKS
        for line in block.replace("\\\n", " ").splitlines()
        for match in re.finditer(r"(?<![\w/.-])auvtool (?:" + "|".join(COMMANDS) + r")\b[^|;&>)#]*", line)
    }
)


@cache
def help_of(command: str) -> str:
    arguments = [sys.executable, "-m", "auvtool", command, "--help"]
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout


def test_the_readme_shows_commands():
    assert len(COMMAND_LINES) >= len(COMMANDS)


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_option_of_a_readme_command_exists(line):
    _, command, *words = line.split()
    for word in words:
        if re.match(r"--?[a-zA-Z]", word):
            option = word.split("=")[0]
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", help_of(command)), f"{option} in: {line}"


def test_every_command_is_in_the_readme_table():
    for command in COMMANDS:
        assert re.search(rf"^\| `{command}\b", README, flags=re.MULTILINE), command


TABLES = [
    value
    for module in (schema, experiment_schema)
    for value in vars(module).values()
    if isinstance(value, schema.TableSchema)
]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_column_of_a_table_is_in_the_readme(table):
    row = next(line for line in README.splitlines() if line.startswith(f"| `{table.name}`"))
    assert f"| {table.version} |" in row
    for name in table.column_names():
        assert f"`{name}`" in row


def test_the_session_shows_the_columns_of_today():
    headers = [line for line in README.splitlines() if line.startswith("case,class_id,")]
    assert headers == [",".join(schema.SCORES.column_names())]


def test_every_quantifier_is_in_the_readme():
    from auvtool.quantifiers import QUANTIFIERS

    rows = [line for line in README.splitlines() if line.startswith("| `")]
    for name in QUANTIFIERS:
        assert any(f"`{name}`" in row.split("|")[1] for row in rows), name


def test_every_rule_is_in_the_readme():
    from auvtool.checks import RULES

    rows = [line for line in README.splitlines() if re.match(r"\| [A-Z]\d{3} \|", line)]
    assert rows == [f"| {code} | {rule.name} | {rule.severity} | {rule.means} |" for code, rule in RULES.items()]


def test_every_exit_code_is_in_the_readme():
    from auvtool.errors import ExitCode

    for code in ExitCode:
        assert re.search(rf"^\| {code.value} \|", README, flags=re.MULTILINE), code


def test_ci_runs_the_readme_test_command():
    found = re.search(r"<!-- test command -->\n```\w*\n(.*?)\n```", README, flags=re.DOTALL)
    assert found
    assert "pytest" in found.group(1)
    assert "<!-- test command -->" in (ROOT / ".ci" / "run").read_text()
