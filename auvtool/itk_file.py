"""MetaImage, NRRD and GIPL files, read with ITK.

What a header claims is held against the bytes that are there before ITK takes any memory, and which other files it
names before ITK opens them.
"""

import math
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from auvtool.file_limits import DEFLATE_RATIO, require_volume_size

_GIPL_HEADER_BYTES = 256
# How far a header of MetaImage or NRRD is read to find the name of another file in it.
_MOST_HEADER_BYTES = 2**20
# Of the encodings of NRRD that have a best ratio; text takes more bytes than voxels.
_NRRD_RATIOS = dict.fromkeys((b"raw", b"txt", b"text", b"ascii", b"hex"), 1)
_NRRD_RATIOS |= dict.fromkeys((b"gz", b"gzip"), DEFLATE_RATIO)
_stderr_lock = threading.Lock()

_sitk: Any = SimpleITK  # has no types


def read_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (channel, i, j, k), of a 2D image (channel, i, j), and the affine in mm.

    Raises:
        ValueError: the file is shorter than its header says, or names another one elsewhere; InputError: the voxels
            take too much memory. A damaged file raises whatever ITK raises.
    """
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
    return voxels.transpose((0, 2, 1) if dimension == 2 else (0, 3, 2, 1)), affine


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
