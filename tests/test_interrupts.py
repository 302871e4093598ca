"""Who answers Ctrl-C while a library has processes of its own."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from auvtool.errors import ExitCode
from auvtool.interrupts import kept_from_children

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals cannot be blocked here")

# A main thread that answers nothing, as when it waits for a pool's thread that waits for a dead worker.
STUCK = """
import signal, threading
from auvtool.interrupts import kept_from_children
signal.signal(signal.SIGINT, lambda number, frame: print("first", flush=True))
with kept_from_children():
    print("ready", flush=True)
    while True:
        threading.Lock().acquire() or threading.Event().wait()
"""


def blocked(_: int) -> set[int]:
    return {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())}


def test_workers_do_not_see_it_and_this_process_does():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(KeyboardInterrupt), kept_from_children():  # noqa: PT012  # the pool has to be in it
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            (of_worker,) = pool.map(blocked, [0])
        assert signal.SIGINT in of_worker
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_without_ctrl_c_nothing_is_left():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with kept_from_children():
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_second_one_ends_at_once_whatever_the_main_thread_waits_for():
    with subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)
        assert process.wait(timeout=300) == ExitCode.INTERRUPTED


STUCK_AFTER_SIGTERM = """
import threading, time
from auvtool.cli import app
app._UNWINDING_S = 0.2
app.prepare_process()
print("ready", flush=True)
try:
    time.sleep(600)
finally:
    threading.Event().wait()
"""


def test_sigterm_ends_what_cannot_be_unwound():
    with subprocess.Popen([sys.executable, "-c", STUCK_AFTER_SIGTERM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(timeout=300) == ExitCode.TERMINATED
