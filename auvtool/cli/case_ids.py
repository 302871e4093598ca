"""Case ids given to an option."""

import re
from pathlib import Path

from auvtool.errors import UsageError


def parse_case_ids(text: str | None, option: str) -> list[str] | None:
    """Ids with commas between them, or one a line in a file of that name; None stays None.

    Raises:
        UsageError: there is no id, or the file is not text or a table.
    """
    if text is None:
        return None
    try:
        content = Path(text).read_text(encoding="utf-8")
    except OSError:  # no file of that name (or too long for one): the ids themselves
        content = text.replace(",", "\n")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{option}: expected ids one a line in {text}, got bytes that are not text; check it"
        ) from error
    if re.match("\ufeff?case[,\t]", content):
        raise UsageError(f"{option}: expected ids one a line in {text}, got a table; give a file of ids (filter --ids)")
    ids = [line.strip() for line in content.splitlines() if line.strip()]
    if not ids:
        raise UsageError(f"{option}: expected case ids, got none; name some")
    return ids
