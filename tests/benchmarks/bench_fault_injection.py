"""Nothing lost, nothing half-written: commands killed at random, on full, read-only and vanishing disks, and signalled.

Run by hand, on Linux, an hour or two (as root, or the full disks are left out):
pytest -s tests/benchmarks/bench_fault_injection.py
AUVTOOL_FAULTS=10 makes it 10 of each instead of 50; -k "extract and killed" takes some.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from command_line import without_root_rights
from fault_injection import (
    Verdict,
    changes,
    children,
    digests,
    fork,
    fresh,
    group_is_gone,
    half_written,
    judge,
    start,
    stderr_of,
    wait_for,
)
from fault_scenarios import scenarios, train_on_balls

TRAININGS = ("train", "train, prepared")
NAMES = ("extract", "score", "filter", "eval", "corrupt", "convert", "bench detect", "predict", *TRAININGS)
WITH_WORKERS = {"extract", "corrupt", "convert", "bench detect"}
N = int(os.environ.get("AUVTOOL_FAULTS", "50"))
# A run takes a quarter of a minute.
N_SLOW = {"predict": max(1, N // 2), "train": max(1, N // 5), "train, prepared": max(1, N // 2)}

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    trained = train_on_balls(fresh(folder / "trained"))
    return folder, scenarios(fresh(folder / "inputs"), n_cases=12, jobs=2, trained=trained)


@pytest.fixture(params=NAMES)
def scene(request, commands):
    """A command, the folder of its trials, the digests of an undisturbed run, and how long its work takes."""
    folder, known = commands
    scenario = known[request.param]
    kept = folder / f"whole of {request.param}"
    if not kept.is_dir():
        process = start(scenario.command(fresh(kept)), kept)
        wait_for(lambda: any(kept.iterdir()), process)
        began = time.monotonic()
        assert process.wait() == 0, stderr_of(kept)
        kept.with_name(f"{kept.name}.seconds").write_text(str(time.monotonic() - began))
    seconds = float(kept.with_name(f"{kept.name}.seconds").read_text())
    return scenario, folder, digests(kept), seconds


class Tally:
    """One row of the table."""

    def __init__(self, fault: str, name: str) -> None:
        self.fault, self.name, self.counts, self.bad = fault, name, Counter(), []

    def add(self, verdict: Verdict) -> None:
        self.counts["runs"] += 1
        self.counts["half"] += bool(verdict.half_written)
        self.counts["lost"] += verdict.n_lost != 0
        self.counts["differ"] += bool(verdict.differs)
        self.counts["errors"] += bool(verdict.errors)
        if not verdict.is_good:
            self.bad.append(verdict)

    def report(self) -> None:
        row = " | ".join(str(self.counts[key]) for key in ("runs", "half", "lost", "differ", "errors"))
        print(f"\n| {self.fault} | {self.name} | {row} |", flush=True)
        for verdict in self.bad:
            print(f"  {verdict}", flush=True)
        assert not self.bad


def _draw(seed: int | str) -> random.Random:
    return random.Random(seed)  # noqa: S311  # moments, no secrets


def number(name: str) -> int:
    return N_SLOW.get(name, N)


def plainly(scenario, folder: Path):
    """The same command, undisturbed, as a user gives it again."""

    def again() -> tuple[int, str]:
        process = start(scenario.command(folder), folder)
        code = process.wait(timeout=300)
        return code, stderr_of(folder)

    return again


def at_a_random_moment(scenario, folder: Path, seconds: float, draw: random.Random, **options) -> subprocess.Popen:
    """The command, started, with a random part of its work behind it; of a short one also before it writes."""
    process = start(scenario.command(folder), folder, **options)
    if seconds > 0.2:
        wait_for(lambda: any(folder.iterdir()), process)
        moment = draw.uniform(0, seconds)
    else:
        moment = draw.uniform(0.1, 1.2)
    try:
        process.wait(timeout=moment)
    except subprocess.TimeoutExpired:
        return process
    return process


@pytest.mark.parametrize("whom", ["all processes", "the parent", "a worker"])
def test_killed_at_a_random_time(scene, whom):
    scenario, folder, whole, seconds = scene
    if whom == "a worker" and scenario.name not in WITH_WORKERS:
        pytest.skip("no workers")
    trial, draw = folder / "trial", _draw(whom)
    tally = Tally(f"kill -9 of {whom}", scenario.name)
    n_asked = number(scenario.name)
    while tally.counts["runs"] < n_asked:
        process = at_a_random_moment(scenario, fresh(trial), seconds, draw)
        if process.poll() is not None:
            continue  # it ended before
        if whom == "all processes":
            os.killpg(process.pid, signal.SIGKILL)
        elif whom == "the parent":
            process.kill()
        else:
            workers = children(process.pid)
            if not workers:
                process.kill()
                process.wait()
                group_is_gone(process.pid)
                continue
            os.kill(draw.choice(workers), signal.SIGKILL)
        process.wait(timeout=300)
        gone = group_is_gone(process.pid)
        if whom == "a worker" and process.returncode == 0:
            tally.add(_as_whole(trial, whole))
            continue
        verdict = judge(scenario, trial, whole, plainly(scenario, trial))
        if not gone:
            verdict.errors = (*verdict.errors, "processes outlived it")
        tally.add(verdict)
    tally.report()


def _as_whole(trial: Path, whole) -> Verdict:
    found = digests(trial)
    differs = tuple(name for name in found.keys() | whole.keys() if found.get(name) != whole.get(name))
    return Verdict(half_written(trial, whole), 0, differs)


def test_killed_at_random_changes_of_the_disk(scene):
    scenario, folder, whole, _ = scene
    trial, draw = folder / "trial", _draw(1)
    tally = Tally("kill -9 before a change of the disk", scenario.name)
    assert fork(scenario, fresh(trial))[0] == 0
    places = [*range(changes(trial))]
    n_asked = number(scenario.name)
    for place in sorted(places if len(places) <= n_asked else draw.sample(places, n_asked)):
        code, _ = fork(scenario, fresh(trial), kill_at=place)
        if code == -signal.SIGKILL:
            tally.add(judge(scenario, trial, whole, lambda: fork(scenario, trial)))
    tally.report()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_disk_full_at_a_random_byte(scene):
    scenario, folder, whole, _ = scene
    trial, draw = fresh(folder / "small disk"), _draw(2)
    tally = Tally("disk full", scenario.name)
    kept = folder / f"whole of {scenario.name}"
    needed = sum(path.stat().st_size + 4096 for path in kept.rglob("*") if path.is_file() and not path.is_symlink())
    while tally.counts["runs"] < max(1, number(scenario.name) // 2):
        n_pages = max(1, int(draw.uniform(0.02, 1.0) * needed) // 4096)
        _mount(trial, "-t", "tmpfs", "-o", f"size={4 * n_pages}k", "tmpfs")
        try:
            code, stderr = plainly(scenario, trial)()
            if code == 0:
                continue
            errors = _not_one_line(stderr, code)
            _mount(trial, "-o", "remount,size=1g")
            verdict = judge(scenario, trial, whole, plainly(scenario, trial))
            tally.add(Verdict(verdict.half_written, verdict.n_lost, verdict.differs, (*errors, *verdict.errors)))
        finally:
            subprocess.run(["umount", "-l", trial], check=True)
    tally.report()


def _mount(folder: Path, *words: str) -> None:
    subprocess.run(["mount", *words, str(folder)], check=True)


def _not_one_line(stderr: str, code: int, *, expected: int = 1) -> tuple[str, ...]:
    """What is wrong with how a command ended."""
    last = stderr.strip().splitlines()[-1:] or [""]
    if "Traceback" in stderr or "unexpected" in stderr or code != expected or not last[0].startswith("auvtool: "):
        return (f"exit {code}: {stderr[-400:]}",)
    return ()


def test_a_read_only_folder(scene):
    scenario, folder, whole, _ = scene
    trial = fresh(folder / "trial")
    tally = Tally("read-only folder", scenario.name)
    trial.chmod(0o555)
    try:
        process = start([*without_root_rights(), *scenario.command(trial)], trial)
        code = process.wait(timeout=300)
        errors = _not_one_line(stderr_of(trial), code)
        assert not any(trial.iterdir())
    finally:
        trial.chmod(0o755)
    verdict = judge(scenario, trial, whole, plainly(scenario, trial))
    tally.add(Verdict(verdict.half_written, verdict.n_lost, verdict.differs, (*errors, *verdict.errors)))
    tally.report()


def test_a_folder_that_vanishes(scene):
    scenario, folder, whole, seconds = scene
    trial, draw = folder / "trial", _draw(3)
    tally = Tally("folder vanishes", scenario.name)
    n_tried = 0
    while tally.counts["runs"] < max(1, number(scenario.name) // 5) and n_tried < 200:
        n_tried += 1
        process = at_a_random_moment(scenario, fresh(trial), seconds, draw)
        if process.poll() is not None:
            continue
        shutil.rmtree(trial, ignore_errors=True)
        code = process.wait(timeout=300)
        stderr = stderr_of(trial)
        # A folder that the command made, or had done with, may vanish without its noticing.
        errors = () if code == 0 or "create it first" in stderr else _not_one_line(stderr, code)
        verdict = judge(scenario, fresh(trial), whole, plainly(scenario, trial))
        tally.add(Verdict(verdict.half_written, 0, verdict.differs, (*errors, *verdict.errors)))
    tally.report()


@pytest.mark.parametrize("how", ["SIGTERM to the parent", "SIGTERM to all", "Ctrl-C", "Ctrl-C twice"])
def test_a_signal_at_a_random_time(scene, how):
    scenario, folder, whole, seconds = scene
    trial, draw = folder / "trial", _draw(how)
    tally = Tally(how, scenario.name)
    while tally.counts["runs"] < max(1, number(scenario.name) // 5):
        process = at_a_random_moment(scenario, fresh(trial), seconds, draw)
        if process.poll() is not None:
            continue
        if how == "SIGTERM to the parent":
            process.terminate()
        elif how == "SIGTERM to all":
            os.killpg(process.pid, signal.SIGTERM)
        else:
            os.killpg(process.pid, signal.SIGINT)
            if how == "Ctrl-C twice":
                time.sleep(draw.uniform(0, 0.3))
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGINT)
        code = process.wait(timeout=60)
        stderr = stderr_of(trial)
        # Before the interpreter has started, the system's own answer to the signal.
        usual = {143, -signal.SIGTERM} if "SIGTERM" in how else {130, -signal.SIGINT}
        errors = [] if code in {0, *usual} else [f"exit {code}: {stderr[-300:]}"]
        if "Traceback" in stderr and any(trial.iterdir()):
            errors.append(stderr[-1500:])
        if not group_is_gone(process.pid):
            errors.append("processes outlived it")
        verdict = judge(scenario, trial, whole, plainly(scenario, trial))
        tally.add(Verdict(verdict.half_written, verdict.n_lost, verdict.differs, (*errors, *verdict.errors)))
    tally.report()


_CLOCK = """
import time
shift = float({shift})
real = time.time
time.time = lambda: real() + shift
from auvtool.cli.app import main
main()
"""


@pytest.mark.parametrize("shift", [-1e9, 1e9])
def test_a_clock_that_was_set(scene, shift):
    """Killed half-way, then gone on with under another time of day, the files of the first run as if of that time."""
    scenario, folder, whole, seconds = scene
    trial, draw = folder / "trial", _draw(4)
    tally = Tally("clock set back" if shift < 0 else "clock set forward", scenario.name)
    while tally.counts["runs"] < max(1, number(scenario.name) // 10):
        process = at_a_random_moment(scenario, fresh(trial), seconds, draw)
        if process.poll() is not None:
            continue
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for path in trial.rglob("*"):
            if not path.is_symlink():
                os.utime(path, (time.time() - shift, time.time() - shift))
        command = [sys.executable, "-c", _CLOCK.format(shift=shift), *scenario.arguments(trial)]

        def again(command=command) -> tuple[int, str]:
            code = start(command, trial).wait(timeout=300)
            return code, stderr_of(trial)

        tally.add(judge(scenario, trial, whole, again))
    tally.report()


LOCALES = {
    "C in ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "tr_TR.UTF-8": {"LC_ALL": "tr_TR.UTF-8"},
    "de_DE": {"LC_ALL": "de_DE.ISO-8859-1", "PYTHONUTF8": "0"},
}


@pytest.fixture(scope="session")
def locales(tmp_path_factory):
    """A folder with the locales, where the system can make them."""
    folder = tmp_path_factory.mktemp("locales")
    for name in ("tr_TR.UTF-8", "de_DE.ISO-8859-1"):
        language, characters = name.split(".")
        made = subprocess.run(
            ["localedef", "-i", language, "-f", characters, str(folder / name)], capture_output=True, check=False
        )
        if not (folder / name).is_dir():
            print(made.stderr.decode())
    return folder


@pytest.mark.parametrize("name", LOCALES)
def test_another_locale(scene, locales, name):
    scenario, folder, whole, _ = scene
    trial = fresh(folder / "trial")
    tally = Tally(f"locale {name}", scenario.name)
    code = start(scenario.command(trial), trial, env={**os.environ, "LOCPATH": str(locales), **LOCALES[name]}).wait()
    verdict = _as_whole(trial, whole)
    tally.add(verdict if code == 0 else Verdict([], errors=(stderr_of(trial)[-500:],)))
    tally.report()


def test_two_runs_on_one_output(scene):
    scenario, folder, whole, seconds = scene
    trial, draw = folder / "trial", _draw(5)
    tally = Tally("two runs at once", scenario.name)
    while tally.counts["runs"] < max(1, number(scenario.name) // 10):
        first = at_a_random_moment(scenario, fresh(trial), seconds / 2, draw)
        if first.poll() is not None:
            continue
        code, stderr = plainly(scenario, trial)()
        errors = [] if first.wait(timeout=300) == 0 else ["the first one failed"]
        if code not in {0, 2} or "Traceback" in stderr:
            errors.append(f"exit {code}: {stderr[-300:]}")
        found = _as_whole(trial, whole)
        tally.add(Verdict(found.half_written, 0, found.differs, tuple(errors)))
    tally.report()
