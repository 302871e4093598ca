"""Rules of geometry: files of a case that do not fit one another, headers that are not to be believed."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import nibabel.orientations
import numpy as np
import SimpleITK

from auvtool.checks import Finding, Source
from auvtool.checks.case_facts import CaseFacts, Grid
from auvtool.errors import one_line
from auvtool.volume_file import FileVolume, spacing_of, times

_orientations: Any = nibabel.orientations  # no type information
_sitk: Any = SimpleITK

_WITHOUT_GEOMETRY = (".png", ".bmp", ".tif", ".tiff")
_SPACING_2D_MM = 999.0  # what nnU-Net gives to a 2D image
_SPACING_RANGE_MM = (0.02, 30.0)
# Of a voxel: headers that were rounded differ by less, and no voxel is mistaken for another by it.
_ORIGIN_TOLERANCE = 0.01
_DIRECTION_TOLERANCE = 1e-3
_MOST = 2 / 3  # of the other cases, for one that differs to be told


def grid_of(volume: FileVolume) -> Grid:
    """The grid of a file that was read."""
    i, j, k = (int(length) for length in volume.voxels.shape[1:])
    rows = tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in volume.affine)
    return Grid((i, j, k), rows, not volume.path.name.lower().endswith(_WITHOUT_GEOMETRY))


def orientation_of(grid: Grid) -> str:
    """The directions of the file's axes, like "RAS" or "LPS"."""
    return "".join(_orientations.aff2axcodes(np.asarray(grid.affine)))


def grid_findings(of: Source, grid: Grid, expected: Grid, *, own_axes: bool) -> Iterator[Finding]:
    """How the grid of a file differs from that of the first image of its case, and what that looks like.

    Args:
        of: the case and the file.
        grid: of the file.
        expected: of the case's first image.
        own_axes: files are brought to RAS by their own headers before they are compared.
    """
    found, wanted = (_reoriented(grid), _reoriented(expected)) if own_axes else (grid, expected)
    verdict = "" if own_axes else _verdict(grid, expected)
    spacing, wanted_spacing = (spacing_of(np.asarray(one.affine)) for one in (found, wanted))
    if found.shape != wanted.shape:
        what = f"expected the image's shape {times(wanted.shape)}, got {times(found.shape)}{verdict}"
        yield of.finding("G001", what)
    if not np.allclose(spacing, wanted_spacing):
        what = f"expected the image's spacing {times(wanted_spacing)} mm, got {times(spacing)} mm{verdict}"
        yield of.finding("G002", what)
    direction, wanted_direction = (
        np.asarray(one.affine)[:3, :3] / spacing_of(np.asarray(one.affine)) for one in (found, wanted)
    )
    if not np.allclose(direction, wanted_direction, atol=_DIRECTION_TOLERANCE):
        angle = max(
            float(np.degrees(np.arccos(np.clip(one @ other, -1.0, 1.0))))
            for one, other in zip(direction.T, wanted_direction.T, strict=True)
        )
        what = (
            f"expected axes {orientation_of(wanted)} as the image has them, got {orientation_of(found)}, up to "
            f"{angle:.3g} degrees off{verdict}"
        )
        yield of.finding("G004", what)
    elif found.shape == wanted.shape:
        yield from _origin(of, found, wanted, verdict)


def header_findings(of: Source, grid: Grid) -> Iterator[Finding]:
    """What is odd about the grid of an image by itself."""
    spacing = spacing_of(np.asarray(grid.affine))
    odd = (spacing < _SPACING_RANGE_MM[0]) | (spacing > _SPACING_RANGE_MM[1])
    if grid.has_geometry and (odd & ~np.isclose(spacing, _SPACING_2D_MM)).any():
        what = f"expected a spacing of {_SPACING_RANGE_MM[0]:g} to {_SPACING_RANGE_MM[1]:g} mm, got {times(spacing)} mm"
        yield of.finding("G007", what)


def refused_by_itk(path: Path) -> str | None:
    """Why SimpleITK refuses the header of a NIfTI file, which nibabel has read; None if it does not."""
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return None
    reader = _sitk.ImageFileReader()
    reader.SetFileName(str(path))
    _sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        return one_line(error).split("ITK ERROR: ")[-1][-160:]
    return None


