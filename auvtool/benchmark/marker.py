"""The marker in a folder that an experiment fills: what it was started with."""

from collections.abc import Mapping
from pathlib import Path

from auvtool.json_text import json_text_of, parse_json


def differing(marker: Path, record: Mapping[str, object]) -> list[str]:
    """Names of what `record` says otherwise than the marker; all of them where the marker cannot be read."""
    try:
        held = parse_json(json_text_of(marker))
    except (OSError, ValueError):
        held = None
    return [name for name in record if not isinstance(held, dict) or held.get(name) != record[name]]
