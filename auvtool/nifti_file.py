"""NIfTI files, read with nibabel.

SimpleITK refuses direction cosines that are not orthonormal, and reads a truncated file without a word.
"""

import logging
import math
from pathlib import Path
from typing import Any

import nibabel
import nibabel.arrayproxy
import numpy as np

from auvtool.file_limits import require_bytes
from auvtool.gzip_stream import GzipStream

# Where the voxels begin at the latest: what stands before them are notes.
_MOST_OFFSET = 2**26

_nibabel: Any = nibabel  # has no types for what is used here


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (channel, i, j, k), of a 2D file (channel, i, j), and the affine in mm.

    Raises:
        ValueError: the file is none, or has other dimensions; InputError: see `open_nifti`. Reading a damaged file
            raises whatever nibabel raises.
    """
    image = open_nifti(path)
    voxels = _read_gzipped(path, image.dataobj) if path.suffix.lower() == ".gz" else np.asanyarray(image.dataobj)
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    affine = nifti_affine(image)
    if voxels.ndim == 4:
        return np.moveaxis(voxels, -1, 0), affine
    if voxels.ndim not in {2, 3}:
        raise ValueError(f"{voxels.ndim} dimensions")
    return voxels[None], affine


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
    if any(length < 1 for length in shape) or not 0 <= offset <= _MOST_OFFSET:
        raise ValueError(f"a header with shape {shape} and voxels from byte {offset} on")
    n_voxels, itemsize = math.prod(shape), header.get_data_dtype().itemsize
    is_scaled = header.get_slope_inter() not in {(None, None), (1.0, 0.0)}
    packed = path.suffix.lower() == ".gz"
    require_bytes(path, int(offset) + n_voxels * itemsize, n_voxels * max(itemsize, 8 * is_scaled), packed=packed)
    proxy = _nibabel.arrayproxy.ArrayProxy(path, header)
    with np.errstate(all="ignore"):  # of an absurd affine nibabel calculates before it refuses it
        return kind(proxy, header.get_best_affine(), header)


def nifti_affine(image: Any) -> np.ndarray:
    """Index (i, j, k, 1) -> position in mm, in RAS+ coordinates."""
    affine = np.array(image.affine, dtype=np.float64)
    affine[:3] *= millimetres(image)
    return affine


def millimetres(image: Any) -> float:
    """What the unit of a NIfTI header is in mm."""
    return {"meter": 1000.0, "micron": 0.001}.get(image.header.get_xyzt_units()[0], 1.0)


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