def lost_geometry(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Cases whose image has unit spacing where others do not; one line if no case has any geometry."""
    grids = [(case, case.image_grid) for case in cases if case.image_grid is not None and case.image_grid.has_geometry]
    unit = [(case, grid) for case, grid in grids if np.allclose(spacing_of(np.asarray(grid.affine)), 1.0)]
    identity = [case for case, grid in unit if _is_identity(grid)]
    if len(grids) == len(identity) > 0:
        what = f"expected a geometry, got an identity affine in all {len(grids)} images"
        yield Finding("G005", what)
    elif len(unit) < len(grids) / 2:
        for case, grid in unit:
            what = "an identity affine" if _is_identity(grid) else "a spacing of 1x1x1 mm"
            usual = np.median([spacing_of(np.asarray(one.affine)) for _, one in grids], axis=0)
            text = f"expected a spacing as in the other cases (median {times(usual)} mm), got {what}"
            yield Finding("G005", text, case.case_id, file=case.image_files[0])


def unusual_orientation(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Cases whose axes go otherwise than in most; one line if there is no most."""
    names = [
        (case, orientation_of(case.image_grid))
        for case in cases
        if case.image_grid is not None and case.image_grid.has_geometry
    ]
    counts = Counter(name for _, name in names)
    if len(counts) < 2:
        return
    usual, n_usual = counts.most_common(1)[0]
    if n_usual < _MOST * len(names):
        shown = ", ".join(f"{name} in {n}" for name, n in counts.most_common())
        yield Finding("G006", f"expected one orientation in all cases, got {shown}")
        return
    for case, name in names:
        if name != usual:
            what = f"expected axes {usual} as in {n_usual} of {len(names)} cases, got {name}"
            yield Finding("G006", what, case.case_id, file=case.image_files[0])


def refused_headers(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Headers that nnU-Net's usual reader refuses; where it refuses the first case, nnU-Net takes another for all."""
    read = [case for case in cases if case.image_grid is not None]
    if not read or any(file == read[0].image_files[0] for file, _ in read[0].refused):
        return
    for case in read:
        for file, why in case.refused:
            yield Finding(
                "G008",
                f"expected axes at right angles, got a header of which SimpleITK says '{why}'",
                case.case_id,
                file=file,
            )


def _origin(of: Source, found: Grid, wanted: Grid, verdict: str) -> Iterator[Finding]:
    shift = np.asarray(found.affine)[:3, 3] - np.asarray(wanted.affine)[:3, 3]
    voxels = np.linalg.solve(np.asarray(wanted.affine)[:3, :3], shift)
    if np.abs(voxels).max() > _ORIGIN_TOLERANCE:
        what = f"expected the image's origin, got one off by {np.linalg.norm(shift):.3g} mm ({_commas(voxels)} voxels)"
        yield of.finding("G003", what + verdict)


def _verdict(found: Grid, wanted: Grid) -> str:
    """What explains the difference of two grids, as the end of a line."""
    if _same(_reoriented(found), _reoriented(wanted)):
        return ": the same grid with its axes in another order or direction; reorder the voxels by the header"
    if _is_identity(found) and not _is_identity(wanted):
        return ": its header holds no geometry"
    if _is_identity(wanted) and not _is_identity(found):
        return ": the image's header holds no geometry"
    if found.shape != wanted.shape and sorted(found.shape) == sorted(wanted.shape):
        order = next(one for one in permutations(range(3)) if tuple(found.shape[i] for i in one) == wanted.shape)
        return f": the image's shape with its axes in the order {_commas(order)}"
    return ""


def _same(one: Grid, other: Grid) -> bool:
    smallest = float(spacing_of(np.asarray(other.affine)).min())
    return one.shape == other.shape and np.allclose(one.affine, other.affine, atol=_ORIGIN_TOLERANCE * smallest)


def _reoriented(grid: Grid) -> Grid:
    """The grid of the file once its axes go as near to RAS as they can."""
    affine = np.asarray(grid.affine)
    transform = _orientations.io_orientation(affine)
    shape = [0, 0, 0]
    for axis, (target, _) in enumerate(transform):
        shape[int(target)] = grid.shape[axis]
    turned = affine @ _orientations.inv_ornt_aff(transform, grid.shape)
    rows = tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in turned)
    return Grid((shape[0], shape[1], shape[2]), rows, grid.has_geometry)


def _is_identity(grid: Grid) -> bool:
    # What a NIfTI file without a geometry gives, and what ITK writes where none was set.
    affine = np.asarray(grid.affine)
    return any(np.allclose(affine, np.diag(signs)) for signs in ([1.0] * 4, [-1.0, -1.0, 1.0, 1.0]))


def _commas(values: Sequence[int] | np.ndarray) -> str:
    return ", ".join(f"{round(float(value), 3) + 0.0:.3g}" for value in values)  # no -0
