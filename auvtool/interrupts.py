"""Ctrl-C while a library has worker processes of its own."""

import _thread
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

from auvtool.errors import ExitCode

# Changes nothing by itself, but ends a wait of the main thread, which then sees that it is interrupted.
_WAKES = getattr(signal, "SIGWINCH", signal.SIGINT)


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Let this process alone answer Ctrl-C, which a terminal sends to all of its group; a second one ends it at once.

    A worker that it ended in the middle of a message would leave a pool (`multiprocessing.Pool`) waiting for the rest
    of it for ever. Processes that are started while a signal is blocked have it blocked too; here a thread takes it,
    and passes it on to the main thread.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not hasattr(signal, "pthread_sigmask") or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    resource_tracker.ensure_running()  # which, started later, would unblock the signal
    over = threading.Event()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    waking = signal.signal(_WAKES, lambda number, frame: None)
    passing_on = threading.Thread(target=_pass_on, args=(over,), daemon=True)
    passing_on.start()
    try:
        yield
    finally:
        over.set()
        signal.pthread_kill(passing_on.ident or 0, signal.SIGINT)  # wakes it
        passing_on.join()
        signal.signal(_WAKES, waking or signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _pass_on(over: threading.Event) -> None:
    is_first = True
    while True:
        signal.sigwait({signal.SIGINT})
        if over.is_set():
            return
        if not is_first:  # the main thread may wait where it answers nothing
            os._exit(ExitCode.INTERRUPTED)
        is_first = False
        _thread.interrupt_main(signal.SIGINT)
        signal.pthread_kill(threading.main_thread().ident or 0, _WAKES)
