"""What is measured of the label of one class, so that it can be compared with that class in the other cases."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from auvtool.checks.case_facts import ClassFacts
from auvtool.class_box import Box
from auvtool.slabs import slabs
from auvtool.volume import Geometry

_TOUCHING = np.ones((3, 3, 3), dtype=bool)
# Neighbours within a slice only: annotators draw slice by slice, and a hole is closed by its outline there.
_IN_PLANE = np.array([[[0, 0, 0]] * 3, [[0, 1, 0], [1, 1, 1], [0, 1, 0]], [[0, 0, 0]] * 3], dtype=bool)


def measure_class(
    mask: Bool[np.ndarray, "d h w"],
    box: Box,
    geometry: Geometry,
    places: Sequence[int],
    *,
    image: np.ndarray | None,
    padding: float | None,
    air: float | None,
) -> ClassFacts:
    """The numbers of a class that is there.

    Args:
        mask: where it is, within its box.
        box: of the class.
        geometry: of the volume.
        places: for each slice of the volume its index in the file.
        image: the first channel within the box; None if it cannot be read or does not fit.
        padding: the value that the image is padded with, if it is.
        air: what is darker is air.
    """
    area = mask.sum(axis=(1, 2))
    n = int(area.sum())
    n_pieces, smallest, smallest_at = _pieces(mask)
    hole_share, hole_at = _holes(mask)
    ends = (_end(area, 0, at_end=box[0].start == 0), _end(area, -1, at_end=box[0].stop == geometry.shape[0]))
    first = box[0].start
    return ClassFacts(
        n_voxels=n,
        volume_mm3=n * geometry.voxel_ml * 1000.0,
        centroid_mm=_centroid(mask, box, geometry),
        at_border=touches_border(box, geometry.shape),
        n_pieces=n_pieces,
        smallest_piece=smallest,
        smallest_piece_place=places[first + smallest_at],
        hole_share=hole_share,
        hole_place=None if hole_at is None else places[first + hole_at],
        ends=ends,
        end_places=(places[first], places[box[0].stop - 1]),
        padding_share=_share(mask, image, equal=padding),
        air_share=_share(mask, image, below=air),
    )


def touches_border(box: Box, shape: Sequence[int]) -> bool:
    """Whether a box reaches the border of the volume; along an axis of one voxel there is no border."""
    return any(length > 1 and (part.start == 0 or part.stop == length) for part, length in zip(box, shape, strict=True))


def _pieces(mask: Bool[np.ndarray, "d h w"]) -> tuple[int, int, int]:
    """How many 26-connected pieces, and voxels and middle slice of the smallest."""
    pieces, n = ndimage.label(mask, structure=_TOUCHING)
    sizes = np.zeros(n + 1, dtype=np.int64)
    for slab in slabs(mask.shape):
        sizes += np.bincount(pieces[slab].ravel(), minlength=n + 1)
    smallest = 1 + int(sizes[1:].argmin())
    along = ndimage.find_objects(pieces, max_label=n)[smallest - 1][0]
    return n, int(sizes[smallest]), (along.start + along.stop - 1) // 2


def _holes(mask: Bool[np.ndarray, "d h w"]) -> tuple[float, int | None]:
    """Voxels within outlines of slices per voxel of the mask, and the slice that has most."""
    counts = []
    for slab in slabs(mask.shape):
        cut = np.pad(mask[slab], ((0, 0), (1, 1), (1, 1)))
        outside, _ = ndimage.label(~cut, structure=_IN_PLANE)
        # The first voxel of a slice lies outside of every outline.
        counts.append(((outside != outside[:, :1, :1]) & ~cut).sum(axis=(1, 2)))
    holes = np.concatenate(counts)
    share = float(holes.sum() / np.count_nonzero(mask))
    return share, int(holes.argmax()) if share > 0 else None


def _end(area: np.ndarray, position: int, *, at_end: bool) -> float | None:
    return None if at_end else float(area[position] / area.max())


def _centroid(mask: Bool[np.ndarray, "d h w"], box: Box, geometry: Geometry) -> tuple[float, float, float]:
    lines = (mask.sum(axis=(1, 2)), mask.sum(axis=(0, 2)), mask.sum(axis=(0, 1)))
    index = [
        part.start + float((line * np.arange(len(line))).sum() / line.sum())
        for part, line in zip(box, lines, strict=True)
    ]
    x, y, z, _ = np.asarray(geometry.affine) @ np.array([*index, 1.0])
    return float(x), float(y), float(z)


def _share(
    mask: Bool[np.ndarray, "d h w"],
    image: np.ndarray | None,
    *,
    equal: float | None = None,
    below: float | None = None,
) -> float | None:
    """The share of a mask's voxels that equal a number, or lie below one; None where there is no such number."""
    if image is None or (equal is None and below is None):
        return None
    found = 0
    for slab in slabs(mask.shape):
        inside = np.asarray(image[slab][mask[slab]], dtype=np.float32)
        found += int(np.count_nonzero(inside == np.float32(equal) if below is None else inside < below))
    return found / int(np.count_nonzero(mask))
