"""Work for processes of a pool or a cluster, some of which kills the process it is done in."""

import os
import signal
import time
from pathlib import Path


def square(number: int) -> int:
    return number * number


def square_or_die(number: int) -> int:
    """The square; of a negative number the end of the process."""
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return number * number


def die_once(folder: Path) -> str:
    """Kills its process the first time only, as a shortage of memory that passes."""
    marker = folder / "died"
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"
