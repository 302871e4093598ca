"""JSON of unknown origin: whatever is wrong with it is a ValueError."""

import json
from pathlib import Path
from typing import Any

# A data set of 100 000 cases that names every file has half as much; values take up to twenty times as much in memory.
_MOST_FILE_MIB = 64


def json_text_of(path: Path) -> str:
    """The text of a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8, larger than any of ours, or a pipe or device, which may have no end.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError("no file but a pipe or a device")
    n_mib = path.stat().st_size / 2**20
    if n_mib > _MOST_FILE_MIB:
        raise ValueError(f"{n_mib:.0f} MiB of JSON, where {_MOST_FILE_MIB} are the most")
    return path.read_text(encoding="utf-8")


def parse_json(text: str | bytes) -> Any:
    """The value that `text` holds.

    Raises:
        ValueError: it is not JSON, not UTF-8, nested deeper than Python can follow, or names half a surrogate pair
            (which no file could hold again).
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error
    escape = "\\ud" if isinstance(text, str) else b"\\ud"
    if escape in text.lower():  # type: ignore[operator]  # both are of one type
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # UnicodeEncodeError is a ValueError
    return value
