"""TIFF, PNG and BMP files: their axes count to the left and back, a pixel is 1 mm wide."""

import logging
import math
from pathlib import Path

import numpy as np

from auvtool.file_limits import require_bytes, require_volume_size
from auvtool.image_files import strip_channel
from auvtool.json_text import json_text_of, parse_json

# No page, with its tags, unpacks to more than this many times its bytes, whichever way it was packed.
_TIFF_RATIO = 2**14
_LEFT_BACK = np.diag([-1.0, -1.0, 1.0, 1.0])  # in RAS+ coordinates


def read_tiff(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A TIFF stack (channel, i, j, k) or picture (channel, i, j), and its affine in mm.

    nnU-Net takes the spacing of a stack from a JSON file of the same name without channel number.

    Raises:
        ValueError: there is no page, the file claims more than it holds, or the spacing is none; InputError: the voxels
            take too much memory. A damaged file raises whatever tifffile raises.
    """
    import tifffile  # only here: few data sets are TIFF

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it tells of each odd tag on stderr
    # Without the files that OME metadata name beside or elsewhere.
    with tifffile.TiffFile(path, _multifile=False) as file:
        if not len(file.pages):  # counting finds a circle of pages, in which reading would go round for ever
            raise ValueError("no page")
        series = file.series[0]
        require_bytes(path, series.nbytes // _TIFF_RATIO, series.nbytes, packed=False)
        n_parts = len(series.pages) * math.prod(series.keyframe.chunked)
        if n_parts > path.stat().st_size:  # each has its place in a table
            raise ValueError(f"{n_parts} strips or tiles in {path.stat().st_size} bytes")
        voxels = np.asarray(series.asarray())
    affine = _LEFT_BACK.copy()
    # nnU-Net reads .tif as colours where the last axis has 3 or 4 entries, and .tiff never.
    colours = voxels.ndim == 3 and voxels.shape[-1] in {3, 4} and path.suffix.lower() == ".tif"
    if voxels.ndim == 2 or colours:
        return _channels_first(voxels), affine
    if voxels.ndim != 3:
        raise ValueError(f"{voxels.ndim} dimensions")
    stem = path.name.removesuffix(path.suffix)
    split = strip_channel(stem)
    for name in dict.fromkeys((split[0] if split else stem, stem)):
        beside = path.with_name(name + ".json")
        if beside.is_file():
            spacing = parse_json(json_text_of(beside))["spacing"]
            if len(spacing) != 3 or not all(length > 0 for length in spacing):
                raise ValueError(f"spacing {spacing} in {beside.name}")
            affine[[0, 1, 2], [0, 1, 2]] *= np.array(spacing[::-1], dtype=np.float64)
            break
    return voxels.transpose(2, 1, 0)[None], affine


def read_picture(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A PNG or BMP (channel, i, j) by the library that nnU-Net uses, colours as channels, and its affine in mm.

    Raises:
        InputError: the pixels take too much memory. A damaged file raises whatever Pillow raises.
    """
    import skimage.io  # only here: it is slow to import, and few data sets are pictures
    from PIL import Image

    # Of the formats that Pillow tells by content, one starts another program (EPS); its size is told without unpacking.
    with Image.open(path, formats=("PNG", "BMP", "JPEG")) as picture:
        require_volume_size(path, picture.width * picture.height * 8)
    return _channels_first(np.asarray(skimage.io.imread(path))), _LEFT_BACK.copy()


def _channels_first(pixels: np.ndarray) -> np.ndarray:
    planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    return planes.transpose(0, 2, 1)
