"""auvtool as a user runs it: in a process of its own."""

import subprocess
import sys


def auvtool(*arguments, timeout=300, before=(), **options) -> subprocess.CompletedProcess[str]:
    """Run `BEFORE auvtool ARGUMENTS`; options as for `subprocess.run` (input, cwd, env)."""
    command = [*before, sys.executable, "-m", "auvtool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout, **options)
