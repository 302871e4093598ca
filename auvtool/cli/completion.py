"""`auvtool completion`: what a package installs beside the program."""

import os
import subprocess
import sys
from enum import StrEnum
from typing import Annotated, Literal

import typer

from auvtool.errors import UsageError


class Shell(StrEnum):
    """Shells that typer writes completions for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    POWERSHELL = "powershell"


# typer's zsh script only defines the function; autoloaded from fpath it must also be called, sourced it must be bound.
_ZSH_END = (
    'if [ "$funcstack[1]" = "_auvtool" ]; then _auvtool_completion "$@"; else compdef _auvtool_completion auvtool; fi\n'
)


def completion_script(shell: Shell) -> str:
    """The completion script of one shell, as it stands in completions/."""
    environment = {**os.environ, "_AUVTOOL_COMPLETE": f"source_{shell}"}
    # A process of its own: typer reads the variable once, at start.
    done = subprocess.run(
        [sys.executable, "-m", "auvtool"], env=environment, capture_output=True, text=True, check=False
    )
    if not done.stdout.strip():
        raise UsageError(f"{shell}: expected a completion script from typer, got none; {done.stderr.strip()}")
    text = done.stdout.strip("\n") + "\n"
    if shell is Shell.ZSH:
        lines = [line for line in text.splitlines(keepends=True) if not line.startswith("compdef ")]
        text = "".join(lines) + _ZSH_END
    return text


def completion(
    what: Annotated[
        Literal["bash", "zsh", "fish", "powershell", "man"],
        typer.Argument(metavar="SHELL", help="bash, zsh, fish or powershell; man: the manual page."),
    ],
) -> None:
    """Print the completion script of a shell, or the manual page.

    \b
      bash        auvtool completion bash > ~/.local/share/bash-completion/completions/auvtool
      zsh         auvtool completion zsh > DIR/_auvtool
      fish        auvtool completion fish > ~/.config/fish/completions/auvtool.fish
      powershell  auvtool completion powershell >> $PROFILE
      manual      auvtool completion man > ~/.local/share/man/man1/auvtool.1

    DIR is any folder of zsh's $fpath. The manual is installed by pip too.
    """
    from auvtool.cli.man_page import man_page

    print(man_page() if what == "man" else completion_script(Shell(what)), end="")
