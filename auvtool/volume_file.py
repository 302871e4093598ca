"""Files of voxels as they stand: every format that nnU-Net reads, in the file's own order, with an affine.

NIfTI is read with nibabel: SimpleITK refuses direction cosines that are not orthonormal, and reads a truncated file
without a word.
"""

import json
import logging
import os
import re
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import nibabel.arrayproxy
import numpy as np
import SimpleITK
from nibabel.filebasedimages import ImageFileError

from auvtool.dataset import strip_channel
from auvtool.dataset_json import FILE_ENDINGS
from auvtool.errors import InputError, one_line
from auvtool.gzip_stream import GzipStream

# The slice spacing that nnU-Net gives to 2D images.
_SPACING_2D_MM = 999.0
_GIPL_HEADER_BYTES = 256
_SMALLEST_VOXEL_MM3 = 1e-9
_stderr_lock = threading.Lock()

_nibabel: Any = nibabel  # neither has types for what is used here
_sitk: Any = SimpleITK


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
    readers = {".nii.gz": _read_nifti, ".nii": _read_nifti, ".tif": _read_tiff, ".tiff": _read_tiff}
    readers |= {".png": _read_picture, ".bmp": _read_picture}
    if ending is None:
        raise InputError(
            path, expected=f"a volume ({', '.join(FILE_ENDINGS)})", found="another file", cure="convert the file"
        )
    with as_input_error(path):
        voxels, affine = readers.get(ending, _read_itk)(path)
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
        image = _load_nifti(path)
        stored = image.dataobj
        offset, n_bytes = stored.offset, stored.dtype.itemsize * int(np.prod(image.shape))
        shape = list(image.shape)
        while len(shape) > 3 and shape[-1] == 1:
            shape.pop()
        if len(shape) not in {3, 4}:
            raise ValueError(f"{len(shape)} dimensions")
        if path.suffix.lower() == ".nii" and path.stat().st_size < offset + n_bytes:
            raise ValueError(f"{path.stat().st_size} bytes instead of {offset + n_bytes}")
        affine = _nifti_affine(image)
        zooms = tuple(float(length) * _millimetres(image) for length in image.header.get_zooms()[:3])
    _check_affine(affine, path)
    return FileGrid(
        path,
        (shape[0], shape[1], shape[2]),
        shape[3] if len(shape) == 4 else 1,
        affine,
        zooms,
        dtype=stored.dtype,
        offset=offset,
        is_scaled=(stored.slope, stored.inter) != (1.0, 0.0),
    )


@contextmanager
def as_input_error(path: Path) -> Iterator[None]:
    """The errors of reading a file; every library has its own: SimpleITK RuntimeError, gzip EOFError and zlib.error."""
    try:
        yield
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, zlib.error, ImageFileError) as error:
        raise InputError(
            path,
            expected="a whole, readable volume",
            found=f"'{_short(error)}'",
            cure="get the file anew, or leave the case out",
        ) from error


def _check_affine(affine: np.ndarray, path: Path) -> None:
    linear = affine[:3, :3]
    if not np.isfinite(affine).all() or abs(np.linalg.det(linear)) < _SMALLEST_VOXEL_MM3:
        raise InputError(
            path,
            expected="an affine with three axes",
            found=str(np.round(linear, 4).tolist()),
            cure="correct the header (sform and qform of a NIfTI file)",
        )


def _short(error: BaseException) -> str:
    """The end of a library's message, which is where ITK says what was wrong."""
    text = re.sub(r"\(0x[0-9a-f]+\)", "", one_line(error).split("ITK ERROR: ")[-1])
    return text if len(text) <= 160 else "..." + text[-157:]


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = _load_nifti(path)
    voxels = _read_gzipped(path, image.dataobj) if path.suffix.lower() == ".gz" else np.asanyarray(image.dataobj)
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    affine = _nifti_affine(image)
    if voxels.ndim == 2:
        return voxels[None, :, :, None], _as_2d(affine)
    if voxels.ndim == 4:
        return np.moveaxis(voxels, -1, 0), affine
    if voxels.ndim != 3:
        raise ValueError(f"{voxels.ndim} dimensions")
    return voxels[None], affine


def _read_gzipped(path: Path, stored: Any) -> np.ndarray:
    """The voxels of a compressed file, of which nibabel read the header.

    nibabel reads as many bytes as the header promises and never meets the checksum behind them: to it a flipped bit is
    another label.
    """
    with GzipStream(path) as stream:
        spec = (stored.shape, stored.dtype, stored.offset, stored.slope, stored.inter)
        voxels: np.ndarray = np.asanyarray(_nibabel.arrayproxy.ArrayProxy(stream, spec, mmap=False))
        stream.finish()
    return voxels


