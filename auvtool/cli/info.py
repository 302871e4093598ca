"""`auvtool info`."""

from pathlib import Path
from typing import Annotated

import typer


def info(
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="WHAT", help="versions, models or a file; without any: versions and models."),
    ] = None,
) -> None:
    """Say what a file is, which package versions are at work, or which models can be used.

    \b
      auvtool info versions
      auvtool info models
      auvtool info F.h5 S.csv K.csv
    """
    from auvtool.inspection import MODELS, describe_file, versions

    for name in what or ["versions", "models"]:
        if name == "versions":
            _print_block(name, versions())
        elif name == "models":
            for model in MODELS:
                _print_block(str(model["name"]), {key: str(value) for key, value in model.items() if key != "name"})
        else:
            _print_block(name, describe_file(Path(name)))


def _print_block(title: str, pairs: dict[str, str]) -> None:
    width = max(map(len, pairs))
    print(title)
    for key, value in pairs.items():
        print(f"  {key:<{width}}  {value}")
