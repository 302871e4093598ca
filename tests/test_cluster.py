"""Work on Dask clusters of real processes, of which workers, schedulers and clients are killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import phantoms
import pytest
from command_line import auvtool
from worker_tasks import die_once, square, square_or_die

from auvtool import cluster, cluster_work
from auvtool.cluster import Crew, Worker, check_cluster
from auvtool.errors import ClusterError, ExitCode, UsageError
from auvtool.worker_pool import WorkerDied
from auvtool.workplace import Workplace

pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes with POSIX signals")

TESTS = Path(__file__).parent
N_CASES = 150  # a few seconds of work, so that a kill meets it


class ByHand:
    """A scheduler and workers as a user starts them, in a folder that is not the client's."""

    def __init__(self, folder: Path, *, workers: int) -> None:
        self.folder, self.file = folder, folder / "scheduler.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", self.file
        )
        wait_for(self.file.exists)
        self.workers = [self.add_worker() for _ in range(workers)]

    def add_worker(self) -> subprocess.Popen[bytes]:
        options = ("--nthreads", "1", "--no-dashboard", "--local-directory", self.folder / "scratch")
        return self._start("worker", "--scheduler-file", self.file, *options)

    @property
    def address(self) -> str:
        return json.loads(self.file.read_text())["address"]

    def _start(self, what: str, *arguments: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "distributed.cli.dask_" + what, *map(str, arguments)]
        path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.terminate()
        for process in (*self.workers, self.scheduler):
            process.wait(timeout=300)


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ByHand]:
    started = ByHand(tmp_path_factory.mktemp("dask"), workers=2)
    yield started
    started.stop()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def fail(number: int) -> int:
    raise ValueError(f"no {number}")


def leave_mark(path: Path) -> str:
    path.touch()
    return str(Path.cwd())


def wait_or_return(marker: Path) -> str:
    if marker.name == "b":
        marker.write_text(str(os.getpid()))
        time.sleep(60)
    return "done"


def all_results(task, items, where: str, *, died=pytest.fail, shared: Path | None = None) -> dict:
    return dict(Workplace(cluster=where).results(task, items, on_worker_died=died, shared=shared))


@pytest.mark.parametrize("form", ["local", "file", "tcp"])
def test_every_item_comes_with_its_result(form: str, by_hand: ByHand) -> None:
    where = {"local": "local:2", "file": f"file:{by_hand.file}", "tcp": by_hand.address}[form]
    assert all_results(square, [1, 2, 3, 4, 5], where) == {1: 1, 2: 4, 3: 9, 4: 16, 5: 25}


def test_relative_paths_mean_the_same_on_the_workers(
    by_hand: ByHand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    assert all_results(leave_mark, [Path("mark")], by_hand.address, shared=tmp_path) == {Path("mark"): str(tmp_path)}
    assert [path.name for path in tmp_path.iterdir()] == ["mark"]


def test_only_the_item_that_kills_its_process_is_lost() -> None:
    died: list[list[int]] = []
    results = all_results(square_or_die, [1, 2, -3, 4, 5, 6, 7], "local:2", died=died.append)
    assert isinstance(results.pop(-3), WorkerDied)
    assert results == {1: 1, 2: 4, 4: 16, 5: 25, 6: 36, 7: 49}
    assert died == [[-3], [-3]]  # in company, then alone


def test_a_process_killed_once_is_made_good(tmp_path: Path) -> None:
    died: list[list[Path]] = []
    (tmp_path / "other").mkdir()
    items = [tmp_path, tmp_path / "other"]
    (tmp_path / "other" / "died").touch()
    assert all_results(die_once, items, "local:2", died=died.append) == dict.fromkeys(items, "done")
    assert died == [[tmp_path]]


def test_local_workers_end_with_the_loop_that_used_them(tmp_path: Path) -> None:
    markers = [tmp_path / "a", tmp_path / "b"]
    with closing(Workplace(cluster="local:2").results(wait_or_return, markers, on_worker_died=pytest.fail)) as results:
        assert next(results) == (markers[0], "done")
        wait_for(lambda: markers[1].exists() and bool(markers[1].read_text()))
    with pytest.raises(ProcessLookupError):
        os.kill(int(markers[1].read_text()), 0)


def test_a_lost_scheduler_ends_the_run_in_a_line(tmp_path: Path) -> None:
    dask = ByHand(tmp_path / "dask", workers=1)
    try:
        numbers = list(range(200))
        results = Workplace(cluster=dask.address).results(square_or_die, numbers, on_worker_died=pytest.fail)
        with closing(results):
            assert next(results) == (0, 0)
            dask.scheduler.kill()
            with pytest.raises(ClusterError, match="connection lost; finished cases are kept: start it again"):
                for _ in results:
                    pass
    finally:
        dask.stop()


def test_workers_may_come_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dask = ByHand(tmp_path / "dask", workers=0)
    try:
        monkeypatch.setattr(cluster, "_WORKERS_SECONDS", 1)
        with pytest.raises(ClusterError, match="expected workers that take work, got none for 1 s; start some"):
            all_results(square, [1, 2], dask.address)
        monkeypatch.undo()
        dask.workers.append(dask.add_worker())
        assert all_results(square, [1, 2], dask.address) == {1: 1, 2: 4}
    finally:
        dask.stop()


def test_workers_that_do_not_fit_are_refused(by_hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "__version__", "9.9")
        with pytest.raises(ClusterError, match=r"expected a worker with auvtool 9\.9 as here, got "):
            all_results(square, [1], by_hand.address)
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "_python", lambda: "3.99")
        with pytest.raises(ClusterError, match=r"expected a worker with Python 3\.99 as here, got 3\."):
            all_results(square, [1], by_hand.address)
    with monkeypatch.context() as patch:
        patch.setattr(cluster_work, "_working_folder", lambda: Path("/not/shared"))
        with pytest.raises(ClusterError, match="sees the folder /not/shared, got none of that name there"):
            all_results(square, [1], by_hand.address)
    with pytest.raises(ClusterError, match="can do the work, got 'ValueError: no 1'"):
        all_results(fail, [1], by_hand.address)


