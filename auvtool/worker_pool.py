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
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerDied(Exception):
    """The process that worked on this item was killed, the item alone in it."""


def run_in_workers(
    task: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    jobs: int,
    on_worker_died: Callable[[list[Item]], None],
) -> Generator[tuple[Item, Result | WorkerDied], None, None]:
    """Each item with the result of its task as it finishes, `jobs` at a time in spawned processes.

    A process that dies takes the pool down with it. The items that were in work then run again, one at a time in a
    process of its own, so that only the one that kills its process is lost; the others go on.

    Args:
        task: a function of a module; it must not raise but return its errors.
        items: the work.
        jobs: processes.
        on_worker_died: told which items were in work when a process died.
    """
    waiting, suspects = deque(items), deque[Item]()
    while waiting or suspects:
        queue, width = (suspects, 1) if suspects else (waiting, jobs)
        in_work: dict[Future[Result], Item] = {}
        with _pool(width) as pool:
            try:
                while queue or in_work:
                    while queue and len(in_work) < width:
                        in_work[pool.submit(task, queue[0])] = queue[0]
                        queue.popleft()
                    done, _ = wait(in_work, return_when=FIRST_COMPLETED)
                    for future in done:
                        result = future.result()
                        yield in_work.pop(future), result
            except BrokenProcessPool:
                lost = list(in_work.values())
                on_worker_died(lost)
        if in_work and width == 1:
            yield lost[0], WorkerDied()
        elif in_work:
            suspects.extend(lost)


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
