"""JSON of unknown origin: whatever is wrong with it is a ValueError."""

import json
from typing import Any


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
