"""Where the classes of a label map lie: the box of each, found in one pass, so that no class needs the whole volume."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from auvtool.arrays import LabelMap
from auvtool.slabs import slabs

Box: TypeAlias = tuple[slice, slice, slice]


def class_boxes(label: LabelMap, classes: Sequence[Sequence[int]]) -> list[Box | None]:
    """The smallest box around each class, given by its label values; None where it is absent."""
    highest = max((value for values in classes for value in values), default=0)
    # A highest value of 0 would make scipy look for it.
    found = ndimage.find_objects(label, max_label=highest) if highest > 0 else []
    boxes: list[Box | None] = []
    for values in classes:
        if min(values, default=1) < 1:  # scipy finds values from 1 on
            boxes.append(mask_box(class_mask(label, values)))
        else:
            boxes.append(union_of_boxes([found[value - 1] for value in values if found[value - 1] is not None]))
    return boxes


def class_mask(label: LabelMap, values: Sequence[int]) -> Bool[np.ndarray, "d h w"]:
    """Where a label map, or a part of one, holds one of some values."""
    mask = np.empty(label.shape, dtype=bool)
    for slab in slabs(label.shape):  # np.isin takes an index of 8 bytes for a voxel
        mask[slab] = label[slab] == values[0] if len(values) == 1 else np.isin(label[slab], values)
    return mask


def mask_box(mask: Bool[np.ndarray, "d h w"]) -> Box | None:
    """The smallest box around a mask; None where it is empty."""
    d, h, w = (np.flatnonzero(mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1)))
    if not d.size:
        return None
    return (_range(d), _range(h), _range(w))


def _range(indices: np.ndarray) -> slice:
    return slice(int(indices[0]), int(indices[-1]) + 1)


def union_of_boxes(boxes: Sequence[Box]) -> Box | None:
    """The smallest box around some boxes; None around none."""
    if not boxes:
        return None
    d, h, w = (slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)) for axis in range(3))
    return (d, h, w)
