"""Other voxels in the place of a file's: a new file of its format, with its axes and its geometry."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from auvtool.dataset_json import FILE_ENDINGS
from auvtool.errors import InputError
from auvtool.image_files import strip_channel
from auvtool.nifti_file import open_nifti
from auvtool.volume import Geometry, view_on_axes
from auvtool.volume_file import read_volume_file

_sitk: Any = SimpleITK
_PICTURES = (".png", ".bmp")


def write_like(
    path: Path, source: Path, voxels: np.ndarray, geometry: Geometry, *, own_axes: bool, is_label: bool = False
) -> None:
    """Write `voxels` (channel, d, h, w) as the file `source` would hold them; `source` stays as it is.

    Integers stay integers: the values are rounded, and stored in the type of `source` or, where that cannot hold them,
    in a wider one; numbers with a fraction are stored as float32. Pictures hold 0 to 255, a grey PNG up to 65535, and
    what is beyond is cut off. A TIFF takes the JSON file with its spacing along.

    Args:
        path: of the ending of `source`, in an existing folder.
        source: the file that the voxels of the clean case came from.
        voxels: on the axes of `geometry`.
        geometry: of the case, as `read_case` gave it.
        own_axes: the file was oriented by its own header, not by that of the case's first file.
        is_label: whole numbers, in whatever type `source` has them.

    Raises:
        InputError: `source` cannot be read, or its format cannot hold the voxels.
        OSError: the disk is full or the folder is read-only.
    """
    like = read_volume_file(source)
    affine = like.affine if own_axes else np.asarray(geometry.file_affine)
    in_file = np.stack(view_on_axes(voxels, np.asarray(geometry.affine), affine)[0])
    kind = like.voxels.dtype
    picture = path.suffix.lower() in _PICTURES
    if picture:
        wide = path.suffix.lower() == ".png" and len(in_file) == 1
        in_file = np.clip(in_file, 0, 65535 if wide else np.iinfo(kind).max)
    if is_label and kind.kind not in "iu":
        kind = np.dtype(np.uint8)
    stored = _stored(in_file, kind, wider=(np.uint16,) if picture else (np.int16, np.int32))
    try:
        _write(path, source, stored)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            source,
            expected=f"a format that can hold {stored.dtype} of shape {'x'.join(map(str, stored.shape))}",
            found=f"'{str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__}'",
            cure="convert the data set to .nii.gz",
        ) from error


def file_ending(path: Path) -> str:
    """The ending of a volume's file as it is written in its name; see FILE_ENDINGS."""
    ending = next(ending for ending in FILE_ENDINGS if path.name.lower().endswith(ending))
    return path.name[-len(ending) :]


def _stored(voxels: np.ndarray, kind: np.dtype[Any], *, wider: Sequence[type[np.integer[Any]]]) -> np.ndarray:
    if kind.kind not in "iu":
        return np.asarray(voxels, dtype=np.float32)
    rounded = np.asarray(np.rint(voxels))
    for candidate in (kind, *map(np.dtype, wider)):
        limits = np.iinfo(candidate)
        if limits.min <= rounded.min() and rounded.max() <= limits.max:
            return rounded.astype(candidate)
    return np.asarray(voxels, dtype=np.float32)


def _write(path: Path, source: Path, voxels: np.ndarray) -> None:
    suffix = path.suffix.lower()
    if path.name.lower().endswith((".nii", ".nii.gz")):
        _write_nifti(path, source, voxels)
    elif suffix in {".tif", ".tiff"}:
        _write_tiff(path, source, voxels)
    elif suffix in _PICTURES:
        _write_picture(path, voxels)
    else:
        _write_itk(path, source, voxels)


def _write_nifti(path: Path, source: Path, voxels: np.ndarray) -> None:
    image = open_nifti(source)
    array = np.moveaxis(voxels, 0, -1) if len(voxels) > 1 else voxels[0]
    header = image.header.copy()
    header.set_data_dtype(voxels.dtype)
    header.set_slope_inter(1, 0)
    # nibabel keeps qform and sform as they are where the affine is that of the header.
    new = type(image)(array.reshape(image.shape), image.affine, header, dtype=voxels.dtype)
    new.to_filename(path)


def _write_itk(path: Path, source: Path, voxels: np.ndarray) -> None:
    image = _sitk.ReadImage(str(source))
    colours = image.GetNumberOfComponentsPerPixel() > 1
    array = voxels.transpose(0, 3, 2, 1)
    if image.GetDimension() == 2:
        array = array[:, 0]
    if colours:
        array = np.moveaxis(array, 0, -1)
    elif image.GetDimension() < 4:
        array = array[0]
    new = _sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=colours)
    new.CopyInformation(image)
    _sitk.WriteImage(new, str(path), path.suffix.lower() != ".gipl")


def _write_tiff(path: Path, source: Path, voxels: np.ndarray) -> None:
    import tifffile  # only here: few data sets are TIFF

    colours = len(voxels) > 1
    array = voxels.transpose(0, 3, 2, 1)
    array = np.moveaxis(array[:, 0], 0, -1) if colours else array[0].reshape(tifffile.imread(source).shape)
    photometric = "rgb" if colours else "minisblack"
    tifffile.imwrite(path, np.ascontiguousarray(array), compression="zlib", photometric=photometric)
    stem = source.name.removesuffix(source.suffix)
    split = strip_channel(stem)
    for name in dict.fromkeys((split[0] if split else stem, stem)):
        beside = source.with_name(name + ".json")
        if beside.is_file():
            own = path.name.removesuffix(path.suffix)
            own_split = strip_channel(own)
            own_name = own_split[0] if own_split and name != stem else own
            path.with_name(own_name + ".json").write_bytes(beside.read_bytes())
            break


def _write_picture(path: Path, voxels: np.ndarray) -> None:
    import skimage.io  # only here: it is slow to import, and few data sets are pictures

    planes = voxels[..., 0].transpose(0, 2, 1)
    array = planes[0] if len(planes) == 1 else np.moveaxis(planes, 0, -1)
    skimage.io.imsave(path, np.ascontiguousarray(array), check_contrast=False)