def _load_nifti(path: Path) -> Any:
    # nibabel tells of header fields that it repairs (a pixdim of 0) on a logger that writes on stderr.
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    return _nibabel.load(path)


def _nifti_affine(image: Any) -> np.ndarray:
    affine = np.array(image.affine, dtype=np.float64)
    affine[:3] *= _millimetres(image)
    return affine


def _millimetres(image: Any) -> float:
    """What the unit of a NIfTI header is in mm."""
    return {"meter": 1000.0, "micron": 0.001}.get(image.header.get_xyzt_units()[0], 1.0)


def _read_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    _sitk.ProcessObject.SetGlobalWarningDisplay(False)
    meta_image = path.suffix.lower() in {".mha", ".mhd"}
    with _quiet_stderr() if meta_image else nullcontext():
        image = _sitk.ReadImage(os.fspath(path))
    voxels = _sitk.GetArrayFromImage(image)
    if path.name.lower().endswith(".gipl") and path.stat().st_size < _GIPL_HEADER_BYTES + voxels.nbytes:
        # ITK fills what a truncated file lacks with whatever stands in memory.
        raise ValueError(f"{path.stat().st_size} bytes instead of {_GIPL_HEADER_BYTES + voxels.nbytes}")
    if image.GetNumberOfComponentsPerPixel() > 1:
        voxels = np.moveaxis(voxels, -1, 0)
    elif image.GetDimension() < 4:
        voxels = voxels[None]
    dimension = image.GetDimension()
    affine = np.eye(4)
    spatial = min(dimension, 3)
    direction = np.array(image.GetDirection()).reshape(dimension, dimension)[:spatial, :spatial]
    affine[:spatial, :spatial] = direction * np.array(image.GetSpacing())[:spatial]
    affine[:spatial, 3] = image.GetOrigin()[:spatial]
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # ITK counts towards left and back
    if dimension == 2:
        return voxels.transpose(0, 2, 1)[..., None], _as_2d(affine)
    return voxels.transpose(0, 3, 2, 1), affine


def _read_tiff(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A TIFF stack; nnU-Net takes its spacing from a JSON file of the same name without channel number."""
    import tifffile  # only here: few data sets are TIFF

    voxels = np.asarray(tifffile.imread(path))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    # nnU-Net reads .tif as colours where the last axis has 3 or 4 entries, and .tiff never.
    colours = voxels.ndim == 3 and voxels.shape[-1] in {3, 4} and path.suffix.lower() == ".tif"
    if voxels.ndim == 2 or colours:
        return _read_picture(path)
    if voxels.ndim != 3:
        raise ValueError(f"{voxels.ndim} dimensions")
    stem = path.name.removesuffix(path.suffix)
    split = strip_channel(stem)
    for name in dict.fromkeys((split[0] if split else stem, stem)):
        beside = path.with_name(name + ".json")
        if beside.is_file():
            spacing = json.loads(beside.read_text(encoding="utf-8"))["spacing"]
            if len(spacing) != 3 or not all(length > 0 for length in spacing):
                raise ValueError(f"spacing {spacing} in {beside.name}")
            affine[[0, 1, 2], [0, 1, 2]] *= np.array(spacing[::-1], dtype=np.float64)
            break
    return voxels.transpose(2, 1, 0)[None], affine


def _read_picture(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A 2D picture by the library that nnU-Net uses; colours are channels."""
    import skimage.io  # only here: it is slow to import, and few data sets are pictures

    pixels = np.asarray(skimage.io.imread(path))
    planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    return planes.transpose(0, 2, 1)[..., None], _as_2d(np.diag([-1.0, -1.0, 1.0, 1.0]))


def _as_2d(affine: np.ndarray) -> np.ndarray:
    """The affine of a 2D image in the axial plane, one thick slice."""
    flat = np.eye(4)
    flat[:2, :2], flat[:2, 3] = affine[:2, :2], affine[:2, 3]
    flat[2, 2] = _SPACING_2D_MM
    return flat


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Nothing on file descriptor 2: MetaImage prints its complaints there from C++, beside the exception it raises."""
    with _stderr_lock:  # the descriptor belongs to the whole process
        saved = os.dup(2)
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(null)
            os.close(saved)
