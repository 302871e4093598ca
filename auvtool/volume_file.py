"""Files of voxels as they stand: every format that nnU-Net reads, in the file's own order, with an affine.

NIfTI is read with nibabel: SimpleITK refuses direction cosines that are not orthonormal, and reads a truncated file
without a word.

A header is read alone first, and what it claims is held against the file's own size and `auvtool.file_limits` before
any voxel is.
"""

import logging
import math
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import nibabel.arrayproxy
import nibabel.orientations
import numpy as np
import SimpleITK

from auvtool.dataset_json import FILE_ENDINGS
from auvtool.errors import InputError, one_line
from auvtool.file_limits import DEFLATE_RATIO, require_volume_size
from auvtool.gzip_stream import GzipStream
from auvtool.image_files import strip_channel
from auvtool.json_text import parse_json

# The slice spacing that nnU-Net gives to 2D images.
_SPACING_2D_MM = 999.0
_GIPL_HEADER_BYTES = 256
_SMALLEST_VOXEL_MM3 = 1e-9
# Where the voxels of a NIfTI file begin at the latest: what stands before them are notes.
_MOST_NIFTI_OFFSET = 2**26
# How far a header of MetaImage or NRRD is read to find the name of another file in it.
_MOST_HEADER_BYTES = 2**20
# Of the encodings of NRRD that have a best ratio; text takes more bytes than voxels.
_NRRD_RATIOS = dict.fromkeys((b"raw", b"txt", b"text", b"ascii", b"hex"), 1)
_NRRD_RATIOS |= dict.fromkeys((b"gz", b"gzip"), DEFLATE_RATIO)
# No page, with its tags, unpacks to more than this many times its bytes, whichever way it was packed.
_TIFF_RATIO = 2**14
_stderr_lock = threading.Lock()

_nibabel: Any = nibabel  # none has types for what is used here
_orientations: Any = nibabel.orientations
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
        _require_file(path)
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
        _require_file(path)
        image = open_nifti(path)
        stored = image.dataobj
        shape = list(image.shape)
        while len(shape) > 3 and shape[-1] == 1:
            shape.pop()
        if len(shape) not in {3, 4}:
            raise ValueError(f"{len(shape)} dimensions")
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


def _require_bytes(path: Path, n_stored: int, n_in_memory: int, *, packed: bool) -> None:
    """Refuse voxels that cannot all be in the file (deflate has a best ratio), or that take too much memory."""
    size = path.stat().st_size
    if size * (DEFLATE_RATIO if packed else 1) < n_stored:
        raise ValueError(f"{size} bytes {'that can unpack to' if packed else 'instead of'} {n_stored}")
    require_volume_size(path, n_in_memory)


