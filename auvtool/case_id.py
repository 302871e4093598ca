"""Case ids: every command makes file names of them, so that not every text will do."""

import os
import unicodedata
from pathlib import PureWindowsPath

from auvtool.visible_text import has_hidden, visible

# The longest name made of an id adds some 70 bytes (temporary name, fault and level of a copy, channel, ending).
_MOST_BYTES = 180
_NOT_ON_WINDOWS = '<>:"|?*'


def case_id_fault(case_id: str, *, windows: bool = os.name == "nt") -> str | None:
    """What makes `case_id` no part of a file name; None of a usable one.

    A path would lead out of the output folder, a hidden character gets lost in a list of ids, and a longer name than
    file systems take would fail at the end of the work. `windows`: its own rules count as well.
    """
    faults = {
        "no name": case_id in {"", ".", ".."},
        "a path": "/" in case_id or "\\" in case_id,
        "hidden characters": has_hidden(case_id),
        f"more than {_MOST_BYTES} bytes": len(visible(case_id).encode("utf-8")) > _MOST_BYTES,
        "a name that Windows keeps for itself": windows and _is_reserved(case_id),
    }
    return next((fault for fault, holds in faults.items() if holds), None)


def folded(case_id: str) -> str:
    """Equal for two ids that are one file on Windows, macOS and their network shares, and two on Linux."""
    return unicodedata.normalize("NFC", case_id.casefold())


def _is_reserved(case_id: str) -> bool:
    signs = any(sign in case_id for sign in _NOT_ON_WINDOWS)
    return signs or case_id.endswith((".", " ")) or PureWindowsPath(case_id).is_reserved()
