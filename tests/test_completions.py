"""completions/ is what the program prints today, and real shells take it."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from auvtool.cli.app import COMMANDS
from auvtool.cli.completion import Shell, completion_script
from auvtool.cli.man_page import man_page

FOLDER = Path(__file__).parent.parent / "completions"
FILES = {
    Shell.BASH: "auvtool.bash",
    Shell.ZSH: "_auvtool",
    Shell.FISH: "auvtool.fish",
    Shell.POWERSHELL: "_auvtool.ps1",
}


def shell(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def environment() -> dict[str, str]:
    # The completions call `auvtool`, which stands beside this interpreter.
    folder = Path(sys.executable).parent
    if not (folder / "auvtool").exists():
        pytest.skip("the console script is not installed beside this interpreter")
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize("kind", list(Shell))
def test_the_committed_file_is_current(kind):
    assert (FOLDER / FILES[kind]).read_text(encoding="utf-8") == completion_script(kind)
    assert {file.name for file in FOLDER.iterdir()} == {*FILES.values(), "auvtool.1"}


def test_the_committed_manual_page_is_current_and_roff_takes_it():
    page = FOLDER / "auvtool.1"
    assert page.read_text(encoding="utf-8") == man_page()
    done = subprocess.run([shell("groff"), "-man", "-Tutf8", "-ww", page], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    text = " ".join(re.sub(".\b", "", done.stdout).split())
    assert "auvtool extract Dataset004_Hippocampus -o F.h5 -j 4" in text  # dashes that can be copied
    assert all(f"{name} [OPTIONS]" in text for name in COMMANDS)


def test_bash_completes_commands_and_options():
    script = (
        f"source {FOLDER / 'auvtool.bash'}; COMP_WORDS=(auvtool ext); COMP_CWORD=1; _auvtool_completion auvtool;"
        ' echo "${COMPREPLY[@]}"; COMP_WORDS=(auvtool extract --wei); COMP_CWORD=2; _auvtool_completion auvtool;'
        ' echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run([shell("bash"), "-c", script], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.split() == ["extract", "--weights"]


@pytest.mark.parametrize("way", ["sourced", "fpath"])
def test_zsh_completes_in_a_real_terminal(way, tmp_path):
    """An interactive zsh on a pseudo-terminal: type 'auvtool ext', press Tab, read what stands there."""
    zsh = shell("zsh")
    (tmp_path / ".zshrc").write_text(
        (f"fpath=({FOLDER} $fpath)\n" if way == "fpath" else "")
        + f"autoload -Uz compinit && compinit -u -d {tmp_path / 'dump'}\n"
        + (f"source {FOLDER / '_auvtool'}\n" if way == "sourced" else "")
        + "PS1='ready> '\n"
    )
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        [zsh, "-d", "-i"],
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
        env={**environment(), "ZDOTDIR": str(tmp_path), "TERM": "dumb"},
    )
    try:
        read_until(terminal, "ready> ")
        os.write(terminal, b"auvtool ext\t")
        read_until(terminal, "ract")
        os.write(terminal, b"--prom\t")
        read_until(terminal, "pt")
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
        os.close(inside)


def read_until(terminal: int, text: str, seconds: float = 120.0) -> None:
    seen, end = "", time.monotonic() + seconds
    while text not in seen:
        readable, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
        assert readable, f"expected {text!r} on the terminal, got {seen!r}"
        seen += os.read(terminal, 1024).decode()


def test_fish_completes_commands():
    script = f"source {FOLDER / 'auvtool.fish'}; complete -C 'auvtool ext'"
    done = subprocess.run(
        [shell("fish"), "-N", "-c", script], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.stdout.split()[:1] == ["extract"], done.stderr