def _short(error: BaseException) -> str:
    """The end of a library's message, which is where ITK says what was wrong."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else error
    text = re.sub(r"\(0x[0-9a-f]+\)", "", one_line(said).split("ITK ERROR: ")[-1])
    return text if len(text) <= 160 else "..." + text[-157:]


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = open_nifti(path)
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


def open_nifti(path: Path) -> Any:
    """A NIfTI file as nibabel's image, its voxels not read; without the notes behind its header.

    `nibabel.load` would read these notes first, however long they claim to be, and takes other formats under this name.

    Raises:
        ValueError: the header is none, or the file is shorter than it says.
        InputError: the voxels take too much memory.
    """
    # nibabel tells of header fields that it repairs (a pixdim of 0) on a logger that writes on stderr.
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    with _nibabel.openers.ImageOpener(path) as file:
        block = file.read(_nibabel.Nifti2Header.sizeof_hdr)
    kinds = (_nibabel.Nifti1Image, _nibabel.Nifti2Image)
    kind = next((one for one in kinds if one.header_class.may_contain_header(block)), None)
    if kind is None:
        raise ValueError("no NIfTI header")
    header = kind.header_class(block[: kind.header_class.sizeof_hdr])
    shape, offset = header.get_data_shape(), header.get_data_offset()
    if any(length < 1 for length in shape) or not 0 <= offset <= _MOST_NIFTI_OFFSET:
        raise ValueError(f"a header with shape {shape} and voxels from byte {offset} on")
    n_voxels, itemsize = math.prod(shape), header.get_data_dtype().itemsize
    is_scaled = header.get_slope_inter() not in {(None, None), (1.0, 0.0)}
    packed = path.suffix.lower() == ".gz"
    _require_bytes(path, int(offset) + n_voxels * itemsize, n_voxels * max(itemsize, 8 * is_scaled), packed=packed)
    proxy = _nibabel.arrayproxy.ArrayProxy(path, header)
    return kind(proxy, header.get_best_affine(), header)


def _nifti_affine(image: Any) -> np.ndarray:
    affine = np.array(image.affine, dtype=np.float64)
    affine[:3] *= _millimetres(image)
    return affine


def _millimetres(image: Any) -> float:
    """What the unit of a NIfTI header is in mm."""
    return {"meter": 1000.0, "micron": 0.001}.get(image.header.get_xyzt_units()[0], 1.0)


def _read_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    _sitk.ProcessObject.SetGlobalWarningDisplay(False)
    n_stored, ratio = _stored_voxels(path)
    meta_image = path.suffix.lower() in {".mha", ".mhd"}
    with _quiet_stderr() if meta_image else nullcontext():
        reader = _sitk.ImageFileReader()
        reader.SetFileName(os.fspath(path))
        reader.ReadImageInformation()
        bits = re.search(r"(\d+)-bit", _sitk.GetPixelIDValueAsString(reader.GetPixelID()))
        n_bytes = math.prod(reader.GetSize()) * reader.GetNumberOfComponents() * (int(bits[1]) if bits else 64) // 8
        if n_stored * ratio < n_bytes:
            # ITK would take the memory first, and fill what a truncated GIPL file lacks with whatever stands there.
            raise ValueError(f"{n_stored} bytes {'that can unpack to' if ratio > 1 else 'instead of'} {n_bytes}")
        require_volume_size(path, n_bytes)
        image = reader.Execute()
    voxels = _sitk.GetArrayFromImage(image)
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


def _stored_voxels(path: Path) -> tuple[int, float]:
    """How many bytes at most hold the voxels of a file that ITK reads, and to how many times as many they may unpack.

    A header of MetaImage or NRRD may name any file of the user's as its voxels: only one beside or below it is taken.
    """
    size, kind = path.stat().st_size, path.suffix.lower()
    if kind == ".gipl":
        return size - _GIPL_HEADER_BYTES, 1
    with path.open("rb") as file:
        start = file.read(_MOST_HEADER_BYTES)
    if kind == ".nrrd":
        end = re.search(rb"\n\r?\n", start)
        named = re.search(rb"(?i)\ndata ?file:\s*([^\r\n]*)", start)
        encoding = re.search(rb"(?i)\nencoding:\s*(\w+)", start)
        ratio = _NRRD_RATIOS.get(encoding[1].lower() if encoding else b"", math.inf)
    else:
        named = end = re.search(rb"ElementDataFile\s*[=:]\s*([^\r\n]*)", start)
        if named is None:
            raise ValueError(f"no end of the header within {_MOST_HEADER_BYTES} bytes")
        if not re.search(rb"NDims\s*[=:]\s*[1-4]\s", start):  # ITK counts the axes of any other number without end
            raise ValueError("no number of axes")
        ratio = DEFLATE_RATIO if re.search(rb"CompressedData\s*[=:]\s*[Tt1]", start) else 1
    if end is None and named is None:
        raise ValueError(f"no end of the header within {_MOST_HEADER_BYTES} bytes")
    if named is None or named[1].strip().lower() == b"local":
        return size, ratio
    is_list = named[1].split()[:1] == [b"LIST"]
    names = start[named.end() :].split(b"\n") if is_list else [named[1]]
    for name in (os.fsdecode(one.strip()) for one in names if one.strip()):
        inside = ".." not in Path(name).parts and not Path(name).is_absolute()
        if "\0" in name or "%" in name or not inside or not (path.parent / name).is_file():
            raise ValueError(f"voxels in {name}, which is no file beside the header")
        size += (path.parent / name).stat().st_size
    return size, ratio


def _read_tiff(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A TIFF stack; nnU-Net takes its spacing from a JSON file of the same name without channel number."""
    import tifffile  # only here: few data sets are TIFF

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it tells of each odd tag on stderr
    # Without the files that OME metadata name beside or elsewhere.
    with tifffile.TiffFile(path, _multifile=False) as file:
        if not len(file.pages):  # counting finds a circle of pages, in which reading would go round for ever
            raise ValueError("no page")
        series = file.series[0]
        _require_bytes(path, series.nbytes // _TIFF_RATIO, series.nbytes, packed=False)
        n_parts = len(series.pages) * math.prod(series.keyframe.chunked)
        if n_parts > path.stat().st_size:  # each has its place in a table
            raise ValueError(f"{n_parts} strips or tiles in {path.stat().st_size} bytes")
        voxels = np.asarray(series.asarray())
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    # nnU-Net reads .tif as colours where the last axis has 3 or 4 entries, and .tiff never.
    colours = voxels.ndim == 3 and voxels.shape[-1] in {3, 4} and path.suffix.lower() == ".tif"
    if voxels.ndim == 2 or colours:
        return _picture(voxels)
    if voxels.ndim != 3:
        raise ValueError(f"{voxels.ndim} dimensions")
    stem = path.name.removesuffix(path.suffix)
    split = strip_channel(stem)
    for name in dict.fromkeys((split[0] if split else stem, stem)):
        beside = path.with_name(name + ".json")
        if beside.is_file():
            spacing = parse_json(beside.read_text(encoding="utf-8"))["spacing"]
            if len(spacing) != 3 or not all(length > 0 for length in spacing):
                raise ValueError(f"spacing {spacing} in {beside.name}")
            affine[[0, 1, 2], [0, 1, 2]] *= np.array(spacing[::-1], dtype=np.float64)
            break
    return voxels.transpose(2, 1, 0)[None], affine


def _read_picture(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A 2D picture by the library that nnU-Net uses; colours are channels."""
    import skimage.io  # only here: it is slow to import, and few data sets are pictures
    from PIL import Image

    # Of the formats that Pillow tells by content, one starts another program (EPS); its size is told without unpacking.
    with Image.open(path, formats=("PNG", "BMP", "JPEG")) as picture:
        require_volume_size(path, picture.width * picture.height * 8)
    return _picture(np.asarray(skimage.io.imread(path)))


def _picture(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
