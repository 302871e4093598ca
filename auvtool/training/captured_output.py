"""nnU-Net prints on standard output, also from its worker processes and through C libraries: keep it out of ours."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import TextIO


@contextmanager
def captured_output(log: Path) -> Iterator[None]:
    """Append to `log` what the block, its threads and its child processes write on standard output, and its warnings.

    The file descriptor itself is redirected, since child processes know nothing of `sys.stdout`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        captured = stack.enter_context(log.open("a", encoding="utf-8", errors="backslashreplace", buffering=1))
        sys.stdout.flush()
        saved = os.dup(1)
        stack.callback(os.close, saved)
        stack.callback(os.dup2, saved, 1)
        stack.callback(captured.flush)
        os.dup2(captured.fileno(), 1)
        stack.enter_context(redirect_stdout(captured))
        stack.enter_context(_warnings_into(captured))
        yield


@contextmanager
def _warnings_into(file: TextIO) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            yield
        finally:
            for item in caught:
                file.write(warnings.formatwarning(item.message, item.category, item.filename, item.lineno))
