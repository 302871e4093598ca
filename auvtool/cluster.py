"""A Dask cluster: how it is named, reached or started, and which of its workers can be used.

Dask's scheduler asks nobody for a password: whoever reaches it can run code as the user of its workers. On a network
that others share, use TLS (tls://, Dask's own configuration).
"""

import asyncio
import json
import os
import platform
import secrets
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from auvtool import __version__
from auvtool.errors import ClusterError, UsageError, one_line

if TYPE_CHECKING:
    from distributed import Client

_FORMS = "local:N, file:SCHEDULER.json or tcp://HOST:PORT"
_CONNECT_SECONDS = 10
_ANSWER_SECONDS = 20  # of a scheduler that is there
_WORKERS_SECONDS = 120  # without any worker
_SHARED_DISK_SECONDS = 10  # until a new file is seen on another machine


def check_cluster(name: str) -> None:
    """Refuse a --cluster that names none, or that Dask is missing for.

    Raises:
        UsageError: see above.
    """
    kind, colon, rest = name.partition(":")
    fits = {
        "local": rest.isdecimal() and int(rest) > 0,
        "file": bool(rest),
        "tcp": rest.startswith("//") and len(rest) > 2,
        "tls": rest.startswith("//") and len(rest) > 2,
    }
    if not colon or not fits.get(kind, False):
        raise UsageError(f"--cluster: expected {_FORMS}, got {name}; for example local:4")
    if find_spec("distributed") is None:
        raise UsageError("--cluster: expected Dask distributed, got no such package; pip install 'auvtool[dask]'")


@contextmanager
def connected(name: str) -> Iterator["Client"]:
    """A client of the cluster for the block; one that was started for it ends with it, its workers too.

    Raises:
        ClusterError: no scheduler answers.
    """
    check_cluster(name)
    _silence()
    if name.startswith("local:"):
        with _local_cluster(int(name.removeprefix("local:"))) as address, _client(address, name) as client:
            yield client
        return
    address = _address_in_file(Path(name.removeprefix("file:"))) if name.startswith("file:") else name
    with _client(address, name) as client:
        yield client


class Worker(NamedTuple):
    """Where a process of the cluster listens, and the machine it runs on."""

    address: str
    machine: str


class Crew:
    """The workers of a cluster as they come and go; each is checked when it is first seen.

    Args:
        client: of the cluster.
        folder: the working folder, which every worker must see under the same name.
        shared: a folder that all write to; a file put there must be seen by every worker.
        say: told what to wait for, and what is odd.
    """

    def __init__(self, client: "Client", folder: Path, shared: Path | None, say: Callable[[str], None]) -> None:
        self._client, self._folder, self._shared, self._say = client, folder, shared, say
        self._known: dict[str, Worker] = {}
        self._last_seen = time.monotonic()
        self._told_to_wait = False

    def present(self) -> tuple[set[Worker], list[Worker]]:
        """The workers that are there, and those of them that take work.

        Raises:
            ClusterError: the scheduler is lost, no worker has been there for long, or one does not fit.
        """
        threads = self._ask("ncores")
        running = self._ask("ncores_running")
        new = sorted(threads.keys() - self._known.keys())
        if new:
            self._known |= self._checked(new)
            several = [address for address in new if threads[address] > 1]
            if several:
                self._say(f"{several[0]}: has {threads[several[0]]} threads, of which one is used (--nthreads 1)")
        present = {address: worker for address, worker in self._known.items() if address in threads}
        if running:
            self._last_seen = time.monotonic()
        waited = time.monotonic() - self._last_seen
        if waited > _WORKERS_SECONDS:
            raise ClusterError(
                f"--cluster: expected workers that take work, got none for {_WORKERS_SECONDS} s; start some with 'dask "
                "worker', and give the same command again"
            )
        if waited > 5 and not self._told_to_wait:
            self._told_to_wait = True
            self._say("the cluster has no worker that takes work; waiting for one")
        return set(present.values()), [worker for address, worker in sorted(present.items()) if address in running]

    def _ask(self, question: str) -> Mapping[str, int]:
        try:
            answer: Mapping[str, int] = self._client.sync(
                getattr(self._client.scheduler, question), callback_timeout=_ANSWER_SECONDS
            )
        except (TimeoutError, OSError, RuntimeError, AttributeError, asyncio.CancelledError) as error:
            raise scheduler_lost() from error
        return answer

    def _checked(self, addresses: list[str]) -> dict[str, Worker]:
        """The new workers that are still there, checked all at once.

        Raises:
            ClusterError: one of them does not fit.
        """
        token = None
        if self._shared is not None:  # under the name that the folder has on all machines
            token = self._folder / self._shared / f".tmp-{os.getpid()}-{secrets.token_hex(4)}-seen"
            token.touch()
        try:
            found = self._client.run(worker_facts, self._folder, token, workers=addresses, on_error="return")
        except (TimeoutError, OSError, RuntimeError, asyncio.CancelledError) as error:
            raise scheduler_lost() from error
        finally:
            if token is not None:
                token.unlink(missing_ok=True)
        workers = {}
        for address, facts in found.items():
            if isinstance(facts, OSError):  # gone while it was asked
                continue
            if isinstance(facts, BaseException):
                raise ClusterError(
                    f"{address}: expected a worker with auvtool {__version__}, got '{one_line(facts)}'; install it "
                    "there"
                )
            self._require_fit(address, facts)
            workers[address] = Worker(address, str(facts["machine"]))
        return workers

    def _require_fit(self, address: str, facts: Mapping[str, object]) -> None:
        for what, own in (("auvtool", __version__), ("Python", _python())):
            if facts[what] != own:
                raise ClusterError(
                    f"{address}: expected a worker with {what} {own} as here, got {facts[what]}; install the same "
                    "on both"
                )
        if not facts["sees folder"]:
            raise ClusterError(
                f"{address}: expected a worker that sees the folder {self._folder}, got none of that name there; work "
                "in a folder on a disk that all machines share"
            )
        if not facts["sees output"]:
            raise ClusterError(
                f"{address}: expected a worker that sees what is written to {self._shared}, got another disk there; "
                "name an output on a disk that all machines share"
            )


