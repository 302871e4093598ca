"""What the header of an image tells of its case: a table of quirks, of which each data set names those to look for."""

from collections.abc import Callable, Sequence
from typing import Any

import nibabel.orientations
import numpy as np

from auvtool.converters import Quirk
from auvtool.volume_file import FileGrid, spacing_of

_orientations: Any = nibabel.orientations  # no type information

# SimpleITK refuses direction cosines whose product with their transpose is further from the identity.
_ORTHONORMAL_TOLERANCE = 1e-4
# A slice axis has clearly larger voxels, as in auvtool.volume.
_CLEARLY_LARGER = 1.1
_IN_PLANE = 512


def header_quirks(grid: FileGrid, names: Sequence[str]) -> tuple[Quirk, ...]:
    """The quirks among `names` that the image has."""
    return tuple(quirk for name in names if (quirk := _HEADER_QUIRKS[name](grid)) is not None)


def is_unit(grid: FileGrid) -> bool:
    """Whether the header says nothing: voxels of 1 mm along the axes of the coordinates."""
    return bool(np.allclose(np.abs(grid.affine[:3, :3]), np.eye(3)))


def axes_of(affine: np.ndarray) -> tuple[str, ...]:
    """Where the three axes of a file point: ("L", "P", "S") or the like."""
    return tuple(str(code) for code in _orientations.aff2axcodes(affine))


def _unit_spacing(grid: FileGrid) -> Quirk | None:
    if not is_unit(grid):
        return None
    return Quirk(
        "unit-spacing",
        "the header says 1 mm and no rotation: the voxel size of the scan is lost; the file stays as it is",
    )


def _orientation(grid: FileGrid) -> Quirk | None:
    return Quirk("orientation-" + "".join(axes_of(grid.affine)), "where the axes of the file point")


def _not_orthonormal(grid: FileGrid) -> Quirk | None:
    directions = grid.affine[:3, :3] / spacing_of(grid.affine)
    off = float(np.abs(directions.T @ directions - np.eye(3)).max())
    if off <= _ORTHONORMAL_TOLERANCE:
        return None
    text = "direction cosines are not orthonormal, which SimpleITK refuses: dataset.json names nnU-Net's nibabel reader"
    return Quirk("not-orthonormal", text, f"off by {off:.2g}")


def _slices_first(grid: FileGrid) -> Quirk | None:
    spacing = spacing_of(grid.affine)
    is_first = axes_of(grid.affine)[0] in "SI" or spacing[0] > _CLEARLY_LARGER * max(spacing[1:])
    if not is_first:
        return None
    return Quirk("slices-first", "slices are the first axis of the file: dataset.json names a reader that reorients")


def _not_512(grid: FileGrid) -> Quirk | None:
    sides = sorted(grid.shape)
    if grid.shape.count(_IN_PLANE) >= 2:
        return None
    return Quirk("not-512", "slices are not 512 x 512 voxels", "x".join(map(str, sides)))


_HEADER_QUIRKS: dict[str, Callable[[FileGrid], Quirk | None]] = {
    "unit-spacing": _unit_spacing,
    "orientation": _orientation,
    "not-orthonormal": _not_orthonormal,
    "slices-first": _slices_first,
    "not-512": _not_512,
}
