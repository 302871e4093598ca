"""auvtool as a user runs it: in a process of its own, on a terminal or before a pipe that closes."""

import os
import re
import shutil
import struct
import subprocess
import sys

import pytest


def auvtool(*arguments, timeout=300, before=(), **options) -> subprocess.CompletedProcess[str]:
    """Run `BEFORE auvtool ARGUMENTS`; options as for `subprocess.run` (input, cwd, env)."""
    command = [*before, sys.executable, "-m", "auvtool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout, **options)


def auvtool_on_terminal(*arguments, columns=200) -> subprocess.CompletedProcess[str]:
    """Run `auvtool ARGUMENTS` with standard input and output on a terminal of that width; its colours are left out."""
    import fcntl  # here: these are of POSIX systems only
    import pty
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    command = [sys.executable, "-m", "auvtool", *map(str, arguments)]
    text = b""
    with subprocess.Popen(
        command, stdout=slave, stdin=slave, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        os.close(slave)
        while chunk := _read(master):
            text += chunk
        said = process.stderr.read()
    os.close(master)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", text.decode())
    return subprocess.CompletedProcess(command, process.returncode, shown, said)


def auvtool_before_head(*arguments) -> subprocess.CompletedProcess[str]:
    """Run `auvtool ARGUMENTS | head -1`, which closes the pipe; the exit code is that of auvtool."""
    line = '"$@" | head -1; exit ${PIPESTATUS[0]}'
    command = ["bash", "-c", line, "bash", sys.executable, "-m", "auvtool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how Linux says that the other side has closed
        return b""


def without_root_rights() -> tuple[str, ...]:
    """What to put before a command so that root, too, is refused what a folder's mode refuses."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root reads every folder, and there is no setpriv to take that right away")
    return ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