def worker_facts(folder: Path, token: Path | None) -> dict[str, object]:
    """What a worker says of itself: versions, machine, whether it sees the folder and the file."""
    deadline = time.monotonic() + _SHARED_DISK_SECONDS
    while token is not None and not token.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    return {
        "auvtool": __version__,
        "Python": _python(),
        "machine": socket.gethostname(),
        "sees folder": folder.is_dir(),
        "sees output": token is None or token.exists(),
    }


def scheduler_lost() -> ClusterError:
    """The error of a scheduler that was there and is not any more."""
    return ClusterError(
        "--cluster: expected the scheduler to stay, got its connection lost; finished cases are kept: start it again "
        "and give the same command"
    )


def _python() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def _address_in_file(path: Path) -> str:
    try:
        address = json.loads(path.read_text(encoding="utf-8"))["address"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"'{one_line(error)}'"
        raise ClusterError(
            f"{path}: expected the file that 'dask scheduler --scheduler-file' writes, got {reason}; start one"
        ) from error
    return str(address)


@contextmanager
def _client(address: str, name: str) -> Iterator["Client"]:
    from distributed import Client

    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (TimeoutError, OSError, ValueError, RuntimeError) as error:
        raise ClusterError(
            f"--cluster {name}: expected a scheduler at {address}, got '{one_line(error)}'; start one with 'dask "
            "scheduler', or correct the address"
        ) from error
    try:
        yield client
    finally:
        with suppress(OSError, RuntimeError, AssertionError, asyncio.CancelledError, asyncio.TimeoutError):
            client.close(timeout=_ANSWER_SECONDS)


@contextmanager
def _local_cluster(n_workers: int) -> Iterator[str]:
    """Worker processes of this one, which end with it however it ends; nothing listens beyond the loopback."""
    import logging

    import dask.config
    from distributed import LocalCluster

    environment = {"OMP_NUM_THREADS": 1, "OMP_WAIT_POLICY": "PASSIVE", "DASK_LOGGING__DISTRIBUTED": "critical"}
    with (
        tempfile.TemporaryDirectory(prefix="auvtool-dask-", ignore_cleanup_errors=True) as scratch,
        dask.config.set({"distributed.nanny.pre-spawn-environ": environment}),
    ):
        with _interrupts_held():
            cluster = LocalCluster(
                n_workers=n_workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",  # any port: others may have taken the usual one
                memory_limit=0,  # else Dask pauses or kills a worker at a share of the machine's memory
                local_directory=scratch,
                silence_logs=logging.CRITICAL,
            )
        with cluster:
            yield cluster.scheduler_address


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C reaches the whole process group, but the parent alone answers it, once the block has ended.

    What Dask's thread starts, now and when it restarts a worker, inherits that the signal is held, and keeps it so.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # which lets the signal through again in the thread that first needs it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _silence() -> None:
    """Dask's logs of lost connections and restarted workers: the step says in a line what they mean."""
    import dask.config

    quiet = dict.fromkeys(("distributed", "distributed.client", "distributed.worker", "tornado"), "critical")
    dask.config.set(logging=quiet)  # read when distributed is first imported
