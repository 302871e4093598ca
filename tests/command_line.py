"""auvtool as a user runs it: in a process of its own."""

import subprocess
import sys


def auvtool(*arguments, timeout=300, **options) -> subprocess.CompletedProcess[str]:
    """Run `auvtool ARGUMENTS`; options as for `subprocess.run` (input, cwd, env)."""
    command = [sys.executable, "-m", "auvtool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout, **options)
