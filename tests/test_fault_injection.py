"""Nothing lost, nothing half-written: some faults of each kind (tests/benchmarks/bench_fault_injection.py has more)."""

import os
import signal
from pathlib import Path

import phantoms
import pytest
from command_line import auvtool, without_root_rights
from fault_injection import (
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
from fault_scenarios import extraction, scenarios

from auvtool.errors import ExitCode

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes with POSIX signals")

NAMES = ("extract", "score", "filter", "eval", "corrupt", "convert")
N_KILLS = 4
N_LONG = 150  # cases, a few seconds of work


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    return scenarios(tmp_path_factory.mktemp("inputs"), n_cases=3)


@pytest.fixture(params=NAMES)
def scene(request, commands, tmp_path):
    """A command, a folder for a trial, and the digests of an undisturbed run, which `changes` counts."""
    scenario, trial = commands[request.param], tmp_path / "trial"
    code, stderr = fork(scenario, fresh(trial))
    assert code == ExitCode.DONE, stderr
    return scenario, trial, digests(trial)


def test_killed_before_changes_of_the_disk(scene):
    scenario, trial, whole = scene
    n_changes = changes(trial)
    for place in sorted({n_changes * part // N_KILLS for part in range(N_KILLS)} | {n_changes - 1}):
        assert fork(scenario, fresh(trial), kill_at=place)[0] == -signal.SIGKILL
        verdict = judge(scenario, trial, whole, lambda: fork(scenario, trial))
        assert verdict.is_good, (place, verdict)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_file_that_takes_no_more_bytes(scene, share):
    """The same errors as a full disk, at a byte that is known."""
    scenario, trial, whole = scene
    largest = max(path.stat().st_size for path in trial.rglob("*") if path.is_file() and not path.is_symlink())
    code, stderr = fork(scenario, fresh(trial), file_limit=int(share * largest))
    assert code == ExitCode.UNEXPECTED, stderr
    assert "File too large; free some space" in stderr.replace("'", "").replace("expected", "")
    assert "Traceback" not in stderr
    assert not (trial / scenario.result).exists() or not half_written(trial, whole)
    verdict = judge(scenario, trial, whole, lambda: fork(scenario, trial))
    assert verdict.is_good, verdict


def test_a_read_only_folder_is_said(scene):
    scenario, trial, _ = scene
    fresh(trial).chmod(0o555)
    code = start([*without_root_rights(), *scenario.command(trial)], trial).wait(timeout=300)
    trial.chmod(0o755)
    assert code == ExitCode.UNEXPECTED, stderr_of(trial)
    assert "Permission denied" in stderr_of(trial).splitlines()[-1]
    assert not any(trial.iterdir())


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A command that works long enough to be met in its work."""
    dataset = phantoms.write_raw_dataset(tmp_path_factory.mktemp("long") / "Dataset001_Box", n_cases=N_LONG)
    return extraction(dataset, jobs=2)


def met_in_its_work(scenario, trial):
    process = start(scenario.command(fresh(trial)), trial)
    assert wait_for(lambda: scenario.units(trial), process), stderr_of(trial)
    return process


def test_a_folder_that_vanishes_is_said(long, tmp_path):
    trial = tmp_path / "trial"
    process = met_in_its_work(long, trial)
    trial.rename(tmp_path / "gone")  # at once; what is removed file by file is being filled again meanwhile
    assert process.wait(timeout=300) == ExitCode.UNEXPECTED, stderr_of(trial)
    assert "No such file or directory" in stderr_of(trial).splitlines()[-1]
    assert "Traceback" not in stderr_of(trial)
    assert group_is_gone(process.pid)


def test_a_finished_case_that_vanishes_is_said_and_made_again(long, tmp_path):
    trial = tmp_path / "trial"
    process = met_in_its_work(long, trial)
    finished = min(trial.glob("F.h5.parts/case_*.h5"))
    finished.unlink()
    assert process.wait(timeout=300) == ExitCode.UNEXPECTED, stderr_of(trial)
    assert stderr_of(trial).splitlines()[-1] == (
        f"auvtool: {finished}: expected a finished case, got 'No such file or directory'; 1 of {N_LONG} were removed: "
        "run the command again"
    )
    assert not (trial / long.result).exists()
    again = start(long.command(trial), trial)
    assert again.wait(timeout=300) == ExitCode.DONE, stderr_of(trial)
    assert long.said(stderr_of(trial)) == N_LONG - 1
    assert digests(trial).keys() == {"F.h5"}


@pytest.mark.parametrize("to_all", [False, True])
def test_sigterm_as_a_scheduler_sends_it(long, tmp_path, to_all):
    trial = tmp_path / "trial"
    process = met_in_its_work(long, trial)
    os.killpg(process.pid, signal.SIGTERM) if to_all else process.terminate()
    assert process.wait(timeout=300) == ExitCode.TERMINATED, stderr_of(trial)
    assert "Traceback" not in stderr_of(trial)
    assert group_is_gone(process.pid)
    assert long.units(trial)
    assert not (trial / long.result).exists()


@pytest.mark.parametrize("n_times", [1, 2])
def test_ctrl_c_as_a_terminal_sends_it(long, tmp_path, n_times):
    trial = tmp_path / "trial"
    process = met_in_its_work(long, trial)
    for _ in range(n_times):
        os.killpg(process.pid, signal.SIGINT)
    # The second one may come when Python has already taken its handler away.
    possible = {ExitCode.INTERRUPTED} if n_times == 1 else {ExitCode.INTERRUPTED, -signal.SIGINT}
    assert process.wait(timeout=300) in possible, stderr_of(trial)
    assert n_times == 2 or "Traceback" not in stderr_of(trial)
    assert group_is_gone(process.pid)
    assert long.units(trial)
    assert not (trial / long.result).exists()


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_alone_it_goes_on_to_the_same_bytes(long, tmp_path, jobs):
    trial, whole = tmp_path / "trial", fresh(tmp_path / "whole")
    scenario = extraction(Path(long.words[1]), jobs=jobs)
    process = met_in_its_work(scenario, trial)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert group_is_gone(process.pid)
    assert not (trial / scenario.result).exists()
    assert start(scenario.command(whole), whole).wait(timeout=300) == ExitCode.DONE, stderr_of(whole)

    def again():
        return start(scenario.command(trial), trial).wait(timeout=300), stderr_of(trial)

    verdict = judge(scenario, trial, digests(whole), again)
    assert verdict.is_good, verdict


def test_a_killed_worker_loses_nothing(long, tmp_path):
    trial = tmp_path / "trial"
    process = met_in_its_work(long, trial)
    workers = children(process.pid) if Path("/proc/self").is_dir() else []
    if not workers:
        pytest.skip("no /proc to find workers in")
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    assert process.wait(timeout=300) == ExitCode.DONE, stderr_of(trial)
    assert digests(trial).keys() == {"F.h5"}
    assert group_is_gone(process.pid)


def test_the_clock_may_be_set_and_the_files_of_another_year(commands, tmp_path):
    scenario, trial = commands["extract"], tmp_path / "trial"
    assert fork(scenario, fresh(trial))[0] == ExitCode.DONE
    whole, n_changes = digests(trial), changes(trial)
    for year in (1, 4_000_000_000):
        assert fork(scenario, fresh(trial), kill_at=2 * n_changes // 3)[0] == -signal.SIGKILL
        for path in trial.rglob("*"):
            os.utime(path, (year, year))
        verdict = judge(scenario, trial, whole, lambda: fork(scenario, trial))
        assert verdict.is_good, verdict


def test_names_beyond_ascii_in_a_locale_without_them(tmp_path):
    ascii_only = {name: value for name, value in os.environ.items() if name != "PYTHONUTF8"} | {"LC_ALL": "C"}
    dataset = phantoms.write_raw_dataset(tmp_path / "Dataset001_Füße", n_cases=3, prefix="naïve_")
    for name, environment in (("usual", None), ("ascii", ascii_only)):
        out = fresh(tmp_path / name)
        for words in (
            ("extract", dataset, "-o", out / "F.h5", "--extractor", "identity"),
            ("score", out / "F.h5", "-o", out / "S.csv"),
            ("corrupt", dataset, "-o", out / "Dataset002_D", "--share", "1"),
        ):
            done = auvtool(*words, env=environment)
            assert done.returncode == ExitCode.DONE, done.stderr
    assert digests(tmp_path / "usual") == digests(tmp_path / "ascii")
