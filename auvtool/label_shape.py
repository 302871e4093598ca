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
from auvtool.class_box import Box, class_boxes, class_mask, mask_box
from auvtool.slabs import slabs

_PAIRS = ("dd", "hh", "ww", "dh", "dw", "hw")
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
    *(f"moment_{pair}" for pair in _PAIRS),
)
_REACH = 4  # voxels that the Gaussian of one voxel sees


def label_shapes(
    label: LabelMap,
    classes: Sequence[Sequence[int]],
    spacing_mm: tuple[float, float, float],
    *,
    boxes: Sequence[Box | None] | None = None,
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

    Args:
        label: the label map.
        classes: the label values of each.
        spacing_mm: of the volume.
        boxes: of the classes, where they are known already (`class_boxes`).
    """
    boxes = class_boxes(label, classes) if boxes is None else boxes
    foreground = _counts_by_axis(label, [value for values in classes for value in values])
    rows = np.full((len(classes), len(SHAPE_NAMES)), np.nan)
    for row, values, box in zip(rows, classes, boxes, strict=True):
        if box is not None:
            mask = class_mask(label[box], values)
            found = {**_one_class(mask, spacing_mm), **_place(mask, box, label.shape, spacing_mm, foreground)}
            row[:] = [found[name] for name in SHAPE_NAMES]
    return rows


def _counts_by_axis(label: LabelMap, values: Sequence[int]) -> list[np.ndarray]:
    """How many voxels of some label values each index of d, of h and of w holds."""
    counts = [np.zeros(length, dtype=np.int64) for length in label.shape]
    for slab in slabs(label.shape):
        mask = class_mask(label[slab], values)
        plane = mask.sum(axis=0)
        counts[0][slab] = mask.sum(axis=(1, 2))
        counts[1] += plane.sum(axis=1)
        counts[2] += plane.sum(axis=0)
    return counts


def _one_class(mask: Bool[np.ndarray, "d h w"], spacing_mm: tuple[float, float, float]) -> Mapping[str, float]:
    """What does not depend on where the class lies, of its mask within its box."""
    area = mask.sum(axis=(1, 2)).astype(np.float64)
    shared = [_neighbours(mask, axis) for axis in range(3)]
    size, volume = area.sum(), float(area.sum() * np.prod(spacing_mm))
    # A voxel exposes two faces across an axis, and each pair of neighbours hides two of them.
    faces = [2.0 * (size - pairs.sum()) for pairs in shared]
    face_areas = [float(np.prod(spacing_mm)) / spacing for spacing in spacing_mm]
    edges = 2.0 * (2.0 * area - shared[1] - shared[2])
    labelled = area > 0
    return {
        "log_volume_mm3": float(np.log(volume)),
        **_pieces(mask),
        **_filled_and_smoothed(mask),
        "surface_ratio": sum(n * one for n, one in zip(faces, face_areas, strict=True)) / volume ** (2 / 3),
        "outline_ratio": float((edges[labelled] / np.sqrt(area[labelled])).mean()),
        **_slices(area, shared[0]),
    }


def _neighbours(mask: Bool[np.ndarray, "d h w"], axis: int) -> Float[np.ndarray, " pair"]:
    """Pairs of neighbouring voxels of the mask: of each slice, or across d of each two slices."""
    found = []
    for slab in slabs(mask.shape):
        if axis == 0:
            one, other = mask[slab.start + 1 : slab.stop + 1], mask[slab]
            both = one & other[: len(one)]
        elif axis == 1:
            both = mask[slab, 1:] & mask[slab, :-1]
        else:
            both = mask[slab, :, 1:] & mask[slab, :, :-1]
        found.append(both.sum(axis=(1, 2)).astype(np.float64))
    return np.concatenate(found)


def _pieces(mask: Bool[np.ndarray, "d h w"]) -> Mapping[str, float]:
    pieces, n = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes = np.zeros(n + 1, dtype=np.int64)
    for slab in slabs(mask.shape):
        sizes += np.bincount(pieces[slab].ravel(), minlength=n + 1)
    return {"n_components": float(n), "minor_component_share": 1.0 - float(sizes[1:].max() / sizes[1:].sum())}


# Neighbours within a slice only: annotators draw slice by slice, and a hole is closed by its outline there.
_IN_PLANE = np.array([[[0, 0, 0]] * 3, [[0, 1, 0], [1, 1, 1], [0, 1, 0]], [[0, 0, 0]] * 3], dtype=bool)


def _filled_and_smoothed(mask: Bool[np.ndarray, "d h w"]) -> Mapping[str, float]:
    holes, smoothed, both = 0, 0, 0
    for slab in slabs(mask.shape):
        cut = np.pad(mask[slab], ((0, 0), (1, 1), (1, 1)))
        box = mask_box(cut)
        if box is None:
            continue
        cut = cut[(box[0], *(slice(max(0, part.start - _REACH), part.stop + _REACH) for part in box[1:]))]
        outside, _ = ndimage.label(~cut, structure=_IN_PLANE)
        # The first voxel of a slice lies outside of every outline.
        holes += int(np.count_nonzero((outside != outside[:, :1, :1]) & ~cut))
        smooth = ndimage.gaussian_filter(cut.astype(np.float32), (0.0, 1.0, 1.0)) > 0.5
        smoothed += int(np.count_nonzero(smooth))
        both += int(np.count_nonzero(smooth & cut))
    size = np.count_nonzero(mask)
    return {"hole_share": float(holes / size), "roughness": 1.0 - 2.0 * both / float(smoothed + size)}


def _slices(area: Float[np.ndarray, " d"], shared: Float[np.ndarray, " pair"]) -> Mapping[str, float]:
    largest = area.max()
    together = area[1:] + area[:-1]
    pairs = together > 0
    overlap = 2.0 * shared[pairs] / together[pairs]
    jumps = np.abs(np.diff(area)) / largest
    return {
        "slice_overlap": float(overlap.mean()) if overlap.size else np.nan,
        "slice_overlap_least": float(overlap.min()) if overlap.size else np.nan,
        "area_jump": float(jumps.max()) if jumps.size else np.nan,
        "gap_share": float((area == 0).mean()),
        "end_area_first": float(area[0] / largest),
        "end_area_last": float(area[-1] / largest),
    }


def _place(
    mask: Bool[np.ndarray, "d h w"],
    box: Box,
    shape: tuple[int, ...],
    spacing_mm: tuple[float, float, float],
    foreground: Sequence[np.ndarray],
) -> Mapping[str, float]:
    """Where the class lies in the volume, and how it spreads about its centroid."""
    values: dict[str, float] = {}
    # Counts over pairs of axes hold all second moments, without a list of the voxels' positions.
    planes = {"dh": mask.sum(axis=2), "dw": mask.sum(axis=1), "hw": mask.sum(axis=0)}
    lines = {"d": planes["dh"].sum(axis=1), "h": planes["hw"].sum(axis=1), "w": planes["hw"].sum(axis=0)}
    size = lines["d"].sum()
    unit, unit_of_all = (float(n * np.prod(spacing_mm)) ** (1 / 3) for n in (size, foreground[0].sum()))
    positions: dict[str, np.ndarray] = {}
    for axis, part, length, spacing, of_all in zip("dhw", box, shape, spacing_mm, foreground, strict=True):
        values[f"centre_{axis}"] = (part.start + part.stop) / 2 / length
        values[f"extent_{axis}"] = (part.stop - part.start) / length
        places = np.arange(part.start, part.stop)
        centroid = (places * lines[axis]).sum() / size * spacing
        of_all_centroid = (np.arange(length) * of_all).sum() / of_all.sum() * spacing
        values[f"offset_{axis}"] = float((centroid - of_all_centroid) / unit_of_all)
        positions[axis] = (places * spacing - centroid) / unit
    for pair in _PAIRS:
        one, other = pair[0], pair[1]
        weighted = lines[one] * positions[one] if one == other else positions[one] @ planes[pair]
        values[f"moment_{pair}"] = float(weighted @ positions[other] / size)
    on_h, on_w = (
        np.isin(np.arange(part.start, part.stop), (0, n - 1)) for part, n in zip(box[1:], shape[1:], strict=True)
    )
    values["border_share"] = float(planes["hw"][on_h[:, None] | on_w].sum() / size)
    return values
