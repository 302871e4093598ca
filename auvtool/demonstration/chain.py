"""The commands that the demo runs, and the running of them: each in a process of its own, as a user would type it."""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from auvtool.errors import AuvtoolError, ExitCode


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: of its log file.
        arguments: what follows `auvtool`.
        output: the file or folder it makes; a step whose output is there is done.
    """

    name: str
    arguments: tuple[str, ...]
    output: Path

    @property
    def command_line(self) -> str:
        return shlex.join(("auvtool", *self.arguments))


class StepFailed(AuvtoolError):
    """A command of the demo ended with an error; its exit code becomes the demo's."""

    def __init__(self, step: Step, code: int, log: Path) -> None:
        known = {int(item) for item in ExitCode}
        self.exit_code = ExitCode(code) if code in known else ExitCode.UNEXPECTED
        super().__init__(
            f"{step.command_line}: expected to finish, got exit code {code}; read {log}, then run auvtool demo again "
            "(finished steps are kept)"
        )


def run_together(steps: Sequence[Step], *, logs: Path, at_once: int, show: bool, say: Callable[[str], None]) -> None:
    """Run the steps that are not done yet, `at_once` together, and wait for all of them.

    stdout of a command goes to `logs`/NAME.log. Its stderr goes there too, unless it runs alone and `show` is on: then
    its progress is seen.

    Raises:
        StepFailed: the first command that ended with an error; the others are ended.
    """
    waiting = [step for step in steps if not step.output.exists()]
    for step in steps:
        if step not in waiting:
            say(f"  (done before) {step.command_line}")
    while waiting:
        batch, waiting = waiting[:at_once], waiting[at_once:]
        _run_batch(batch, logs=logs, show=show and len(batch) == 1, say=say)


def _run_batch(batch: Sequence[Step], *, logs: Path, show: bool, say: Callable[[str], None]) -> None:
    start = time.monotonic()
    running: list[tuple[Step, Path, subprocess.Popen[bytes], IO[bytes]]] = []
    try:
        for step in batch:
            say(f"$ {step.command_line}")
            log = logs / f"{step.name}.log"
            file = log.open("wb")
            process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
                [sys.executable, "-m", "auvtool", *step.arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=None if show else file,
            )
            running.append((step, log, process, file))
        left = list(running)
        while left:
            for item in list(left):
                step, log, process, _ = item
                code = process.poll()
                if code is None:
                    continue
                left.remove(item)
                if code != 0:
                    raise StepFailed(step, code, log)
            time.sleep(0.05)
        say(f"  {time.monotonic() - start:.0f} s")
    finally:
        for _, _, process, opened in running:
            if process.poll() is None:
                process.terminate()  # also on Ctrl-C or SIGTERM: no command outlives the demo
                process.wait()
            opened.close()