def test_a_disk_that_a_worker_does_not_share_is_refused(tmp_path: Path) -> None:
    class ElsewhereClient:
        def run(self, function, folder, token, *, workers, on_error):
            assert token.is_file()  # as long as the workers look for it
            facts = function(folder, None) | {"sees output": False}
            return dict.fromkeys(workers, facts)

        def sync(self, question, callback_timeout):
            return {"tcp://10.0.0.1:1": 1}

        class scheduler:  # noqa: N801  # an attribute of Dask's client
            ncores = ncores_running = None

    crew = Crew(ElsewhereClient(), tmp_path, tmp_path, pytest.fail)
    with pytest.raises(ClusterError, match=f"sees what is written to {tmp_path}, got another disk there"):
        crew.present()
    assert list(tmp_path.iterdir()) == []


def test_suspects_run_alone_on_their_machine() -> None:
    """Two machines of two workers each: a suspect waits for all else on its machine, and nothing joins it."""
    one, two = ([Worker(f"tcp://{machine}:{port}", machine) for port in (1, 2)] for machine in ("one", "two"))
    submitted: list[tuple[int, str]] = []

    class Recorder:
        def submit(self, task, item, *, workers, pure):
            submitted.append((item, workers[0]))
            return type("Future", (), {"key": f"{item}-{len(submitted)}", "add_done_callback": lambda *_: None})()

    work = cluster_work._Work(Recorder(), None, square, [1, 2, 3], pytest.fail)
    work._suspects.extend([7, 8, 9])
    work._hand_out([*one, *two])
    assert submitted == [(1, one[0].address), (2, one[1].address), (3, two[0].address)]
    work._in_work.pop("3-3")
    work._hand_out([*one, *two])
    assert submitted[3:] == [(7, two[0].address)]
    work._hand_out([*one, *two])
    assert len(submitted) == 4


def test_no_scheduler_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_CONNECT_SECONDS", 1)
    with pytest.raises(ClusterError, match=r"expected a scheduler at tcp://127\.0\.0\.1:1, got '.*'; start one"):
        all_results(square, [1], "tcp://127.0.0.1:1")
    with pytest.raises(ClusterError, match=r"no\.json: expected the file that 'dask scheduler .*, got no such file"):
        all_results(square, [1], f"file:{tmp_path / 'no.json'}")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ClusterError, match=r"bad\.json: expected the file that 'dask scheduler .*, got ''address''"):
        all_results(square, [1], f"file:{tmp_path / 'bad.json'}")


