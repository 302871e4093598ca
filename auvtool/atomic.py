"""Outputs that appear whole or not at all: written beside, flushed to disk, renamed."""

import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from auvtool.errors import OutputError, UsageError, one_line

_PROBE_BYTES = 1 << 16
_OPEN_FILE = re.compile(r"/dev/(stdin|stdout|stderr|fd/\d+)|/proc/(self|\d+)/fd/\d+")


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise before any work is done if `path` cannot become an output.

    Raises:
        UsageError: `path` exists and `force` is off, is a folder, or its folder does not exist.
        OutputError: nothing may be written to its folder.
    """
    if path.is_dir():
        raise UsageError(f"{path}: expected a file to write, got a folder; name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: expected an existing folder {path.parent}, got none; create it first (mkdir -p)")
    if is_stream(path):
        return
    if path.exists() and not force:
        raise UsageError(f"{path}: expected no file yet, got an existing one; add --force to replace it")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        with as_output_error(path):
            raise OSError(errno.EACCES, os.strerror(_why_not_writable(path.parent)))


def _why_not_writable(folder: Path) -> int:
    if hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY:
        return errno.EROFS
    return errno.EACCES


def is_stream(path: Path) -> bool:
    """Whether `path` is a device or pipe (/dev/stdout, a fifo), which is written in place."""
    if _OPEN_FILE.fullmatch(str(path.absolute())):
        return True  # also where it is redirected to a file: renamed, the new file would take the place of /dev/stdout
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def is_piped(path: Path) -> bool:
    """Whether an output is '-', standard output, or a stream: nothing can stand beside it."""
    return str(path) == "-" or is_stream(path)


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
    temporary = temporary_beside(path)
    try:
        with as_output_error(path):
            yield temporary
            move_into_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def move_into_place(temporary: Path, path: Path) -> None:
    """Rename a finished file to `path` once its bytes are on the disk: when the power fails, `path` is old or new."""
    _flush_to_disk(temporary)
    temporary.replace(path)
    if os.name == "posix":  # elsewhere a folder cannot be opened, and renaming needs no flush of it
        try:
            _flush_to_disk(path.parent)
        except OSError as error:
            if error.errno != errno.EINVAL:  # of a file system that does not flush folders
                raise


def temporary_beside(path: Path) -> Path:
    """A new hidden name in the folder of `path`, with its ending."""
    return path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


def remove_leftovers(output: Path) -> None:
    """Remove temporary files that killed runs left beside `output`, and end their exchange of a folder.

    Only a run that no other one works beside may do this.
    """
    name = re.escape(output.absolute().name)
    # Folders that `remove_folder` was removing have a dot before the name: `.NAME.parts`, `.NAME.old`.
    endings = r"(\.manifest\.json|\.failures\.csv|\.parts|\.old)?"
    own = re.compile(rf"\.tmp-\d+-[0-9a-f]{{8}}-\.?{name}{endings}")
    with suppress(OSError):  # they are in nobody's way
        for path in list(output.absolute().parent.iterdir()):
            if own.fullmatch(path.name) and path.is_dir():
                shutil.rmtree(path)
            elif own.fullmatch(path.name):
                path.unlink(missing_ok=True)
    old = _old(output.absolute())
    if old.is_dir():
        if output.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            with as_output_error(output):
                old.replace(output)


def holds_anything(folder: Path) -> bool:
    """Whether something is in a folder; a temporary file of a run that was killed is nothing."""
    return any(not path.name.startswith(".tmp-") for path in folder.iterdir())


def write_text(path: Path, text: str, *, force: bool) -> None:
    """Write `text` (UTF-8, newline as it stands) atomically; see `atomic_path` for the errors."""
    with atomic_path(path, force=force) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)


def put_folder_in_place(temporary: Path, folder: Path) -> None:
    """Rename the folder `temporary` to `folder` beside it; what is there goes only once the new one stands there.

    Killed between the two renames it needs, it is put right by `remove_leftovers`.
    """
    if not folder.exists():
        temporary.replace(folder)
        return
    old = _old(folder)
    remove_folder(old)
    folder.replace(old)
    temporary.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder at once under its name; what a kill leaves of it stands under a hidden one."""
    if folder.is_dir():
        gone = temporary_beside(folder)
        folder.replace(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


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
        is_full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        cure = "free some space or name another folder" if is_full else "check the folder and its rights"
        reason = error.strerror or one_line(error)
        raise OutputError(f"{path}: expected to be able to write here, got '{reason}'; {cure}") from error


def require_writable(folder: Path) -> None:
    """Tell a full or vanished disk from other errors, where a library's writer says of either that it failed.

    Raises:
        OutputError: nothing more can be written to `folder`.
    """
    with as_output_error(folder), tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(bytes(_PROBE_BYTES))
        probe.flush()
        os.fsync(probe.fileno())


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
