"""Faults of label maps: each function models one, at one level, and leaves its input as it is."""

import math

import numpy as np
from scipy import ndimage

from auvtool.arrays import LabelMap


def shift(
    label: LabelMap, *, level: float, spacing_mm: tuple[float, float, float], generator: np.random.Generator
) -> LabelMap:
    """The whole label map moved in plane by `level` mm in a random direction: a wrong origin, a moved patient.

    Rounded to voxels, at least one; what leaves the volume is lost. Low, medium, high: 2, 5, 10 mm.
    """
    angle = float(generator.uniform(0.0, 2.0 * math.pi))
    steps = [round(level * math.sin(angle) / spacing_mm[1]), round(level * math.cos(angle) / spacing_mm[2])]
    if steps == [0, 0]:
        steps = [0, 1]
    return np.asarray(ndimage.shift(label, (0, *steps), order=0, mode="constant", cval=0), dtype=label.dtype)


def dilate(label: LabelMap, *, level: float) -> LabelMap:
    """Every structure drawn too large by `level` voxels in plane; only background gives way.

    Low, medium, high: 1-2, 3-5, 7-9 voxels.
    """
    # Slices are made very far apart, because annotators draw slice by slice.
    distance, nearest = ndimage.distance_transform_edt(label == 0, sampling=(1e6, 1.0, 1.0), return_indices=True)
    return np.where((label == 0) & (distance <= level) & bool(label.any()), label[tuple(nearest)], label)


def erode(label: LabelMap, *, level: float) -> LabelMap:
    """Every structure drawn too small by `level` voxels in plane; what is given up becomes background.

    A structure thinner than twice the level vanishes. Low, medium, high: 1-2, 3-5, 7-9 voxels.
    """
    shrunk = np.zeros_like(label)
    for class_id in _classes(label):
        # A rim of outside, so that the border of the volume does not count as inside.
        inside = np.pad(label == class_id, ((0, 0), (1, 1), (1, 1)))
        depth = ndimage.distance_transform_edt(inside, sampling=(1e6, 1.0, 1.0))[:, 1:-1, 1:-1]
        shrunk[depth > level] = class_id
    return shrunk


def flip(label: LabelMap) -> LabelMap:
    """The label map mirrored left to right: saved under another orientation than its image."""
    return label[:, :, ::-1].copy()


def drop_slices(label: LabelMap, *, level: float, generator: np.random.Generator) -> LabelMap:
    """A share `level` of the labelled slices emptied (rounded up): an annotator who did not finish.

    Low, medium, high: 0.1, 0.25, 0.5.
    """
    labelled = np.flatnonzero(label.any(axis=(1, 2)))
    emptied = generator.choice(labelled, size=math.ceil(level * len(labelled)), replace=False)
    incomplete = label.copy()
    incomplete[emptied] = 0
    return incomplete


def swap_classes(label: LabelMap, *, first: int, second: int) -> LabelMap:
    """Two class ids exchanged: left for right, or another label convention."""
    swapped = label.copy()
    swapped[label == first] = second
    swapped[label == second] = first
    return swapped


def label_of_another_case(label: LabelMap, *, other: LabelMap) -> LabelMap:
    """The label map of another case, stretched to this one's shape: files mixed up."""
    index = [
        np.minimum(((np.arange(size) + 0.5) * other_size / size).astype(np.intp), other_size - 1)
        for size, other_size in zip(label.shape, other.shape, strict=True)
    ]
    return other[np.ix_(*index)].astype(label.dtype)


def severity_dice(corrupt: LabelMap, clean: LabelMap) -> float:
    """Mean Dice of the corrupt label map with the clean one, over the classes in either; 1.0 where both are empty.

    The graded severity of a label fault: 1 = no harm, 0 = nothing left in its place.
    """
    dice = [
        2.0
        * np.count_nonzero((corrupt == class_id) & (clean == class_id))
        / (np.count_nonzero(corrupt == class_id) + np.count_nonzero(clean == class_id))
        for class_id in sorted(_classes(corrupt) | _classes(clean))
    ]
    return float(np.mean(dice)) if dice else 1.0


def _classes(label: LabelMap) -> set[int]:
    return {int(value) for value in np.unique(label)} - {0}
