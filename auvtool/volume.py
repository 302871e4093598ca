"""Cases in memory: canonical axes with the slice axis first, agreement of image and label.

Voxels of image and label belong together by their index in the file, as for nnU-Net, unless dataset.json chooses one of
its readers that reorient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import nibabel.orientations
import numpy as np

from auvtool.cases import Case, Dataset
from auvtool.errors import InputError
from auvtool.volume_file import FileVolume, read_volume_file, spacing_of, times

Affine: TypeAlias = tuple[tuple[float, float, float, float], ...]

# Directions in which d, h and w grow, by slice axis. Each slice stands as radiologists see it (rows downwards, the
# patient's right on the left), which is also how the foundation models saw their training slices.
_DISPLAY_AXES = {"S": ("S", "P", "L"), "A": ("A", "I", "L"), "R": ("R", "I", "P")}
# An axis is the slice axis if its spacing is larger than the next one by more than this factor; isotropic scans are
# sliced along S.
_CLEARLY_LARGER = 1.1
_ORIGIN_TOLERANCE_MM = 1e-3

_orientations: Any = nibabel.orientations  # no type information


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of a (d, h, w) array lie.

    Attributes:
        shape: (d, h, w).
        spacing_mm: voxel size along d, h, w.
        slice_axis: the patient axis of d: "S" (axial slices), "A" (coronal) or "R" (sagittal).
        affine: index (d, h, w, 1) -> position in mm, in RAS+ coordinates.
        file_affine: index (i, j, k, 1) in the file -> position in mm, in RAS+ coordinates.
        file_shape: (i, j, k), first index fastest in the file.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    slice_axis: str
    affine: Affine
    file_affine: Affine
    file_shape: tuple[int, int, int]

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        return abs(float(np.linalg.det(np.asarray(self.affine)[:3, :3]))) / 1000.0


@dataclass(frozen=True)
class CaseVolume:
    """A case in memory: image (channel, d, h, w) float32, label (d, h, w) or None, and their common geometry.

    `warnings` says where origin or direction of a file differ from the image's: nnU-Net warns of it too, and trains.
    """

    case_id: str
    image: np.ndarray
    label: np.ndarray | None
    geometry: Geometry
    warnings: tuple[str, ...] = ()


def read_image(paths: Sequence[Path]) -> tuple[np.ndarray, Geometry]:
    """An image as float32 (channel, d, h, w), one file a channel or one file for all, and its geometry.

    Raises:
        InputError: a file cannot be read whole, the channels differ in shape or spacing, or a voxel is NaN or infinite.
    """
    image, geometry, _ = _read_image(paths, own_axes=False)
    return image, geometry


def read_label(path: Path, *, like: Geometry | None = None) -> tuple[np.ndarray, Geometry]:
    """A label map as int16 (int32 where it must) (d, h, w), and its geometry.

    With `like`, the voxels are laid on that grid by their index in the file, and the geometry returned is `like`.

    Raises:
        InputError: the file cannot be read whole, holds anything but whole numbers, or its shape or spacing is not that
            of `like`.
    """
    volume = read_volume_file(path)
    label = whole_numbers(volume)
    if like is None:
        oriented, geometry = _to_slices(label, volume.affine)
        return oriented[0], geometry
    _check_grid(volume, like)
    return _to_slices(label, np.asarray(like.file_affine))[0][0], like


def read_case(case: Case, dataset: Dataset) -> CaseVolume:
    """Image and label of a case on one grid; an empty label is legal.

    Raises:
        InputError: a file cannot be read whole; the number of channels is not dataset.json's; shape or spacing differ
            between files; a voxel is NaN or infinite; the label holds a value that dataset.json does not name.
    """
    # nnU-Net's readers *WithReorient bring each file to RAS by its own header; its others go by the index in the file.
    own_axes = str(dataset.raw.get("overwrite_image_reader_writer", "")).endswith("WithReorient")
    image, geometry, warnings = _read_image(case.images, own_axes=own_axes)
    if len(image) != len(dataset.channel_names):
        raise InputError(
            case.images[0],
            expected=f"{len(dataset.channel_names)} channels ({', '.join(dataset.channel_names)})",
            found=len(image),
            cure="add the missing channel files or correct channel_names in dataset.json",
        )
    if case.label is None:
        return CaseVolume(case.case_id, image, None, geometry, warnings)
    volume = read_volume_file(case.label)
    label, more = _lay_on(volume, whole_numbers(volume), geometry, own_axes=own_axes)
    _check_values(label[0], dataset, case.label)
    return CaseVolume(case.case_id, image, label[0], geometry, (*warnings, *more))


def _read_image(paths: Sequence[Path], *, own_axes: bool) -> tuple[np.ndarray, Geometry, tuple[str, ...]]:
    channels: list[np.ndarray] = []
    warnings: tuple[str, ...] = ()
    geometry = None
    for path in paths:
        volume = read_volume_file(path)
        voxels = _finite_float32(volume)
        if geometry is None:
            oriented, geometry = _to_slices(voxels, volume.affine)
        else:
            oriented, more = _lay_on(volume, voxels, geometry, own_axes=own_axes)
            warnings += more
        channels.append(oriented)
    if geometry is None:
        raise ValueError("an image needs at least one file")
    return channels[0] if len(channels) == 1 else np.concatenate(channels), geometry, warnings


def _lay_on(
    volume: FileVolume, voxels: np.ndarray, geometry: Geometry, *, own_axes: bool
) -> tuple[np.ndarray, tuple[str, ...]]:
    """`voxels` of another file of the case as (channel, d, h, w) of `geometry`; a warning if its header differs."""
    if own_axes:
        oriented, own = _to_slices(voxels, volume.affine, slice_axis=geometry.slice_axis)
        _check_same(volume.path, own.shape, geometry.shape, own.spacing_mm, geometry.spacing_mm)
        found, expected = np.asarray(own.affine), np.asarray(geometry.affine)
    else:
        _check_grid(volume, geometry)
        oriented, _ = _to_slices(voxels, np.asarray(geometry.file_affine))
        found, expected = volume.affine, np.asarray(geometry.file_affine)
    warnings = []
    if not np.allclose(found[:3, :3], expected[:3, :3], rtol=1e-5, atol=_ORIGIN_TOLERANCE_MM):
        warnings.append(f"{volume.path}: its direction is not that of the image; look at both in a viewer")
    if not np.allclose(found[:3, 3], expected[:3, 3], rtol=1e-5, atol=_ORIGIN_TOLERANCE_MM):
        warnings.append(f"{volume.path}: its origin is not that of the image; look at both in a viewer")
    return oriented, tuple(warnings)


def _check_grid(volume: FileVolume, like: Geometry) -> None:
    expected = spacing_of(np.asarray(like.file_affine))
    _check_same(volume.path, volume.voxels.shape[1:], like.file_shape, spacing_of(volume.affine), expected)


def _check_same(
    path: Path,
    shape: Sequence[int],
    expected_shape: Sequence[int],
    spacing: Sequence[float] | np.ndarray,
    expected_spacing: Sequence[float] | np.ndarray,
) -> None:
    if tuple(shape) != tuple(expected_shape):
        raise InputError(
            path,
            expected=f"the image's shape {times(expected_shape)}",
            found=times(shape),
            cure="give the label of this very scan, or leave the case out",
        )
    # numpy's default tolerances are those of nnU-Net's integrity check.
    if not np.allclose(spacing, expected_spacing):
        raise InputError(
            path,
            expected=f"the image's spacing {times(expected_spacing)} mm",
            found=f"{times(spacing)} mm",
            cure="correct the header that is wrong, or leave the case out",
        )


def _finite_float32(volume: FileVolume) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        voxels = volume.voxels.astype(np.float32, copy=False)
    finite = np.isfinite(voxels)
    if not finite.all():
        raise InputError(
            volume.path,
            expected="finite numbers in every voxel",
            found=f"{np.count_nonzero(~finite)} NaN or infinite",
            cure="replace them by what the scanner gives for air, or leave the case out",
        )
    return voxels


def whole_numbers(volume: FileVolume) -> np.ndarray:
    """Labels (1, i, j, k), in the order of the file, as int16 or int32.

    Raises:
        InputError: the file holds several channels, or anything but whole numbers.
    """
    voxels = volume.voxels
    if len(voxels) != 1:
        raise InputError(
            volume.path, expected="one label a voxel", found=f"{len(voxels)} channels", cure="save it as a label map"
        )
    if voxels.dtype.kind == "f":
        wrong = ~np.isfinite(voxels) | (voxels != np.rint(voxels))
        if wrong.any():
            raise InputError(
                volume.path,
                expected="whole numbers as labels",
                found=f"{np.count_nonzero(wrong)} voxels like {voxels[wrong][0]:g}",
                cure="resample labels with nearest neighbour, or leave the case out",
            )
    lowest, highest = (float(voxels.min()), float(voxels.max())) if voxels.size else (0.0, 0.0)
    kind = np.int16 if np.iinfo(np.int16).min <= lowest and highest <= np.iinfo(np.int16).max else np.int32
    if lowest < np.iinfo(np.int32).min or highest > np.iinfo(np.int32).max:
        raise InputError(
            volume.path, expected="labels of a label map", found=f"{highest:g}", cure="is this the image itself?"
        )
    return voxels.astype(kind, copy=False)


def _check_values(label: np.ndarray, dataset: Dataset, path: Path) -> None:
    if not dataset.classes:
        return
    known = dataset.label_values()
    strange = [int(value) for value in np.unique(label) if int(value) not in known]
    if strange:
        shown = ", ".join(map(str, strange[:5])) + (", ..." if len(strange) > 5 else "")
        raise InputError(
            path,
            expected=f"only the labels of dataset.json (0 to {max(known)})",
            found=shown,
            cure="correct the label map, or name the class in dataset.json",
        )


def _to_slices(voxels: np.ndarray, affine: np.ndarray, *, slice_axis: str | None = None) -> tuple[np.ndarray, Geometry]:
    """(channel, i, j, k) as contiguous (channel, d, h, w) with the slice axis first, and the geometry of that."""
    views, geometry = view_as_slices(voxels, affine, slice_axis=slice_axis)
    return np.ascontiguousarray(np.stack(views)), geometry


def view_as_slices(
    voxels: np.ndarray, affine: np.ndarray, *, slice_axis: str | None = None
) -> tuple[list[np.ndarray], Geometry]:
    """Each channel of (channel, i, j, k) seen as (d, h, w) with the slice axis first, without a copy; the geometry."""
    axis = slice_axis or _slice_axis(spacing_of(affine), _orientations.io_orientation(affine))
    shape = tuple(int(length) for length in voxels.shape[1:])
    views, new_affine = _view_along(voxels, affine, _orientations.axcodes2ornt(_DISPLAY_AXES[axis]))
    new_spacing = spacing_of(new_affine)
    d, h, w = views[0].shape
    geometry = Geometry(
        shape=(d, h, w),
        spacing_mm=(float(new_spacing[0]), float(new_spacing[1]), float(new_spacing[2])),
        slice_axis=axis,
        affine=_as_tuple(new_affine),
        file_affine=_as_tuple(affine),
        file_shape=(shape[0], shape[1], shape[2]),
    )
    return views, geometry


def view_on_axes(voxels: np.ndarray, affine: np.ndarray, like: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Each channel seen with its axes in the order and directions of another affine, without a copy.

    Args:
        voxels: (channel, and three axes).
        affine: of those axes.
        like: an affine whose axes are wanted; its spacing and origin do not matter.

    Returns:
        The channels, and the affine of their axes.
    """
    return _view_along(voxels, affine, _orientations.io_orientation(like))


def _view_along(voxels: np.ndarray, affine: np.ndarray, orientation: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    transform = _orientations.ornt_transform(_orientations.io_orientation(affine), orientation)
    views = [_orientations.apply_orientation(channel, transform) for channel in voxels]
    return views, affine @ _orientations.inv_ornt_aff(transform, voxels.shape[1:])


def _slice_axis(spacing: np.ndarray, orientation: np.ndarray) -> str:
    """The patient axis with clearly the largest spacing, else "S"."""
    order = np.argsort(spacing)
    if spacing[order[2]] > _CLEARLY_LARGER * spacing[order[1]]:
        return "RAS"[int(orientation[order[2], 0])]
    return "S"


def _as_tuple(affine: np.ndarray) -> Affine:
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in affine)
