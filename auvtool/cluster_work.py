"""Tasks on the workers of a Dask cluster, with what worker_pool promises of worker processes.

Dask would give a task whose worker dies to the next worker, three times, beside whatever runs there. Here each task is
for one worker, so that it is known which ones were in work when a worker dies.
"""

import os
import queue
import time
from asyncio import CancelledError
from asyncio import TimeoutError as AsyncTimeoutError
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from auvtool.cluster import Crew, Worker, connected, scheduler_lost
from auvtool.errors import ClusterError, one_line
from auvtool.worker_pool import WorkerDied

if TYPE_CHECKING:
    from distributed import Client, Future

Item = TypeVar("Item")
Result = TypeVar("Result")

_LOOK_SECONDS = 1.0  # between looks at which workers are there
_ANSWER_SECONDS = 10  # of a worker that has finished


def run_on_cluster(
    task: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    cluster: str,
    shared: Path | None,
    on_worker_died: Callable[[list[Item]], None],
    say: Callable[[str], None],
) -> Generator[tuple[Item, Result | WorkerDied], None, None]:
    """Each item with the result of its task as it finishes, one at a time on each worker.

    An item whose worker dies runs once more when the others are done, alone on its machine; it is given up if its
    worker dies again. Tasks run in the folder of this process, so relative paths mean the same everywhere. When the
    generator is closed, what has not begun on a worker is withdrawn.

    Args:
        task: a function of a module; it must not raise but return its errors. It and the items are pickled.
        items: the work.
        cluster: local:N, file:SCHEDULER.json or tcp://HOST:PORT.
        shared: the folder that the tasks write to.
        on_worker_died: told which items were in work when a process died.
        say: told what a user should know of the cluster.

    Raises:
        ClusterError: the scheduler cannot be reached or is lost, or workers do not fit.
    """
    folder = _working_folder()
    with connected(cluster) as client:
        crew = Crew(client, folder, shared, say)
        yield from _Work(client, crew, partial(_run_in, folder, task), items, on_worker_died).results()


def _working_folder() -> Path:
    """The name that the shell has for it where there is one: behind a link it may be the name that machines share."""
    named = Path(os.environ.get("PWD", ""))
    return named if named.is_absolute() and named.is_dir() and named.samefile(Path.cwd()) else Path.cwd()


def _run_in(folder: Path, task: Callable[[Item], Result], item: Item) -> Result:
    os.chdir(folder)
    return task(item)


@dataclass(frozen=True)
class _Attempt(Generic[Item]):
    """An item on its worker; `alone` when nothing else is in work on that machine."""

    item: Item
    worker: Worker
    alone: bool
    future: "Future"


class _Work(Generic[Item, Result]):
    """Items that wait, are in work, or are suspected of having killed their worker."""

    def __init__(
        self,
        client: "Client",
        crew: Crew,
        task: Callable[[Item], Result],
        items: Sequence[Item],
        on_worker_died: Callable[[list[Item]], None],
    ) -> None:
        self._client, self._crew, self._task, self._on_worker_died = client, crew, task, on_worker_died
        self._waiting, self._suspects = deque(items), deque[Item]()
        self._in_work: dict[str, _Attempt[Item]] = {}
        self._ended: queue.SimpleQueue[str] = queue.SimpleQueue()

    def results(self) -> Generator[tuple[Item, Result | WorkerDied], None, None]:
        running: list[Worker] = []
        next_look = time.monotonic()
        try:
            while self._waiting or self._suspects or self._in_work:
                if time.monotonic() >= next_look:
                    present, running = self._crew.present()
                    yield from self._lost({key for key, it in self._in_work.items() if it.worker not in present})
                    next_look = time.monotonic() + _LOOK_SECONDS
                self._hand_out(running)
                try:
                    key = self._ended.get(timeout=max(0.0, next_look - time.monotonic()))
                except queue.Empty:
                    continue
                if key in self._in_work:
                    yield from self._end(key)
        finally:
            with suppress(OSError, RuntimeError, CancelledError, AsyncTimeoutError):
                self._client.cancel([attempt.future for attempt in self._in_work.values()], force=True)

    def _hand_out(self, running: Sequence[Worker]) -> None:
        busy = {attempt.worker for attempt in self._in_work.values()}
        machines = {worker.machine for worker in busy}
        for worker in running:
            if worker not in busy and self._waiting:
                self._submit(self._waiting.popleft(), worker, alone=False)
            elif worker.machine not in machines and self._suspects and not self._waiting:
                self._submit(self._suspects.popleft(), worker, alone=True)
            else:
                continue
            machines.add(worker.machine)

    def _submit(self, item: Item, worker: Worker, *, alone: bool) -> None:
        future = self._client.submit(self._task, item, workers=[worker.address], pure=False)
        self._in_work[future.key] = _Attempt(item, worker, alone, future)
        future.add_done_callback(lambda ended: self._ended.put(ended.key))

    def _end(self, key: str) -> Generator[tuple[Item, Result | WorkerDied], None, None]:
        from distributed import KilledWorker

        attempt = self._in_work[key]
        try:
            result: Any = attempt.future.result(timeout=_ANSWER_SECONDS)
        except CancelledError as error:
            raise scheduler_lost() from error
        except TimeoutError:  # its worker has died, which the next look shows, or is slow
            self._ended.put(key)
        except KilledWorker:
            yield from self._lost({key})
        except Exception as error:
            if attempt.future.cancelled():  # by Dask's client, when it loses its scheduler
                raise scheduler_lost() from error
            raise ClusterError(
                f"{attempt.worker.address}: expected a worker that can do the work, got "
                f"'{type(error).__name__}: {one_line(error)}'; install the same packages there as here"
            ) from error
        else:
            del self._in_work[key]
            yield attempt.item, result

    def _lost(self, keys: set[str]) -> Generator[tuple[Item, WorkerDied], None, None]:
        """What was in work on workers that have died: once more, or given up."""
        attempts = [self._in_work.pop(key) for key in sorted(keys)]
        if not attempts:
            return
        self._client.cancel([attempt.future for attempt in attempts], force=True)
        self._on_worker_died([attempt.item for attempt in attempts])
        for attempt in attempts:
            if attempt.alone:
                yield attempt.item, WorkerDied()
            else:
                self._suspects.append(attempt.item)
