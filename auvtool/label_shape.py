"""How the label of a class looks by itself: what annotation faults leave behind, whatever the image shows.

Components, holes, ragged outlines, empty slices between labelled ones, a structure that ends abruptly or lies
elsewhere.
All numbers are free of the unit of length where they can be; a user's data set tells which values are usual in it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from auvtool.arrays import LabelMap

SHAPE_NAMES = (
    "log_volume_mm3",
    "n_components",
    "minor_component_share",
    "hole_share",
    "surface_ratio",
    "roughness",
    "outline_ratio",
    "slice_overlap",
    "slice_overlap_least",
    "area_jump",
    "gap_share",
    "end_area_first",
    "end_area_last",
    "border_share",
    *(f"centre_{axis}" for axis in "dhw"),
    *(f"extent_{axis}" for axis in "dhw"),
    *(f"offset_{axis}" for axis in "dhw"),
    *(f"moment_{pair}" for pair in ("dd", "hh", "ww", "dh", "dw", "hw")),
)


def label_shapes(
    label: LabelMap, classes: Sequence[Sequence[int]], spacing_mm: tuple[float, float, float]
) -> Float[np.ndarray, "class statistic"]:
    """`SHAPE_NAMES` of each class, given by its label values; a row of nan where it is absent.

    - log_volume_mm3; number of 26-connected components, share of the voxels outside the largest one;
    - hole_share: voxels that filling each slice's outlines would add, per voxel of the class;
    - surface_ratio: exposed voxel faces in mm^2 per volume^(2/3); outline_ratio: mean over the slices of the exposed
      edges per square root of the area; roughness: 1 - Dice with the mask smoothed by a Gaussian of one voxel in plane;
    - slice_overlap: Dice of neighbouring slices (mean, least); area_jump: largest change of area from one slice to the
      next, and end_area of the first and last slice, in units of the largest area; gap_share: empty slices within;
    - border_share: of the voxels, those on the volume's outermost planes in h and w;
    - centre and extent: of the bounding box, in shares of the volume; offset: of the centroid from that of the whole
      foreground, in units of the cube root of its volume; moment: second moments in units of volume^(2/3).
    """
    foreground = np.isin(label, [value for values in classes for value in values])
    of_all = _centroid(foreground, spacing_mm) if foreground.any() else np.full(3, np.nan)
    size = float(foreground.sum() * np.prod(spacing_mm)) ** (1 / 3)
    return np.array(
        [_one_class(np.isin(label, list(values)), spacing_mm, of_all, size) for values in classes], dtype=np.float64
    ).reshape(len(classes), len(SHAPE_NAMES))


def _one_class(
    mask: Bool[np.ndarray, "d h w"],
    spacing_mm: tuple[float, float, float],
    centroid_of_all: Float[np.ndarray, " 3"],
    size_of_all: float,
) -> list[float]:
    if not mask.any():
        return [np.nan] * len(SHAPE_NAMES)
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    cut = np.pad(mask[box], 1)
    volume = float(mask.sum() * np.prod(spacing_mm))
    values = {
        "log_volume_mm3": float(np.log(volume)),
        **_pieces(cut),
        **_outline(cut, spacing_mm, volume),
        **_slices(cut[1:-1, 1:-1, 1:-1]),
        "border_share": float(_on_border(mask).sum() / mask.sum()),
    }
    for axis, part, length in zip("dhw", box, mask.shape, strict=True):
        values[f"centre_{axis}"] = (part.start + part.stop) / 2 / length
        values[f"extent_{axis}"] = (part.stop - part.start) / length
    centroid = _centroid(mask, spacing_mm)
    for axis, offset in zip("dhw", (centroid - centroid_of_all) / size_of_all, strict=True):
        values[f"offset_{axis}"] = float(offset)
    positions = (np.argwhere(mask) * spacing_mm - centroid) / volume ** (1 / 3)
    second = positions.T @ positions / len(positions)
    for pair in ("dd", "hh", "ww", "dh", "dw", "hw"):
        values[f"moment_{pair}"] = float(second["dhw".index(pair[0]), "dhw".index(pair[1])])
    return [values[name] for name in SHAPE_NAMES]


def _centroid(mask: Bool[np.ndarray, "d h w"], spacing_mm: tuple[float, float, float]) -> Float[np.ndarray, " 3"]:
    axes = [mask.sum(axis=others) for others in ((1, 2), (0, 2), (0, 1))]
    return np.array([(np.arange(len(n)) * n).sum() / n.sum() for n in axes]) * spacing_mm


def _pieces(mask: Bool[np.ndarray, "d h w"]) -> Mapping[str, float]:
    pieces, n = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())[1:]
    filled = ndimage.binary_fill_holes(mask, structure=_IN_PLANE)
    return {
        "n_components": float(n),
        "minor_component_share": 1.0 - float(sizes.max() / sizes.sum()),
        "hole_share": float((filled & ~mask).sum() / mask.sum()),
    }


# Neighbours within a slice only: annotators draw slice by slice, and a hole is closed by its outline there.
_IN_PLANE = np.array([[[0, 0, 0]] * 3, [[0, 1, 0], [1, 1, 1], [0, 1, 0]], [[0, 0, 0]] * 3], dtype=bool)


def _outline(
    mask: Bool[np.ndarray, "d h w"], spacing_mm: tuple[float, float, float], volume: float
) -> Mapping[str, float]:
    faces = [float((np.diff(mask, axis=axis)).sum()) for axis in range(3)]
    areas = [float(np.prod(spacing_mm)) / spacing for spacing in spacing_mm]
    per_slice = mask.sum(axis=(1, 2)).astype(np.float64)
    edges = (np.diff(mask, axis=1).sum(axis=(1, 2)) + np.diff(mask, axis=2).sum(axis=(1, 2))).astype(np.float64)
    labelled = per_slice > 0
    smooth = ndimage.gaussian_filter(mask.astype(np.float32), (0.0, 1.0, 1.0)) > 0.5
    both = float((smooth & mask).sum())
    return {
        "surface_ratio": sum(n * area for n, area in zip(faces, areas, strict=True)) / volume ** (2 / 3),
        "outline_ratio": float((edges[labelled] / np.sqrt(per_slice[labelled])).mean()),
        "roughness": 1.0 - 2.0 * both / float(smooth.sum() + mask.sum()),
    }


def _slices(mask: Bool[np.ndarray, "d h w"]) -> Mapping[str, float]:
    area = mask.sum(axis=(1, 2)).astype(np.float64)
    largest = area.max()
    together = area[1:] + area[:-1]
    pairs = together > 0
    overlap = 2.0 * (mask[1:] & mask[:-1]).sum(axis=(1, 2))[pairs] / together[pairs]
    jumps = np.abs(np.diff(area)) / largest
    return {
        "slice_overlap": float(overlap.mean()) if overlap.size else np.nan,
        "slice_overlap_least": float(overlap.min()) if overlap.size else np.nan,
        "area_jump": float(jumps.max()) if jumps.size else np.nan,
        "gap_share": float((area == 0).mean()),
        "end_area_first": float(area[0] / largest),
        "end_area_last": float(area[-1] / largest),
    }


def _on_border(mask: Bool[np.ndarray, "d h w"]) -> Bool[np.ndarray, "d h w"]:
    border = np.zeros(mask.shape[1:], dtype=bool)
    border[[0, -1], :] = border[:, [0, -1]] = True
    return mask & border
