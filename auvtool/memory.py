"""Memory of a process: how much it may take, and how much it took."""

import re
from pathlib import Path

from auvtool.errors import UsageError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_memory(text: str, option: str) -> int:
    """Bytes of "8GB", "7.5G" or "512 MiB": decimal units, binary ones with an i.

    Raises:
        UsageError: it is no size above zero.
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*)\s*([kmgt]i?)?b?\s*", text, re.IGNORECASE)
    size = int(float(match[1]) * _UNITS[(match[2] or "").lower()]) if match else 0
    if size < 1:
        raise UsageError(f"{option}: expected a size like 8GB or 512MiB, got {text}; correct it")
    return size


def in_gigabytes(size: int) -> str:
    """A size to read, as 1.72 GB."""
    return f"{size / 1e9:.2f} GB"


def peak_resident_bytes() -> int:
    """The most memory that this process has held at once, shared pages too; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: on Linux a new process begins with the peak of the one that started it.
        match = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(encoding="ascii", errors="replace"), re.MULTILINE)
        if match:
            return int(match[1]) * 1024
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, the one system left
