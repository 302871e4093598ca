"""`auvtool info`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from auvtool.quantifiers import Quantifier


def info(
    context: typer.Context,
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WHAT",
            help="versions, models, quantifiers, rules, config or a file; without any: versions and models.",
        ),
    ] = None,
) -> None:
    """Say what a file is, which package versions are at work, or which models, quantifiers and rules there are.

    config lists every option that the environment (AUVTOOL_COMMAND_OPTION) or the file of --config (or AUVTOOL_CONFIG)
    sets, and which of them does.

    \b
      auvtool info versions
      auvtool info models
      auvtool info quantifiers
      auvtool info rules
      auvtool info --config auvtool.toml
      auvtool info F.h5 S.csv K.csv
    """
    from auvtool.checks import RULES
    from auvtool.cli.configuration import configured
    from auvtool.inspection import describe_file, models, versions
    from auvtool.quantifiers import QUANTIFIERS

    config = context.params.get("config")
    for name in what or (["config"] if config else ["versions", "models"]):
        if name == "versions":
            _print_block(name, versions())
        elif name == "config":
            _print_block(name, {"file": str(config or "-"), **configured(context, config)})
        elif name == "models":
            for model, described in models().items():
                _print_block(model, described)
        elif name == "quantifiers":
            _print_block(name, {name: _described(facts) for name, facts in QUANTIFIERS.items()})
        elif name == "rules":
            _print_block(name, {code: f"{rule.name} ({rule.severity}): {rule.means}" for code, rule in RULES.items()})
        else:
            _print_block(name, describe_file(Path(name)))


def _described(facts: "Quantifier") -> str:
    level = "" if facts.of_classes else "; one number a case"
    return f"{facts.measures} (high: {facts.high}{level})"


def _print_block(title: str, pairs: dict[str, str]) -> None:
    width = max(map(len, pairs))
    print(title)
    for key, value in pairs.items():
        print(f"  {key:<{width}}  {value}")
