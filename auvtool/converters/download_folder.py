"""Where in a folder that was unpacked a data set begins: archives hold one or two folders of their own."""

from collections.abc import Callable
from pathlib import Path

_DEPTH = 2


def folder_with(folder: Path, is_it: Callable[[Path], bool]) -> Path | None:
    """`folder`, or the first folder up to two levels below it, of which `is_it` is true."""
    level = [folder]
    for _ in range(_DEPTH + 1):
        for place in level:
            if is_it(place):
                return place
        level = [
            entry
            for place in level
            for entry in sorted(place.iterdir())
            if entry.is_dir() and not entry.name.startswith(".")
        ]
    return None
