"""How the outline of a label sits on the image: intensities and edges by distance from the outline, within slices.

A right outline lies on an edge, and its inside differs from its surroundings in the way that is usual for the class. An
outline too wide, too narrow or elsewhere moves these profiles.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from auvtool.arrays import LabelMap, Volume
from auvtool.class_box import Box, class_boxes, class_mask, mask_box
from auvtool.slabs import slabs

# Signed distance from the outline in voxels of the slice, below 0 inside.
_EDGES = (-5.0, -3.5, -2.5, -1.5, 0.0, 1.5, 2.5, 3.5, 5.0)
_BINS = ("in4", "in3", "in2", "in1", "out1", "out2", "out3", "out4")
_MARGIN = 6  # beyond the distances that count, so that a voxel that counts has both neighbours for its gradient
BOUNDARY_NAMES = (
    *(f"step_{name}" for name in _BINS if name != "in1"),
    *(f"gradient_{name}" for name in _BINS),
    "level_inside",
    "spread_inside",
    "spread_outside",
    "separation",
    "edge_offset",
    "edge_share",
)


@dataclass(frozen=True)
class _Voxels:
    """Voxels near an outline, float32: a list of them is held for the whole class."""

    distance: Float[np.ndarray, " voxel"]
    intensity: Float[np.ndarray, " voxel"]
    gradient: Float[np.ndarray, " voxel"]


def label_boundaries(
    image: Volume,
    label: LabelMap,
    classes: Sequence[Sequence[int]],
    *,
    boxes: Sequence[Box | None] | None = None,
) -> Float[np.ndarray, "class statistic"]:
    """`BOUNDARY_NAMES` of each class, given by its label values; nan where it is absent, or where a bin holds no voxel.

    Intensities are in units of the image's range from percentile 5 to 95, from its median, so that gain and offset do
    not matter.

    - step_BIN: mean intensity of the bin less that of the outermost voxels inside (in1);
    - gradient_BIN: mean gradient magnitude in plane of the bin, in units of its mean over all bins;
    - level and spread (standard deviation) inside, spread of the bins out1 to out3;
    - separation: |2 AUROC - 1| of the intensities inside against out1 to out3;
    - edge_offset: mean signed distance weighted by the gradient above its median; edge_share: that gradient's share
      within 1.5 voxels of the outline.

    Voxels of other classes, and those 5 or more voxels from the outline, are left out.

    Args:
        image: the image channel.
        label: the label map.
        classes: the label values of each.
        boxes: of the classes, where they are known already (`class_boxes`).
    """
    low, middle, high = np.percentile(image, (5, 50, 95))
    level, unit = np.float32(middle), np.float32(high - low if high > low else 1.0)
    boxes = class_boxes(label, classes) if boxes is None else boxes
    rows = np.full((len(classes), len(BOUNDARY_NAMES)), np.nan)
    for row, values, box in zip(rows, classes, boxes, strict=True):
        if box is not None:
            row[:] = _one_class(list(_near_outline(image, label, values, box=box, level=level, unit=unit)))
    return rows


def _near_outline(
    image: Volume, label: LabelMap, values: Sequence[int], *, box: Box, level: np.float32, unit: np.float32
) -> Iterator[_Voxels]:
    """The voxels of a class that count, some slices at a time."""
    around = _grown(box)
    image, label = image[around], label[around]
    for slab in slabs(label.shape):
        mask = class_mask(label[slab], values)
        tight = mask_box(mask)
        if tight is None:
            continue
        kept = (mask.any(axis=(1, 2)), *_grown(tight)[1:])
        mask = mask[kept]
        scaled = (image[slab][kept].astype(np.float32) - level) / unit
        distance = _signed_distance(mask)
        # Other classes are no surroundings.
        usable = (mask | (label[slab][kept] <= 0)) & (np.abs(distance) < _EDGES[-1])
        gradient = np.hypot(*(_difference(scaled, axis) for axis in (1, 2)))
        yield _Voxels(distance[usable], scaled[usable], gradient[usable])


def _grown(box: Box) -> Box:
    d, h, w = box
    return (d, slice(max(0, h.start - _MARGIN), h.stop + _MARGIN), slice(max(0, w.start - _MARGIN), w.stop + _MARGIN))


def _signed_distance(mask: Bool[np.ndarray, "d h w"]) -> Float[np.ndarray, "d h w"]:
    """Distance from the outline within each slice, below 0 inside; no slice is empty."""
    apart = (1e6, 1.0, 1.0)  # slices are made very far apart: the distance is one within the slice
    inside = ndimage.distance_transform_edt(np.pad(mask, ((0, 0), (1, 1), (1, 1))), sampling=apart)[:, 1:-1, 1:-1]
    outside = ndimage.distance_transform_edt(~mask, sampling=apart)
    return np.asarray(np.where(mask, -inside, outside), dtype=np.float32)


def _one_class(parts: Sequence[_Voxels]) -> list[float]:
    count, level, slope = np.zeros((3, len(_BINS)))
    for part in parts:
        place = np.digitize(part.distance, _EDGES[1:-1])
        count += np.bincount(place, minlength=len(_BINS))
        level += np.bincount(place, part.intensity, minlength=len(_BINS))
        slope += np.bincount(place, part.gradient, minlength=len(_BINS))
    mean_slope = slope.sum() / count.sum()
    count[count == 0] = np.nan
    level, slope = level / count, slope / count
    first = _BINS.index("in1")
    inside = np.concatenate([part.intensity[part.distance < 0] for part in parts])
    near = np.concatenate([part.intensity[(part.distance > 0) & (part.distance <= 3.5)] for part in parts])
    return [
        *np.delete(level - level[first], first).tolist(),
        *(slope / mean_slope if mean_slope > 0 else np.full(len(_BINS), np.nan)).tolist(),
        float(inside.mean(dtype=np.float64)),
        float(inside.std(dtype=np.float64)),
        float(near.std(dtype=np.float64)) if near.size else np.nan,
        _separation(inside, near),
        *_edge(parts),
    ]


def _edge(parts: Sequence[_Voxels]) -> tuple[float, float]:
    """Mean distance of the gradient above its median, and the share of it at the outline."""
    median = np.median(np.concatenate([part.gradient for part in parts]), overwrite_input=True)
    total, moment, at_outline = 0.0, 0.0, 0.0
    for part in parts:
        above = np.maximum(part.gradient - median, 0.0).astype(np.float64)
        total += above.sum()
        moment += (above * part.distance).sum()
        at_outline += above[np.abs(part.distance) <= 1.5].sum()
    return (float(moment / total), float(at_outline / total)) if total > 0 else (np.nan, np.nan)


def _difference(image: Volume, axis: int) -> Volume:
    if image.shape[axis] < 2:
        return np.zeros_like(image)
    return np.asarray(np.gradient(image, axis=axis))


def _separation(inside: Float[np.ndarray, " voxel"], outside: Float[np.ndarray, " voxel"]) -> float:
    if not inside.size or not outside.size:
        return float("nan")
    # Sorted, one array is looked up in the other: ranks of both together would take several times their memory.
    inside, outside = np.sort(inside), np.sort(outside)
    below = 0
    for slab in slabs(inside.shape):
        below += sum(int(np.searchsorted(outside, inside[slab], side).sum()) for side in ("left", "right"))
    return float(abs(below / (inside.size * outside.size) - 1.0))
