"""A case on a coarse grid, so that the cases of a data set can be laid over each other."""

import numpy as np
from jaxtyping import Float

SIDE = 8


def thumbnail(volume: Float[np.ndarray, "d h w"]) -> Float[np.ndarray, " cell"]:
    """Means over a grid of 8 x 8 x 8 cells that covers the volume, flat; a side below 8 voxels repeats them."""
    coarse = volume.astype(np.float64)
    for axis, length in enumerate(volume.shape):
        cells = [
            coarse.take(range(cell * length // SIDE, -(-(cell + 1) * length // SIDE)), axis=axis).mean(
                axis=axis, keepdims=True
            )
            for cell in range(SIDE)
        ]
        coarse = np.concatenate(cells, axis=axis)
    return coarse.ravel().astype(np.float32)


def standardised_thumbnail(image: Float[np.ndarray, "d h w"]) -> Float[np.ndarray, " cell"]:
    """The same of an image, less its mean and in units of its standard deviation; zeros for a constant one."""
    cells = thumbnail(image)
    spread = cells.std()
    return np.asarray((cells - cells.mean()) / spread if spread > 0 else np.zeros_like(cells))
