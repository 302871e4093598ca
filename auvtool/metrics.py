"""Overlap of a predicted and a reference label map, for all classes from one confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Int64, Integer

Confusion: TypeAlias = Int64[np.ndarray, "reference prediction"]
OverlapStatus: TypeAlias = Literal["ok", "absent", "false_alarm", "missed"]

_BLOCK_VOXELS = 1 << 20
# With more runs than this the detour over run lengths costs more than it saves.
_MOST_RUNS = 0.1


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of one class (or region) in one case.

    dice = 2 TP / (2 TP + FP + FN) and iou = TP / (TP + FP + FN) are None where the class is in neither map: nothing was
    there to find and nothing was found, so the case says nothing about the class. A false alarm and a miss count 0.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def status(self) -> OverlapStatus:
        if self.tp + self.fp + self.fn == 0:
            return "absent"
        if self.tp + self.fn == 0:
            return "false_alarm"
        return "missed" if self.tp + self.fp == 0 else "ok"

    @property
    def dice(self) -> float | None:
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else None

    @property
    def iou(self) -> float | None:
        union = self.tp + self.fp + self.fn
        return self.tp / union if union else None


def confusion_matrix(
    reference: Integer[np.ndarray, "..."], prediction: Integer[np.ndarray, "..."], *, n_labels: int
) -> Confusion:
    """Counts of voxels by (reference label, predicted label), one pass over the arrays in blocks.

    Label maps have long runs of equal values: a block is cut into runs first and their lengths are counted.

    Args:
        reference: label map; any integer type.
        prediction: label map of the same shape.
        n_labels: labels 0 to n_labels - 1 are told apart; all other values share the last row and column.

    Returns:
        (n_labels + 1, n_labels + 1) int64.

    Raises:
        ValueError: the shapes differ.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"expected maps of one shape, got {reference.shape} and {prediction.shape}")
    side = n_labels + 1
    code_type = np.uint16 if side * side <= 1 << 16 else np.uint32
    flat_reference, flat_prediction = reference.reshape(-1), prediction.reshape(-1)
    counts = np.zeros(side * side, dtype=np.int64)
    for start in range(0, flat_reference.size, _BLOCK_VOXELS):
        block = slice(start, start + _BLOCK_VOXELS)
        codes = _limited(flat_reference[block], n_labels).astype(code_type)
        np.multiply(codes, code_type(side), out=codes)
        np.add(codes, _limited(flat_prediction[block], n_labels).astype(code_type), out=codes)
        counts += _count(codes, side * side)
    return counts.reshape(side, side)


def _limited(values: np.ndarray, n_labels: int) -> np.ndarray:
    """Values outside 0 ... n_labels - 1 as n_labels."""
    if values.dtype.kind == "i":
        if values.dtype.itemsize == 1:
            values = values.astype(np.int16)
        values = values.view(f"u{values.dtype.itemsize}")  # a negative value becomes one above every label
    # A narrow type may not hold n_labels, nor then a value above it.
    return np.asarray(np.minimum(values, min(n_labels, np.iinfo(values.dtype).max)))


def _count(codes: np.ndarray, n_codes: int) -> np.ndarray:
    changes = np.flatnonzero(codes[1:] != codes[:-1])
    if changes.size > _MOST_RUNS * codes.size:
        return np.bincount(codes, minlength=n_codes)
    starts = np.concatenate(([0], changes + 1))
    lengths = np.diff(np.append(starts, codes.size))
    # float64 weights count exactly far beyond the size of a block
    return np.bincount(codes[starts], weights=lengths, minlength=n_codes).astype(np.int64)


def overlap(confusion: Confusion, labels: Sequence[int], *, ignore_label: int | None = None) -> Overlap:
    """Counts of one class, or of a region of several labels, against everything else.

    Args:
        confusion: see `confusion_matrix`.
        labels: the label values that make the class.
        ignore_label: voxels with this label in the reference count nowhere.
    """
    counted = confusion if ignore_label is None else np.delete(confusion, ignore_label, axis=0)
    inside = sorted(set(labels))  # below the ignore label, which is the highest
    tp = int(counted[np.ix_(inside, inside)].sum())
    n_reference, n_prediction = int(counted[inside].sum()), int(counted[:, inside].sum())
    fp, fn = n_prediction - tp, n_reference - tp
    return Overlap(tp=tp, fp=fp, fn=fn, tn=int(counted.sum()) - tp - fp - fn)
