"""Tasks in worker processes that may be killed: by the system for want of memory, or with their parent."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from auvtool.memory import in_gigabytes, peak_resident_bytes

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerDied(Exception):
    """The process that worked on this item was killed, the item alone in it."""


@dataclass(frozen=True)
class MemoryLimit:
    """What this process and its workers may take together, which is kept by using fewer workers.

    The largest item runs first and alone. As many workers follow as fit if each takes what the greediest process has
    taken so far, and fewer when one takes more. One always runs: a single item is not kept from taking too much.

    Attributes:
        max_bytes: of memory that is resident; pages that processes share are counted in each of them.
        size: of an item; the larger, the more memory it takes.
        say: told how many workers fit, and why.
    """

    max_bytes: int
    size: Callable[[Any], int]
    say: Callable[[str], None]


def run_in_workers(
    task: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    jobs: int,
    on_worker_died: Callable[[list[Item]], None],
    limit: MemoryLimit | None = None,
) -> Generator[tuple[Item, Result | WorkerDied], None, None]:
    """Each item with the result of its task as it finishes, `jobs` at a time in spawned processes.

    A process that dies takes the pool down with it. The items that were in work then run again, one at a time in a
    process of its own, so that only the one that kills its process is lost; the others go on.

    Args:
        task: a function of a module; it must not raise but return its errors.
        items: the work.
        jobs: processes.
        on_worker_died: told which items were in work when a process died.
        limit: of the memory; it may use fewer processes than `jobs`.
    """
    waiting, suspects = deque(items), deque[Item]()
    width = _Width(jobs, limit)
    if limit is not None and items:
        largest = max(range(len(items)), key=lambda position: limit.size(items[position]))
        del waiting[largest]
        waiting.appendleft(items[largest])
    while waiting or suspects:
        alone = bool(suspects)
        queue, now = (suspects, 1) if alone else (waiting, width.now)
        in_work: dict[Future[tuple[Result, int]], Item] = {}
        with _pool(now) as pool:
            try:
                # Processes that wait for work keep their memory: a pool of another width begins anew.
                while in_work or (queue and (alone or now == width.now)):
                    while queue and len(in_work) < now and (alone or now == width.now):
                        in_work[pool.submit(_measured, task, queue[0])] = queue[0]
                        queue.popleft()
                    done, _ = wait(in_work, return_when=FIRST_COMPLETED)
                    for future in done:
                        result, peak = future.result()
                        width.adapt(peak)
                        yield in_work.pop(future), result
            except BrokenProcessPool:
                lost = list(in_work.values())
                if lost:  # none where it died waiting for work
                    on_worker_died(lost)
        if in_work and now == 1:
            yield lost[0], WorkerDied()
        elif in_work:
            suspects.extend(lost)


class _Width:
    """How many workers there may be now."""

    def __init__(self, jobs: int, limit: MemoryLimit | None) -> None:
        self._jobs, self._limit, self._peak = jobs, limit, 0
        self.now = jobs if limit is None else 1

    def adapt(self, peak: int) -> None:
        """A worker has taken `peak` bytes at the most so far."""
        if self._limit is None or peak <= self._peak:
            return
        self._peak, before, own = peak, self.now if self._peak else 0, peak_resident_bytes()
        fitting = (self._limit.max_bytes - own) // peak
        self.now = max(1, min(self._jobs, fitting))
        if self.now != before:
            need = f"a case took {in_gigabytes(peak)} and this process {in_gigabytes(own)}"
            asked = f"of {self._jobs} jobs {self.now} fit in {in_gigabytes(self._limit.max_bytes)}"
            short = f"not even one job fits in {in_gigabytes(self._limit.max_bytes)}; one case at a time"
            self._limit.say(f"{need}: {asked if fitting else short}")


def _measured(task: Callable[[Item], Result], item: Item) -> tuple[Result, int]:
    """The result, and the most memory that this worker has taken so far."""
    return task(item), peak_resident_bytes()


@contextmanager
def _pool(width: int) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes do not outlive the block, whatever ends it."""
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(width, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_worker)
    with _interrupts_ignored():
        pool.submit(os.getpid)  # starts the processes
    try:
        yield pool
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ctrl-C reaches the whole process group, but the parent alone answers it: children inherit what is ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A parent killed with -9 cannot tell its workers: they would finish their case and wait forever.
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
