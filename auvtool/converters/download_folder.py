"""Where in a folder that was unpacked a data set begins: archives hold one or two folders of their own."""

from collections.abc import Callable
from pathlib import Path

from auvtool.errors import InputError

_DEPTH = 2


def folder_with(folder: Path, is_it: Callable[[Path], bool]) -> Path | None:
    """`folder`, or the folder up to two levels below it, of which `is_it` is true; None where there is none.

    Raises:
        InputError: there are several.
    """
    level = [folder]
    for _ in range(_DEPTH + 1):
        found = [place for place in level if is_it(place)]
        if len(found) > 1:
            several = f"{len(found)} ({found[0].name}, {found[1].name}{', ...' if len(found) > 2 else ''})"
            raise InputError(
                folder, expected="one data set in it", found=several, cure="name the folder of one of them"
            )
        if found:
            return found[0]
        level = [
            entry
            for place in level
            for entry in sorted(place.iterdir())
            if entry.is_dir() and not entry.name.startswith(".")
        ]
    return None
