"""Commands of which two must not work on one output at the same time."""

import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from auvtool import console
from auvtool.atomic import is_piped
from auvtool.run_lock import run_lock


def one_run_at_a_time(
    *outputs: Callable[[dict[str, Any]], Path | None], patience_s: float = 0.0
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a command hold the lock of its outputs, which `outputs` find in its options; a dry run needs none.

    `patience_s`: see `run_lock`.
    """

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def locked(*arguments: Any, **options: Any) -> None:
            given = inspect.signature(command).bind(*arguments, **options).arguments
            with ExitStack() as locks:
                for path in [] if given.get("dry_run") else _files_of(given, outputs):
                    locks.enter_context(run_lock(path, warn=console.warn, patience_s=patience_s))
                command(*arguments, **options)

        return locked

    return decorated


def _files_of(given: dict[str, Any], outputs: Sequence[Callable[[dict[str, Any]], Path | None]]) -> list[Path]:
    """Each file once, in the same order in every command, so that no two wait for each other."""
    found = (output(given) for output in outputs)
    files = {path.absolute(): path for path in found if path is not None and not is_piped(path)}
    return [files[absolute] for absolute in sorted(files)]
