"""Outputs that appear whole or not at all: written beside, flushed to disk, renamed."""

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from auvtool.errors import OutputError, UsageError, one_line


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise before any work is done if `path` cannot become an output.

    Raises:
        UsageError: `path` exists and `force` is off, is a folder, or its folder does not exist.
    """
    if path.is_dir():
        raise UsageError(f"{path}: expected a file to write, got a folder; name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: expected an existing folder {path.parent}, got none; create it first (mkdir -p)")
    if path.exists() and not force and not is_stream(path):
        raise UsageError(f"{path}: expected no file yet, got an existing one; add --force to replace it")


def is_stream(path: Path) -> bool:
    """Whether `path` is a device or pipe (/dev/stdout, a fifo), which is written in place."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


@contextmanager
def atomic_path(path: Path, *, force: bool) -> Iterator[Path]:
    """A temporary path in the folder of `path`, renamed to it when the block ends without an error.

    The temporary name keeps the ending of `path`, since image writers choose their format by it. When the block raises,
    the temporary file is removed and `path` is what it was.

    Raises:
        UsageError: see `refuse_existing`.
        OutputError: the disk is full, the folder is read-only, or the like.
    """
    refuse_existing(path, force=force)
    if is_stream(path):
        with as_output_error(path):
            yield path
        return
    temporary = path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        with as_output_error(path):
            yield temporary
            _flush_to_disk(temporary)
            temporary.replace(path)
            if os.name == "posix":  # elsewhere a folder cannot be opened, and renaming needs no flush of it
                _flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, force: bool) -> None:
    """Write `text` (UTF-8, newline as it stands) atomically; see `atomic_path` for the errors."""
    with atomic_path(path, force=force) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)


def put_folder_in_place(temporary: Path, folder: Path) -> None:
    """Rename the folder `temporary` to `folder` beside it; what is there goes only once the new one stands there."""
    if not folder.exists():
        temporary.replace(folder)
        return
    old = temporary.with_name(temporary.name + "-old")
    folder.replace(old)
    temporary.replace(folder)
    shutil.rmtree(old)


@contextmanager
def as_output_error(path: Path | str) -> Iterator[None]:
    """Turn what the system says of a failed write into one clear line; a closed pipe passes as it is.

    Raises:
        OutputError: the block could not write to `path`.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        cure = "free some space or name another folder" if error.errno == 28 else "check the folder and its rights"
        reason = error.strerror or one_line(error)
        raise OutputError(f"{path}: expected to be able to write here, got '{reason}'; {cure}") from error


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
