"""A case on a coarse grid, so that the cases of a data set can be laid over each other."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

SIDE = 8


def thumbnail(
    volume: Float[np.ndarray, "d h w"] | Bool[np.ndarray, "d h w"],
    *,
    box: Sequence[slice] | None = None,
    shape: Sequence[int] | None = None,
) -> Float[np.ndarray, " cell"]:
    """Means over a grid of 8 x 8 x 8 cells that covers the volume, flat float32; a side below 8 voxels repeats them.

    Args:
        volume: the volume, or the part of it outside of which it is 0.
        box: where that part lies; the whole volume by default.
        shape: of the whole volume, (d, h, w); that of `volume` by default.
    """
    shape = volume.shape if shape is None else shape
    box = tuple(slice(0, length) for length in shape) if box is None else box
    _, over_h, over_w = (_weights(length)[:, part] for part, length in zip(box, shape, strict=True))
    cells = np.empty((SIDE, SIDE, SIDE))
    for cell, (start, stop) in enumerate(_cells(shape[0])):
        part = slice(max(start - box[0].start, 0), max(stop - box[0].start, 0))
        plane = volume[part].sum(axis=0, dtype=np.float64) / (stop - start)
        cells[cell] = over_h @ plane @ over_w.T
    return cells.ravel().astype(np.float32)


def standardised_thumbnail(image: Float[np.ndarray, "d h w"]) -> Float[np.ndarray, " cell"]:
    """The same of an image, less its mean and in units of its standard deviation; zeros for a constant one."""
    cells = thumbnail(image)
    spread = cells.std()
    return np.asarray((cells - cells.mean()) / spread if spread > 0 else np.zeros_like(cells))


def _cells(length: int) -> list[tuple[int, int]]:
    """First index and end of each cell along a side; neighbours share a voxel where the side is no multiple of 8."""
    return [(cell * length // SIDE, -(-(cell + 1) * length // SIDE)) for cell in range(SIDE)]


def _weights(length: int) -> Float[np.ndarray, "cell index"]:
    weights = np.zeros((SIDE, length))
    for cell, (start, stop) in enumerate(_cells(length)):
        weights[cell, start:stop] = 1.0 / (stop - start)
    return weights
