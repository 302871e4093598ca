"""Chains of auvtool commands: each in a process of its own, as a user would type it; what is done is not done again."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from auvtool.errors import AuvtoolError, ExitCode

PROGRAM = (sys.executable, "-m", "auvtool")
# Tells a command that its standard input is a pipe which closes when the process that runs its chain has gone.
_IN_A_CHAIN = "_AUVTOOL_IN_A_CHAIN"


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
    """A command of a chain ended with an error; its exit code becomes that of the command that runs the chain."""

    def __init__(self, step: Step, code: int, log: Path) -> None:
        known = {int(item) for item in ExitCode}
        self.exit_code = ExitCode(code) if code in known else ExitCode.UNEXPECTED
        super().__init__(
            f"{step.command_line}: expected to finish, got exit code {code}; read {log}, then run the same command "
            "again (finished steps are kept)"
        )


@dataclass
class _Running:
    step: Step
    later: list[Step]
    log: Path
    file: IO[bytes]
    process: subprocess.Popen[bytes]
    start: float

    def close(self) -> None:
        self.file.close()
        if self.process.stdin is not None:
            self.process.stdin.close()


def run_together(steps: Sequence[Step], *, logs: Path, at_once: int, show: bool, say: Callable[[str], None]) -> None:
    """Run steps that do not depend on one another: `run_chains` of one step each."""
    run_chains([(step,) for step in steps], logs=logs, at_once=at_once, show=show, say=say)


def run_chains(
    chains: Sequence[Sequence[Step]], *, logs: Path, at_once: int, show: bool, say: Callable[[str], None]
) -> None:
    """Run the steps that are not done yet: those of one chain in their order, `at_once` chains at a time.

    stdout of a command goes to `logs`/NAME.log. Its stderr goes there too, unless commands run one by one and `show` is
    on: then its progress is seen.

    Raises:
        StepFailed: the first command that ended with an error; the others are ended.
    """
    waiting = _left_to_do(chains, say)
    alone = min(at_once, len(waiting)) == 1
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(_start(waiting.pop(0), logs=logs, show=show and alone, say=say))
            for item in _take_ended(running):
                say(f"  {'' if alone else item.step.name + ': '}{time.monotonic() - item.start:.0f} s")
                if item.later:
                    waiting.insert(0, item.later)  # a chain that has begun goes on first
            time.sleep(0.05 if running else 0.0)
    finally:
        for item in running:
            if item.process.poll() is None:
                item.process.terminate()  # also on Ctrl-C or SIGTERM: no command outlives the one that runs the chain
                item.process.wait()
            item.close()


def end_with_chain() -> None:
    """End this process, if a chain started it, by SIGTERM when the one that runs the chain has gone.

    One killed with -9 cannot tell its commands: they would go on, unseen and against whoever gives the command again.
    """
    if os.environ.pop(_IN_A_CHAIN, None) is not None:
        threading.Thread(target=_terminate_at_end_of_input, daemon=True).start()


def _terminate_at_end_of_input() -> None:
    # Not sys.stdin: a thread that waits in it holds a lock which Python wants when it ends.
    while os.read(0, 1):
        pass
    # To the main thread, which may wait for a lock: it alone runs handlers, and a signal to the process wakes any.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def _left_to_do(chains: Sequence[Sequence[Step]], say: Callable[[str], None]) -> list[list[Step]]:
    left = []
    for chain in chains:
        for step in chain:
            if step.output.exists():
                say(f"  (done before) {step.command_line}")
        left.append([step for step in chain if not step.output.exists()])
    return [steps for steps in left if steps]


def _take_ended(running: list[_Running]) -> list[_Running]:
    """Those that have ended well, taken out of `running`."""
    ended = [item for item in running if item.process.poll() is not None]
    for item in ended:
        if (code := item.process.returncode) != 0:
            raise StepFailed(item.step, code, item.log)
        running.remove(item)
        item.close()
    return ended


def _start(steps: Sequence[Step], *, logs: Path, show: bool, say: Callable[[str], None]) -> _Running:
    step = steps[0]
    say(f"$ {step.command_line}")
    log = logs / f"{step.name}.log"
    file = log.open("wb")
    process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
        [*PROGRAM, *step.arguments],
        stdin=subprocess.PIPE,
        stdout=file,
        stderr=None if show else file,
        env={**os.environ, _IN_A_CHAIN: "1"},
    )
    return _Running(step, list(steps[1:]), log, file, process, time.monotonic())
