"""Files of voxels as they stand: every format that nnU-Net reads, in the file's own order, with an affine.

A header is read alone first, and what it claims is held against the file's own size and `auvtool.file_limits` before
any voxel is.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel.orientations
import numpy as np

from auvtool.dataset_json import FILE_ENDINGS
from auvtool.errors import InputError, one_line
from auvtool.itk_file import read_itk
from auvtool.nifti_file import millimetres, nifti_affine, open_nifti, read_nifti
from auvtool.picture_file import read_picture, read_tiff

# The slice spacing that nnU-Net gives to 2D images.
_SPACING_2D_MM = 999.0
_SMALLEST_VOXEL_MM3 = 1e-9
# All other endings are ITK's.
_READERS = {".nii.gz": read_nifti, ".nii": read_nifti, ".tif": read_tiff, ".tiff": read_tiff}
_READERS |= {".png": read_picture, ".bmp": read_picture}

_orientations: Any = nibabel.orientations  # no type information


@dataclass(frozen=True)
class FileVolume:
    """Voxels (channel, i, j, k) as the file orders them; `affine` maps (i, j, k, 1) to mm in RAS+ coordinates."""

    path: Path
    voxels: np.ndarray
    affine: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.voxels.shape[1:]


@dataclass(frozen=True)
class FileGrid:
    """Where the voxels of a file lie, as its header says: (i, j, k), channels, affine as in `FileVolume`.

    `zooms_mm` is the voxel size that stands in the header beside the affine, where some readers take it from. The
    voxels stand from byte `offset` on as numbers of `dtype`, first index fastest, to be scaled or not.
    """

    path: Path
    shape: tuple[int, int, int]
    n_channels: int
    affine: np.ndarray
    zooms_mm: tuple[float, ...]
    dtype: np.dtype[Any]
    offset: int
    is_scaled: bool


def spacing_of(affine: np.ndarray) -> np.ndarray:
    """Voxel size in mm along each index of an affine."""
    return np.asarray(np.sqrt((affine[:3, :3] ** 2).sum(axis=0)))


def read_volume_file(path: Path) -> FileVolume:
    """All voxels of a file, in its own order.

    Raises:
        InputError: it is missing, truncated, of an unknown format, or has no usable geometry.
    """
    ending = next((ending for ending in FILE_ENDINGS if path.name.lower().endswith(ending)), None)
    if ending is None:
        raise InputError(
            path, expected=f"a volume ({', '.join(FILE_ENDINGS)})", found="another file", cure="convert the file"
        )
    with as_input_error(path):
        _require_file(path)
        voxels, affine = _READERS.get(ending, read_itk)(path)
        if voxels.ndim == 3:
            voxels, affine = voxels[..., None], _as_2d(affine)
    if voxels.dtype.kind not in "iufb" or 0 in voxels.shape:
        raise InputError(
            path,
            expected="one real number a voxel",
            found=f"{voxels.dtype} of shape {voxels.shape}",
            cure="convert the file",
        )
    _check_affine(affine, path)
    return FileVolume(path, voxels, np.asarray(affine, dtype=np.float64))


def read_nifti_grid(path: Path) -> FileGrid:
    """What the header of a 3D or 4D NIfTI file says; its voxels are not read.

    Raises:
        InputError: it is missing or no such file, has no usable geometry, or (.nii) is shorter than its header says.
    """
    with as_input_error(path):
        _require_file(path)
        image = open_nifti(path)
        stored = image.dataobj
        shape = list(image.shape)
        while len(shape) > 3 and shape[-1] == 1:
            shape.pop()
        if len(shape) not in {3, 4}:
            raise ValueError(f"{len(shape)} dimensions")
        affine = nifti_affine(image)
        zooms = tuple(float(length) * millimetres(image) for length in image.header.get_zooms()[:3])
    _check_affine(affine, path)
    return FileGrid(
        path,
        (shape[0], shape[1], shape[2]),
        shape[3] if len(shape) == 4 else 1,
        affine,
        zooms,
        dtype=stored.dtype,
        offset=int(stored.offset),
        is_scaled=(stored.slope, stored.inter) != (1.0, 0.0),
    )


@contextmanager
def as_input_error(path: Path) -> Iterator[None]:
    """The errors of reading a file: every library has its own, and of a damaged file they raise any of them."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(
            path,
            expected="a volume that fits into this machine's memory",
            found=f"one of {path.stat().st_size} bytes on disk that does not",
            cure="free some memory, or leave the case out",
        ) from error
    except Exception as error:
        raise InputError(
            path,
            expected="a whole, readable volume",
            found=f"'{_short(error)}'",
            cure="get the file anew, or leave the case out",
        ) from error


def times(values: Sequence[int] | Sequence[float] | np.ndarray) -> str:
    """A shape or a spacing as a message has it: 64x128x128."""
    return "x".join(f"{float(value):.6g}" for value in values)


def _require_file(path: Path) -> None:
    if path.exists() and not path.is_file():  # a pipe would wait for its other end for ever
        raise ValueError("no regular file")


def _check_affine(affine: np.ndarray, path: Path) -> None:
    linear = affine[:3, :3]
    with np.errstate(all="ignore"):
        usable = np.isfinite(affine).all() and abs(np.linalg.det(linear)) >= _SMALLEST_VOXEL_MM3
        # Three axes that point nearly one way have none for one of the patient's.
        usable = usable and set(_orientations.io_orientation(affine)[:, 0]) == {0, 1, 2}
    if not usable:
        raise InputError(
            path,
            expected="an affine with three axes",
            found=str(np.round(linear, 4).tolist()),
            cure="correct the header (sform and qform of a NIfTI file)",
        )


def _short(error: BaseException) -> str:
    """The end of a library's message, which is where ITK says what was wrong."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else error
    text = re.sub(r"\(0x[0-9a-f]+\)", "", one_line(said).split("ITK ERROR: ")[-1])
    return text if len(text) <= 160 else "..." + text[-157:]


def _as_2d(affine: np.ndarray) -> np.ndarray:
    """The affine of a 2D image in the axial plane, one thick slice."""
    flat = np.eye(4)
    flat[:2, :2], flat[:2, 3] = affine[:2, :2], affine[:2, 3]
    flat[2, 2] = _SPACING_2D_MM
    return flat
