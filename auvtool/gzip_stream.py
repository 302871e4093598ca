"""Gzip files decompressed piece by piece, their checksums looked at.

Intel's ISA-L takes a third of zlib's time. It is built for x86-64 and ARM64; elsewhere zlib does the same work.
"""

import io
import zlib
from pathlib import Path
from typing import Any

try:
    from isal import isal_zlib

    new_inflater: Any = isal_zlib.decompressobj
    _ERRORS: tuple[type[Exception], ...] = (zlib.error, isal_zlib.IsalError)  # type: ignore[assignment]
except ImportError:
    new_inflater = zlib.decompressobj
    _ERRORS = (zlib.error,)

_GZIP_MEMBER = 31  # wbits of one member with header and trailer, whose checksum and length are then checked
_MAGIC = b"\x1f\x8b"
_INPUT_BYTES = 1 << 17
_PIECE_BYTES = 1 << 18  # stays in the cache of a core between decompression and whatever comes next


class GzipStream(io.RawIOBase):
    """The data of a gzip file, read forwards.

    A file may be of several members; zeros and whatever else is no member behind them are passed over, as gzip does.

    Raises:
        OSError: the file cannot be read or is no gzip file (of the constructor and of all reading).
        EOFError: it ends too soon.
        zlib.error: the compressed data are damaged, or checksum or length are not those of the data. It stands behind
            the data of a member: `finish` reads up to it.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self.name = path.name
        self._member: Any = new_inflater(_GZIP_MEMBER)
        self._input = b""
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, fewer only at the end of the data."""
        if size < 0:
            return self.readall()
        pieces = []
        while size > 0 and (piece := self._next_piece(size)):
            pieces.append(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; the number of bytes, fewer than it holds only at the end of the data."""
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view) and (piece := self._next_piece(min(_PIECE_BYTES, len(view) - filled))):
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        return filled

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Skip forwards to a place counted from the start of the data.

        Raises:
            io.UnsupportedOperation: it lies behind, or is counted from elsewhere.
        """
        if whence != io.SEEK_SET or offset < self._position:
            raise io.UnsupportedOperation("a gzip stream goes forwards only")
        while self._position < offset and self._next_piece(min(_PIECE_BYTES, offset - self._position)):
            pass
        return self._position

    def finish(self) -> None:
        """Read to the end, for the checksum's sake."""
        while self._next_piece(_PIECE_BYTES):
            pass

    def close(self) -> None:
        self._file.close()
        super().close()

    def _next_piece(self, limit: int) -> bytes:
        """At least one byte and at most `limit`; none at the end of the data."""
        while self._member is not None:
            if not self._input:
                self._input = self._file.read(_INPUT_BYTES)
            was_last = not self._input
            try:
                # Also without input: the inflater may have taken in more than it has given out.
                piece = self._member.decompress(self._input, limit)
            except _ERRORS as error:
                raise zlib.error(f"damaged gzip file: {error}") from error
            if self._member.eof:
                self._next_member(self._member.unused_data)
            else:
                self._input = self._member.unconsumed_tail
            if piece:
                self._position += len(piece)
                return bytes(piece)
            if was_last and self._member is not None:
                raise EOFError("Compressed file ended before the end-of-stream marker was reached")
        return b""

    def _next_member(self, rest: bytes) -> None:
        rest = rest.lstrip(b"\0")
        while len(rest) < len(_MAGIC) and (more := self._file.read(_INPUT_BYTES)):
            rest = (rest + more).lstrip(b"\0")
        self._input = rest
        self._member = new_inflater(_GZIP_MEMBER) if rest.startswith(_MAGIC) else None
