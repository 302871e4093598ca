"""Commands of which two must not work on one output at the same time."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from auvtool import console
from auvtool.atomic import is_piped
from auvtool.run_lock import run_lock


def one_run_at_a_time(
    output: Callable[[dict[str, Any]], Path | None], *, patience_s: float = 0.0
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a command hold the lock of its output, which `output` finds in its options; a dry run needs none.

    `patience_s`: see `run_lock`.
    """

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def locked(*arguments: Any, **options: Any) -> None:
            given = inspect.signature(command).bind(*arguments, **options).arguments
            path = output(given)
            if path is None or given.get("dry_run") or is_piped(path):
                command(*arguments, **options)
                return
            with run_lock(path, warn=console.warn, patience_s=patience_s):
                command(*arguments, **options)

        return locked

    return decorated
