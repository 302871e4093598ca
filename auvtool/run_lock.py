"""One run at a time on one output: a lock beside it that the system takes back from a run that was killed."""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from auvtool.atomic import remove_leftovers
from auvtool.errors import UsageError

_LOOK_SECONDS = 0.1


def lock_path(output: Path) -> Path:
    """The lock of an output: a hidden file beside it, there while a run works on it or after it was killed."""
    return output.absolute().with_name(f".{output.absolute().name}.lock")


@contextmanager
def run_lock(output: Path, *, warn: Callable[[str], None], patience_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of `output` for the block; what killed runs left half-written beside it is removed first.

    The lock is advisory (flock) and ends with the process, however that ends; child processes do not inherit it. It
    holds between machines where their file system passes flock on: NFS version 4, and 3 with its lock daemon, unless
    mounted with nolock or local_lock. Where there are no locks, or the folder takes no new file, the run goes on
    without one and says so. A folder that is not there is left to the command, which knows whether to make it.

    Args:
        output: a file or folder.
        warn: told that there are no locks.
        patience_s: how long to wait for another run that holds it.

    Raises:
        UsageError: another run holds it; names its process, machine and start.
    """
    path = lock_path(output)
    try:
        descriptor = _acquire(path, output, patience_s)
    except (FileNotFoundError, NotADirectoryError):
        descriptor = None
    except OSError as error:
        descriptor = None
        warn(f"{path}: cannot be locked ('{error.strerror}'); do not start two runs on {output.name} at once")
    if descriptor is None:
        yield
        return
    _held.add(descriptor)
    try:
        _write_holder(descriptor)
        remove_leftovers(output)
        yield
    finally:
        # Removed while it is held: who opened it in between finds on getting it that its name is gone, and starts anew.
        with suppress(OSError):  # a lock file that stays is in nobody's way
            path.unlink(missing_ok=True)
        _held.discard(descriptor)
        os.close(descriptor)
        if os.name == "nt":  # where no open file can be removed, so that this one is nobody else's
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _acquire(path: Path, output: Path, patience_s: float) -> int:
    deadline = time.monotonic() + patience_s
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(descriptor):
                _wait_or_raise(descriptor, output, deadline)
            else:
                with suppress(FileNotFoundError):  # who held it has removed it
                    if os.path.samestat(os.fstat(descriptor), path.stat()):
                        return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _wait_or_raise(descriptor: int, output: Path, deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise UsageError(
            f"{output}: expected no other run on it, got one of {_holder(descriptor)}; let it finish or end it"
        )
    time.sleep(_LOOK_SECONDS)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        # Far behind the holder's name: what is locked there cannot be read.
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


_held: set[int] = set()


def _close_in_child() -> None:
    """A forked child (nnU-Net's) would keep the lock of a parent that was killed."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def _write_holder(descriptor: int) -> None:
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
    try:
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, holder.encode())
    except OSError:  # a full disk: the lock holds without a name
        return


def _holder(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        holder = json.loads(os.read(descriptor, 4096))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has only just begun, or its disk is full
        return "another process"
