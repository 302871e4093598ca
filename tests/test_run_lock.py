"""One run at a time on one output; killed runs hold nothing, and what they left half-written goes."""

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import phantoms
import pytest
from command_line import auvtool
from typer.testing import CliRunner

from auvtool import run_lock as module
from auvtool.atomic import put_folder_in_place
from auvtool.cli.app import app
from auvtool.errors import ExitCode, UsageError
from auvtool.run_lock import lock_path, run_lock

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks of POSIX systems")

COMMANDS = {
    "extract": ("extract", "D", "-o", "OUT"),
    "corrupt": ("corrupt", "D", "-o", "OUT"),
    "convert": ("convert", "msd", "D", "OUT"),
    "train": ("train", "D", "-o", "OUT"),
    "predict": ("predict", "RUN", "D", "-o", "OUT"),
    "bench detect": ("bench", "detect", "D", "-o", "OUT"),
    "bench downstream": ("bench", "downstream", "D", "--key", "K.csv", "--scores", "S.csv", "-o", "OUT"),
    "calibrate": ("calibrate", "D", "F.h5", "--copies", "OUT"),
    "demo": ("demo", "-o", "OUT"),
    "calibrate, its table": ("calibrate", "D", "F.h5", "-o", "OUT"),
    "check": ("check", "D", "-o", "OUT"),
    "score": ("score", "F.h5", "-o", "OUT"),
    "score, its plot": ("score", "F.h5", "-o", "S.csv", "--plot", "OUT"),
    "filter, its plot": ("filter", "S.csv", "-o", "K.csv", "--plot", "OUT"),
    "eval, its means": ("eval", "P", "D", "-o", "M.csv", "--means", "OUT"),
    "filter": ("filter", "S.csv", "-o", "OUT"),
    "filter, its split file": ("filter", "S.csv", "--append-fold", "OUT"),
    "eval": ("eval", "P", "D", "-o", "OUT"),
    "correlate": ("correlate", "S.csv", "M.csv", "-o", "OUT"),
    "report": ("report", "S.csv", "-o", "OUT"),
    "merge": ("merge", "M.csv", "-o", "OUT"),
}


def fail(message: str) -> None:
    pytest.fail(f"a warning: {message}")


def test_the_second_run_says_who_holds_the_output(tmp_path: Path) -> None:
    dataset = phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=1)
    output = tmp_path / "F.h5"
    command = ("extract", dataset, "-o", output, "--extractor", "identity", "-q")
    with run_lock(output, warn=fail):
        refused = auvtool(*command)
        other = auvtool("extract", dataset, "-o", tmp_path / "F.2.h5", "--extractor", "identity", "-q")
        planned = auvtool(*command, "--dry-run")
    assert refused.returncode == ExitCode.USAGE
    assert refused.stderr.count("\n") == 1
    assert f"{output}: expected no other run on it, got one of process {os.getpid()} on " in refused.stderr
    assert " since 2" in refused.stderr
    assert other.returncode == ExitCode.DONE, other.stderr
    assert planned.returncode == ExitCode.DONE, planned.stderr
    done = auvtool(*command)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("words", COMMANDS.values(), ids=list(COMMANDS))
def test_every_command_that_writes_a_file_takes_the_lock(words, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module.time, "monotonic", itertools.count(step=100).__next__)  # no patience
    with run_lock(Path("OUT"), warn=fail):
        done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, UsageError), done.exception
    assert "expected no other run on it" in str(done.exception)
    assert not any(tmp_path.iterdir())


def test_what_was_left_half_written_beside_a_second_output_goes_too(tmp_path: Path) -> None:
    labels = phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=1) / "labelsTr"
    left = [tmp_path / f".tmp-1-0123abcd-{name}" for name in ("M.csv", "means.json")]
    for path in left:
        path.touch()
    done = auvtool("eval", labels, labels, "-o", tmp_path / "M.csv", "--means", tmp_path / "means.json")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert not any(path.exists() for path in left)
    assert (tmp_path / "means.json").is_file()
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())


