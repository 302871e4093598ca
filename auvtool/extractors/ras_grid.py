"""The grid of a network that was trained on volumes turned to RAS and resampled to cubes.

Axes are turned by the nearest of the patient's, as nibabel and MONAI do it: an oblique scan stays oblique. The grid
starts at the volume's first voxel (in RAS order) and has as many steps as come nearest to its last one, as in MONAI.
"""

from dataclasses import dataclass
from typing import Any, Literal

import nibabel.orientations
import numpy as np
from jaxtyping import Bool, Float, Num
from scipy.ndimage import affine_transform

from auvtool.volume import Geometry

# A whole body at 1.5 mm has a fifth of it; more is a header that lies, and would take the machine's memory.
_MOST_CUBES = 1_000_000_000

_orientations: Any = nibabel.orientations  # no type information


@dataclass(frozen=True)
class RasGrid:
    """The way from a volume (d, h, w) to cubes along R, A and S, and back to the order of its axes.

    Attributes:
        orientation: of d, h and w in RAS, as nibabel has it.
        step: voxels of the volume to a step of the grid, along R, A and S.
        shape: of the grid.
    """

    orientation: Float[np.ndarray, "3 2"]
    step: tuple[float, float, float]
    shape: tuple[int, int, int]

    def resampled(self, volume: Num[np.ndarray, "d h w"], *, order: Literal[0, 1]) -> Num[np.ndarray, "r a s"]:
        """The volume on the grid: nearest voxel (order 0, for labels) or trilinear (1); beyond its edge, its edge.

        Of two voxels as near the later one is taken, where MONAI takes that of even number.
        """
        turned = _orientations.apply_orientation(volume, self.orientation)
        found: np.ndarray = affine_transform(
            turned, np.diag(self.step), output_shape=self.shape, order=order, mode="nearest", prefilter=False
        )
        return found

    def touched(self, mask: Bool[np.ndarray, "d h w"]) -> Bool[np.ndarray, "r a s"]:
        """Cubes in which a voxel of the mask lies: what the nearest voxel of each cube may miss of a small mask."""
        places = np.argwhere(_orientations.apply_orientation(mask, self.orientation))
        cubes = np.minimum(np.rint(places / np.array(self.step)).astype(np.int64), np.array(self.shape) - 1)
        found = np.zeros(self.shape, dtype=bool)
        found[tuple(cubes.T)] = True
        return found

    def in_order_of_volume(self, values: Num[np.ndarray, "r a s"]) -> Num[np.ndarray, "d h w"]:
        """Values on the grid, or a box of it, with their axes in the order and direction of the volume's; a copy."""
        back = _orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], self.orientation)
        return np.array(_orientations.apply_orientation(values, back), order="C")


def ras_grid(geometry: Geometry, spacing_mm: float) -> RasGrid:
    """The grid of cubes of side `spacing_mm` for a volume.

    Raises:
        ValueError: it would have more than a thousand million cubes.
    """
    orientation = _orientations.io_orientation(np.asarray(geometry.affine))
    axes = orientation[:, 0].astype(int)
    lengths, spacings = np.empty(3), np.empty(3)
    lengths[axes], spacings[axes] = geometry.shape, geometry.spacing_mm
    step = spacing_mm / spacings
    r, a, s = (int(n) for n in np.round((lengths - 1) / step + 1))
    if r * a * s > _MOST_CUBES:
        raise ValueError(f"{r} x {a} x {s} cubes of {spacing_mm:g} mm are too many; is the spacing right?")
    return RasGrid(orientation, (float(step[0]), float(step[1]), float(step[2])), (r, a, s))
