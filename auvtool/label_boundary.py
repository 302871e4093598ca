"""How the outline of a label sits on the image: intensities and edges by distance from the outline, within slices.

A right outline lies on an edge, and its inside differs from its surroundings in the way that is usual for the class. An
outline too wide, too narrow or elsewhere moves these profiles.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.stats import rankdata

from auvtool.arrays import LabelMap, Volume

# Signed distance from the outline in voxels of the slice, below 0 inside.
_EDGES = (-5.0, -3.5, -2.5, -1.5, 0.0, 1.5, 2.5, 3.5, 5.0)
_BINS = ("in4", "in3", "in2", "in1", "out1", "out2", "out3", "out4")
_MARGIN = 6
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


def label_boundaries(
    image: Volume, label: LabelMap, classes: Sequence[Sequence[int]]
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
    """
    low, middle, high = np.percentile(image, (5, 50, 95))
    scaled = (image.astype(np.float32) - np.float32(middle)) / np.float32(high - low if high > low else 1.0)
    found = [_one_class(scaled, np.isin(label, list(values)), label > 0) for values in classes]
    return np.array(found, dtype=np.float64).reshape(len(classes), len(BOUNDARY_NAMES))


def _one_class(image: Volume, mask: Bool[np.ndarray, "d h w"], foreground: Bool[np.ndarray, "d h w"]) -> list[float]:
    if not mask.any():
        return [np.nan] * len(BOUNDARY_NAMES)
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    box = (box[0], *(slice(max(0, part.start - _MARGIN), part.stop + _MARGIN) for part in box[1:]))
    image, mask, others = image[box], mask[box], (foreground & ~mask)[box]
    kept = mask.any(axis=(1, 2))
    image, mask, others = image[kept], mask[kept], others[kept]
    # Slices are made very far apart: the distance is one within the slice.
    apart = (1e6, 1.0, 1.0)
    inside = ndimage.distance_transform_edt(np.pad(mask, ((0, 0), (1, 1), (1, 1))), sampling=apart)[:, 1:-1, 1:-1]
    distance = np.where(mask, -inside, ndimage.distance_transform_edt(~mask, sampling=apart))
    gradient = np.hypot(*(_difference(image, axis) for axis in (1, 2)))
    usable = ~others & (np.abs(distance) < _EDGES[-1])
    distance, intensity, gradient = distance[usable], image[usable].astype(np.float64), gradient[usable]
    place = np.digitize(distance, _EDGES[1:-1])
    count = np.bincount(place, minlength=len(_BINS)).astype(np.float64)
    count[count == 0] = np.nan
    level = np.bincount(place, intensity, minlength=len(_BINS)) / count
    slope = np.bincount(place, gradient, minlength=len(_BINS)) / count
    mean_slope = gradient.mean()
    near = (distance > 0) & (distance <= 3.5)
    within = distance < 0
    above = np.maximum(gradient - np.median(gradient), 0.0)
    total = above.sum()
    first = _BINS.index("in1")
    return [
        *np.delete(level - level[first], first).tolist(),
        *(slope / mean_slope if mean_slope > 0 else np.full(len(_BINS), np.nan)).tolist(),
        float(intensity[within].mean()),
        float(intensity[within].std()),
        float(intensity[near].std()) if near.any() else np.nan,
        _separation(intensity[within], intensity[near]),
        float((above * distance).sum() / total) if total > 0 else np.nan,
        float(above[np.abs(distance) <= 1.5].sum() / total) if total > 0 else np.nan,
    ]


def _difference(image: Volume, axis: int) -> Volume:
    if image.shape[axis] < 2:
        return np.zeros_like(image)
    return np.asarray(np.gradient(image, axis=axis))


def _separation(inside: Float[np.ndarray, " voxel"], outside: Float[np.ndarray, " voxel"]) -> float:
    if not inside.size or not outside.size:
        return float("nan")
    ranks = rankdata(np.concatenate([inside, outside]))[: inside.size]
    area = (ranks.sum() - inside.size * (inside.size + 1) / 2) / (inside.size * outside.size)
    return float(abs(2.0 * area - 1.0))