@pytest.mark.parametrize(
    "name", ["", "local", "local:", "local:0", "local:two", "file:", "tcp:host", "tcp://", "ssh:a"]
)
def test_other_forms_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="--cluster: expected local:N, file:SCHEDULER"):
        check_cluster(name)


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"got no such package; pip install 'auvtool\[dask\]'"):
        check_cluster("local:2")


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    for more in (("-j", 2), ("--max-memory", "4GB")):
        ended = auvtool("corrupt", tmp_path, "-o", tmp_path / "D", "--cluster", "local:2", *more)
        assert ended.returncode == ExitCode.USAGE
        assert "expected nothing beside --cluster" in ended.stderr


def test_corrupt_and_eval_give_the_same_bytes(by_hand: ByHand, tmp_path: Path) -> None:
    folder = phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=6)
    for place, where in (("here", ()), ("there", ("--cluster", f"file:{by_hand.file}"))):
        (tmp_path / place).mkdir()
        dirty = tmp_path / place / "Dataset002_Dirty"
        for arguments in (
            ("corrupt", folder, "-o", dirty, "--share", 1, *where),
            ("eval", dirty / "labelsTr", folder, "--allow-missing", "-o", tmp_path / place / "M.csv", *where),
        ):
            ended = auvtool(*arguments)
            assert ended.returncode == ExitCode.DONE, ended.stderr
    here, there = (
        {
            path.relative_to(tmp_path / place): path.read_bytes()
            for path in (tmp_path / place).rglob("*.*")
            if path.is_file()
        }
        for place in ("here", "there")
    )
    assert here.keys() == there.keys()
    assert [path for path in here if here[path] != there[path] and not path.name.endswith("manifest.json")] == []


def test_extract_after_kills_gives_the_bytes_of_an_undisturbed_run(tmp_path: Path) -> None:
    """The client is killed on local:2, then the scheduler of a cluster by hand; each time finished cases are kept."""
    folder = phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=N_CASES)
    words = ("extract", folder, "--extractor", "identity", "-o")
    assert auvtool(*words, tmp_path / "alone.h5").returncode == ExitCode.DONE
    output = tmp_path / "F.h5"
    parts = output.with_name("F.h5.parts")

    def shards() -> int:
        return len(list(parts.glob("case_*.h5"))) if parts.exists() else 0

    command = [sys.executable, "-m", "auvtool", *map(str, words), str(output), "-q", "--cluster"]
    client = subprocess.Popen([*command, "local:2"], start_new_session=True, stderr=subprocess.DEVNULL)
    wait_for(lambda: shards() >= 2)
    client.kill()
    client.wait()
    wait_for(lambda: not _members_of(client.pid))  # its workers have ended with it
    kept = shards()
    assert 2 <= kept < N_CASES

    dask = ByHand(tmp_path / "dask", workers=1)
    client = subprocess.Popen([*command, f"file:{dask.file}"], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: shards() > kept)
    dask.scheduler.kill()
    _, stderr = client.communicate(timeout=300)
    dask.stop()
    assert (client.returncode, stderr.count("\n")) == (ExitCode.UNEXPECTED, 1), stderr
    assert "got its connection lost; finished cases are kept" in stderr
    assert kept < shards() < N_CASES

    ended = auvtool(*words, output, "--cluster", "local:2")
    assert ended.returncode == ExitCode.DONE, ended.stderr
    assert output.read_bytes() == (tmp_path / "alone.h5").read_bytes()
    assert not parts.exists()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)]
)
def test_signals_end_the_client_and_its_workers(tmp_path: Path, number: signal.Signals, code: ExitCode) -> None:
    folder = phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=N_CASES)
    output = tmp_path / "F.h5"
    command = [sys.executable, "-m", "auvtool", "extract", folder, "-o", output, "--extractor", "identity", "-q"]
    client = subprocess.Popen(
        [*map(str, command), "--cluster", "local:2"], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: any(output.with_name("F.h5.parts").glob("case_*.h5")))
    os.killpg(client.pid, number)  # as Ctrl-C in a terminal reaches all of them
    _, stderr = client.communicate(timeout=300)
    assert client.returncode == code
    assert stderr == ""
    assert not output.exists()
    wait_for(lambda: not _members_of(client.pid))


def _members_of(session: int) -> list[str]:
    """What runs in a session, but what has ended and waits for its parent to notice."""
    listed = subprocess.run(["ps", "-e", "-o", "sess=,stat="], capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in listed.splitlines())
    return [state for number, state in rows if int(number) == session and not state.startswith("Z")]
