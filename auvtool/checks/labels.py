"""Rules of the label of one case: its values, and what is wrong with a class whatever the other cases look like."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Bool

from auvtool.arrays import LabelMap
from auvtool.checks import Finding, Source
from auvtool.dataset_json import SemanticClass
from auvtool.slabs import slabs

FEW_VOXELS = 3  # of a class that is no structure
_SAME_PIECE = 0.5  # Dice of the slices on both sides of a gap
_SHOWN_VALUES = 5


def whole_number_findings(of: Source, voxels: np.ndarray, places: Sequence[int]) -> Iterator[Finding]:
    """Voxels of a label file (d, h, w) that are no whole numbers, NaN among them."""
    if voxels.dtype.kind != "f":
        return
    n_wrong, example, first = 0, 0.0, None
    for slab in slabs(voxels.shape):
        part = voxels[slab]
        wrong = ~np.isfinite(part) | (part != np.rint(part))
        if wrong.any():
            n_wrong += int(wrong.sum())
            if first is None:
                first, example = slab.start + int(np.flatnonzero(wrong.any(axis=(1, 2)))[0]), float(part[wrong][0])
    if first is not None:
        what = f"expected whole numbers, got {n_wrong} voxels like {example:g}"
        yield of.finding("L001", what, place=places[first])


def label_map(voxels: np.ndarray) -> LabelMap:
    """The label map of a file's voxels (d, h, w) as contiguous int16 or int32; what is no whole number becomes 0."""
    parts = [_bounds(voxels[slab]) for slab in slabs(voxels.shape)]
    lowest, highest = min(low for low, _ in parts), max(high for _, high in parts)
    fits = np.iinfo(np.int16).min <= lowest and highest <= np.iinfo(np.int16).max
    label = np.empty(voxels.shape, dtype=np.int16 if fits else np.int32)
    for slab in slabs(voxels.shape):
        part = voxels[slab]
        if part.dtype.kind == "f":
            part = np.where(np.isfinite(part) & (part == np.rint(part)), part, 0)
        limits = np.iinfo(np.int32)
        label[slab] = part if fits else np.clip(part, limits.min, limits.max)
    return label


def value_findings(of: Source, label: LabelMap, known: frozenset[int]) -> Iterator[Finding]:
    """Values that dataset.json does not name, and a label without any foreground."""
    values: set[int] = set()
    for slab in slabs(label.shape):
        values.update(np.unique(label[slab]).tolist())
    strange = sorted(values - known)
    if strange:
        shown = ", ".join(map(str, strange[:_SHOWN_VALUES])) + (", ..." if len(strange) > _SHOWN_VALUES else "")
        what = f"expected only the labels of dataset.json (0 to {max(known)}), got {shown}"
        yield of.finding("L002", what)
    if values <= {0}:
        yield of.finding("L003", "expected some foreground, got none")


def label_key(label: LabelMap) -> str | None:
    """A hash of a label map; None if it is empty."""
    digest, empty = hashlib.blake2b(str(label.shape).encode(), digest_size=16), True
    for slab in slabs(label.shape):
        part = np.ascontiguousarray(label[slab], dtype=np.int32)
        empty = empty and not part.any()
        digest.update(part.tobytes())
    return None if empty else digest.hexdigest()


def few_voxels(
    of: Source, one: SemanticClass, mask: Bool[np.ndarray, "d h w"], place: int, *, at_border: bool
) -> Iterator[Finding]:
    """A class of hardly a voxel, which a slip of the pen leaves; at the border it may be the end of a structure."""
    n = int(np.count_nonzero(mask))
    if n <= FEW_VOXELS and not at_border:
        what = f"expected a structure, got {n} voxel{'s' * (n > 1)} of {one.name}"
        yield of.finding("L004", what, class_name=one.name, place=place)


def gaps(of: Source, one: SemanticClass, mask: Bool[np.ndarray, "d h w"], places: Sequence[int]) -> Iterator[Finding]:
    """Empty slices between two that show the same piece of a class (Dice of at least 0.5), one line a class.

    Args:
        of: the case and the file.
        one: the class.
        mask: where it is, within its box.
        places: for each slice of the mask its index in the file.
    """
    shown = np.flatnonzero(mask.any(axis=(1, 2)))
    missing: list[int] = []
    for before, after in pairwise(shown.tolist()):
        if after - before > 1 and _dice(mask[before], mask[after]) >= _SAME_PIECE:
            missing += range(before + 1, after)
    if missing:
        n = len(missing)
        what = f"expected {one.name} in slices between its own, got {n} without it"
        yield of.finding("L005", what, class_name=one.name, place=places[missing[0]])


def _dice(one: Bool[np.ndarray, "h w"], other: Bool[np.ndarray, "h w"]) -> float:
    return 2.0 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def _bounds(part: np.ndarray) -> tuple[float, float]:
    finite = part[np.isfinite(part)] if part.dtype.kind == "f" else part
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