_HOLD = """
import os, signal, sys, time
from pathlib import Path
from auvtool.run_lock import run_lock
with run_lock(Path(sys.argv[1]), warn=print):
    awaited, begun = os.pipe()
    child = os.fork() if sys.argv[2] == "fork" else None
    if child == 0:
        os.write(begun, b"x")
        time.sleep(60)
        os._exit(0)
    if child is not None:
        os.read(awaited, 1)  # until the child has closed what it got of the lock
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_a_killed_run_holds_nothing_even_if_a_forked_child_lives_on(tmp_path: Path, how: str) -> None:
    output = tmp_path / "F.h5"
    with subprocess.Popen([sys.executable, "-c", _HOLD, output, how], stdout=subprocess.PIPE, text=True) as killed:
        child = killed.stdout.readline().strip()
        assert killed.wait(timeout=300) == -signal.SIGKILL
        assert json.loads(lock_path(output).read_text())["pid"] == killed.pid
        with run_lock(output, warn=fail):
            assert json.loads(lock_path(output).read_text())["pid"] == os.getpid()
        if child != "None":
            os.kill(int(child), signal.SIGKILL)
    assert not lock_path(output).exists()


def test_no_two_hold_it_while_names_come_and_go(tmp_path: Path) -> None:
    inside, most, got = 0, 0, 0
    guard = threading.Lock()

    def try_often() -> None:
        nonlocal inside, most, got
        for _ in range(200):
            try:
                with run_lock(tmp_path / "F.h5", warn=fail):
                    with guard:
                        inside += 1
                        most, got = max(most, inside), got + 1
                    with guard:
                        inside -= 1
            except UsageError:
                continue

    threads = [threading.Thread(target=try_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert got >= 200 // 4
    assert not any(tmp_path.iterdir())


def test_a_name_that_goes_while_it_is_looked_at_is_locked_anew(tmp_path: Path, monkeypatch) -> None:
    path, lock, taken = lock_path(tmp_path / "F.h5"), module._lock, []

    def take_and_lose(descriptor: int) -> bool:
        if not taken:
            path.unlink()
        taken.append(descriptor)
        return lock(descriptor)

    monkeypatch.setattr(module, "_lock", take_and_lose)
    monkeypatch.setattr(Path, "exists", lambda self: True)  # a moment before
    with run_lock(tmp_path / "F.h5", warn=fail):
        assert os.path.lexists(path)
    assert len(taken) == 2


def test_without_locks_the_run_goes_on_and_says_so_once(tmp_path: Path, monkeypatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    said: list[str] = []
    monkeypatch.setattr(module.fcntl, "flock", no_locks)
    with run_lock(tmp_path / "F.h5", warn=said.append):
        pass
    assert len(said) == 1
    assert "No locks available" in said[0]
    with run_lock(tmp_path / "none" / "F.h5", warn=fail):  # the command says that there is no such folder
        pass


def test_a_full_disk_takes_the_lock_without_a_name(tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with run_lock(tmp_path / "F.h5", warn=fail), pytest.raises(UsageError, match="got one of another process"):
        run_lock(tmp_path / "F.h5", warn=fail).__enter__()


def test_what_killed_runs_left_half_written_goes_and_nothing_else(tmp_path: Path) -> None:
    left = (".tmp-1-0123abcd-F.h5", ".tmp-1-0123abcd-F.h5.manifest.json")
    stays = (".tmp-1-0123abcd-G.h5", "F.h5.failures.csv", ".F.h5.notes", ".tmp-1-0123abcd-my-F.h5")
    for name in (*left, *stays):
        (tmp_path / name).touch()
    for name in ("F.h5.parts", ".F.h5.parts", ".F.h5.old"):
        (tmp_path / f".tmp-1-0123abcd-{name}").mkdir()
    with run_lock(tmp_path / "F.h5", warn=fail):
        names = {path.name for path in tmp_path.iterdir()} - {".F.h5.lock"}
    assert names == set(stays)


def test_an_exchange_of_folders_that_was_killed_half_way_is_taken_back(tmp_path: Path, monkeypatch) -> None:
    new, folder = tmp_path / "new", tmp_path / "DIR"
    for path, text in ((new, "new"), (folder, "old")):
        path.mkdir()
        (path / "a").write_text(text)
    replace, moved = Path.replace, []

    def one_only(self: Path, target: Path) -> Path:
        if moved:
            raise KeyboardInterrupt
        moved.append(self)
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", one_only)
        with pytest.raises(KeyboardInterrupt):
            put_folder_in_place(new, folder)
    assert not folder.exists()
    with run_lock(folder, warn=fail):
        assert (folder / "a").read_text() == "old"
        put_folder_in_place(new, folder)
    assert (folder / "a").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["DIR"]
