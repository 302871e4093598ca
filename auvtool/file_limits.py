"""How much memory a file may ask for: what a header or a packed stream claims is checked before any is taken.

A few bytes can claim a volume of terabytes, or unpack to one. A limit is far above every clinical scan, and an
environment variable sets another.
"""

import math
import os
import zipfile
from pathlib import Path

from auvtool.errors import InputError, UsageError

# A whole-body CT of 512 x 512 x 2000 voxels takes 3.9 GiB as float64.
VOLUME_VARIABLE, _VOLUME_GIB = "AUVTOOL_MAX_VOLUME_GIB", 8.0
# Scores of 30 000 cases with a hundred classes each.
TABLE_VARIABLE, _TABLE_GIB = "AUVTOOL_MAX_TABLE_GIB", 1.0
# Deflate (gzip, zlib, PNG) codes 258 bytes in two bits at best.
DEFLATE_RATIO = 1032
_GIB = 2**30


def require_volume_size(path: Path, n_bytes: int) -> None:
    """Refuse voxels that would take more memory than `AUVTOOL_MAX_VOLUME_GIB` (8).

    Raises:
        InputError: they would.
    """
    _require(path, n_bytes, "a volume", limit_gib(VOLUME_VARIABLE, _VOLUME_GIB), VOLUME_VARIABLE)


def require_bytes(path: Path, n_stored: int, n_in_memory: int, *, packed: bool) -> None:
    """Refuse voxels that cannot all be in the file (deflate has a best ratio), or that take too much memory.

    Raises:
        ValueError: the file is too short for `n_stored` bytes; InputError: see `require_volume_size`.
    """
    size = path.stat().st_size
    if size * (DEFLATE_RATIO if packed else 1) < n_stored:
        raise ValueError(f"{size} bytes {'that can unpack to' if packed else 'instead of'} {n_stored}")
    require_volume_size(path, n_in_memory)


def require_table_size(path: Path | str, n_bytes: int) -> None:
    """Refuse a table of more bytes than `AUVTOOL_MAX_TABLE_GIB` (1).

    Raises:
        InputError: it is.
    """
    _require(path, n_bytes, "a table", limit_gib(TABLE_VARIABLE, _TABLE_GIB), TABLE_VARIABLE)


def require_stored_zip(path: Path) -> None:
    """Refuse a zip archive that unpacks to more than it holds; torch.save packs nothing.

    Raises:
        ValueError: it would.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            n_bytes = sum(member.file_size for member in archive.infolist())
        if n_bytes > path.stat().st_size:
            raise ValueError(f"{path.stat().st_size} bytes that unpack to {n_bytes}")


def table_limit_bytes() -> int:
    """`AUVTOOL_MAX_TABLE_GIB` (1), in bytes."""
    return int(limit_gib(TABLE_VARIABLE, _TABLE_GIB) * _GIB)


def limit_gib(variable: str, otherwise: float) -> float:
    """The number of GiB in an environment variable.

    Raises:
        UsageError: it is no number above 0.
    """
    text = os.environ.get(variable)
    if text is None:
        return otherwise
    try:
        gib = float(text)
    except ValueError:
        gib = math.nan
    if not 0 < gib < math.inf:
        raise UsageError(f"{variable}: expected a number of GiB above 0, got '{text}'; correct it or unset it")
    return gib


def _require(where: Path | str, n_bytes: int, what: str, limit: float, variable: str) -> None:
    if n_bytes > limit * _GIB:
        raise InputError(
            where,
            expected=f"{what} of at most {limit:g} GiB in memory",
            found=f"{n_bytes / _GIB:.3g} GiB",
            cure=f"if that is right, set {variable}",
        )
