"""Two label maps read side by side, block by block in the order of the files: a case of any size in little memory.

Files whose bytes are the labels are read so: NIfTI, one label a voxel, whole numbers in this machine's byte order, not
scaled. All others are `read_volume_file`'s to read.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from jaxtyping import Integer

from auvtool.errors import InputError
from auvtool.gzip_stream import GzipStream
from auvtool.volume_file import FileGrid, as_input_error, read_nifti_grid

Block: TypeAlias = Integer[np.ndarray, " voxel"]

BLOCK_VOXELS = 1 << 19  # these, their changes and their codes stay in the cache of a core


def read_label_grid(path: Path) -> FileGrid | None:
    """The grid of a label map that can be read in blocks; None where it has to be read whole, if it can be at all."""
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return None
    try:
        grid = read_nifti_grid(path)
    except InputError:
        return None
    is_plain = grid.dtype.kind in "iu" and grid.dtype.isnative and np.can_cast(grid.dtype, np.int32)
    return grid if is_plain and not grid.is_scaled and grid.n_channels == 1 and 0 not in grid.shape else None


def label_blocks(reference: FileGrid, prediction: FileGrid) -> Iterator[tuple[Block, Block]]:
    """The voxels of two label maps of one shape, in blocks of equal place and size.

    Raises:
        InputError: a file is damaged or shorter than its header says; of a compressed one also its checksum is checked.
    """
    n_voxels = int(np.prod(reference.shape))
    with _open(reference) as one, _open(prediction) as other:
        for start in range(0, n_voxels, BLOCK_VOXELS):
            size = min(BLOCK_VOXELS, n_voxels - start)
            yield _read_block(reference, one, size), _read_block(prediction, other, size)
        _finish(reference, one)
        _finish(prediction, other)


def _open(grid: FileGrid) -> BinaryIO | GzipStream:
    """The file, at its first voxel."""
    with as_input_error(grid.path):
        stream = GzipStream(grid.path) if grid.path.suffix.lower() == ".gz" else grid.path.open("rb")
        stream.seek(grid.offset)
    return stream


def _finish(grid: FileGrid, stream: BinaryIO | GzipStream) -> None:
    if isinstance(stream, GzipStream):
        with as_input_error(grid.path):
            stream.finish()


def _read_block(grid: FileGrid, stream: BinaryIO | GzipStream, size: int) -> Block:
    n_bytes = size * grid.dtype.itemsize
    with as_input_error(grid.path):
        content = stream.read(n_bytes)
        if len(content) < n_bytes:
            raise ValueError("fewer voxels than its header says")
    return np.frombuffer(content, dtype=grid.dtype)
