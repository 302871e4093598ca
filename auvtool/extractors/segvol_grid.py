"""How SegVol sees a volume: in RAS axes, its foreground alone, 32 x 256 x 256 of its voxels ("zoom-out").

The authors' steps for a test case (data_process/demo_data_process.py): axes to RAS, then (d, h, w) = (S, A, R);
intensities clipped to the 0.05 and 99.95 percentiles of the voxels above the mean and scaled to [0, 1]; cropped to
the box of what is above 0; resized by "nearest-exact". Between clipping and scaling they divide by a standard
deviation, which the scaling undoes. Only the voxels that the resized image keeps are read.
"""

from dataclasses import dataclass
from typing import Any

import nibabel.orientations
import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped

from auvtool.arrays import LabelMap, Volume
from auvtool.volume import Affine

_orientations: Any = nibabel.orientations  # it ships type information, but its functions have none
_PERCENTILES = (0.05, 99.95)


@dataclass(frozen=True)
class ModelGrid:
    """The voxels of a volume in (S, A, R) that the model sees.

    Attributes:
        box: of the foreground.
        rows: for each axis, which voxel of the box each row of the grid is.
        low, high: intensities that become 0 and 1; beyond them all is clipped.
    """

    box: tuple[slice, slice, slice]
    rows: tuple[Integer[np.ndarray, " d"], Integer[np.ndarray, " h"], Integer[np.ndarray, " w"]]
    low: float
    high: float

    def image(self, volume: Volume) -> Float[np.ndarray, "d h w"]:
        """Intensities in [0, 1]."""
        seen = volume[self.box][np.ix_(*self.rows)].astype(np.float64)
        scaled: np.ndarray = (np.clip(seen, self.low, self.high) - self.low) / (self.high - self.low)
        return scaled.astype(np.float32)

    def region(self, label: LabelMap, values: tuple[int, ...]) -> Bool[np.ndarray, "d h w"]:
        """Where a class lies on the grid; empty where none of it lies in the box.

        The grid keeps some of the label's voxels, as it does of the image. A class that loses all of its own gets the
        cells in which they lie.
        """
        inside = label[self.box]
        found: np.ndarray = np.isin(inside[np.ix_(*self.rows)], values)
        if not found.any():
            for voxel in zip(*np.nonzero(np.isin(inside, values)), strict=True):
                found[tuple(at * n // side for at, n, side in zip(voxel, found.shape, inside.shape, strict=True))] = (
                    True
                )
        return found


def as_seen(volume: Shaped[np.ndarray, "d h w"], affine: Affine) -> Shaped[np.ndarray, "s a r"]:
    """A view of a volume with axes to the head, to the front and to the right, whatever they were."""
    own = _orientations.io_orientation(np.asarray(affine))
    wanted = _orientations.axcodes2ornt("SAR")
    turned: np.ndarray = _orientations.apply_orientation(volume, _orientations.ornt_transform(own, wanted))
    return turned


def model_grid(volume: Volume, shape: tuple[int, int, int]) -> ModelGrid:
    """The grid of a volume in (S, A, R).

    Raises:
        ValueError: its intensities do not vary above their mean, so that there is no foreground.
    """
    above_mean = volume[volume > volume.mean()]
    low, high = np.percentile(above_mean, _PERCENTILES, overwrite_input=True) if above_mean.size else (0.0, 0.0)
    if not low < high:
        raise ValueError("SegVol needs intensities that vary above their mean, got a constant")
    foreground = volume > low
    spans = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(foreground.any(axis=others))
        spans.append(slice(int(found[0]), int(found[-1]) + 1))
    sides = [span.stop - span.start for span in spans]
    # "nearest-exact": the voxel at the centre of each cell, floor((row + 1/2) side / n)
    d, h, w = (((2 * np.arange(n) + 1) * side) // (2 * n) for n, side in zip(shape, sides, strict=True))
    return ModelGrid((spans[0], spans[1], spans[2]), (d, h, w), float(low), float(high))


def box_around(region: Bool[np.ndarray, "d h w"]) -> Float[np.ndarray, " 6"]:
    """First, then last d, h and w of a region that is not empty."""
    spans = [np.flatnonzero(region.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    return np.array([*(span[0] for span in spans), *(span[-1] for span in spans)], dtype=np.float32)


def coarser_region(region: Bool[np.ndarray, "d h w"], shape: tuple[int, int, int]) -> Bool[np.ndarray, "d h w"]:
    """A region on a grid whose sides divide its own: cells at least half covered.

    A slice in which no cell is keeps every cell that the region touches.
    """
    (d, h, w), (rd, rh, rw) = shape, (n // m for n, m in zip(region.shape, shape, strict=True))
    covered = region.reshape(d, rd, h, rh, w, rw).mean(axis=(1, 3, 5))
    coarse: np.ndarray = covered >= 0.5
    lost = ~coarse.any(axis=(1, 2))
    coarse[lost] = covered[lost] > 0
    return coarse
