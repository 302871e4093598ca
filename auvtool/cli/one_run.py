"""Commands of which two must not work on one output at the same time."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from auvtool import console
from auvtool.atomic import is_piped
from auvtool.run_lock import run_lock


def one_run_at_a_time(output: Callable[[dict[str, Any]], Path]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a command hold the lock of its output, which `output` finds in its options; a dry run needs none."""

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def locked(*arguments: Any, **options: Any) -> None:
            given = inspect.signature(command).bind(*arguments, **options).arguments
            path = output(given)
            if given.get("dry_run") or is_piped(path):
                command(*arguments, **options)
                return
            with run_lock(path, warn=console.warn):
                command(*arguments, **options)

        return locked

    return decorated
