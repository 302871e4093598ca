"""Overlap of a predicted and a reference label map, for all classes from one confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Int64, Integer

Confusion: TypeAlias = Int64[np.ndarray, "reference prediction"]
OverlapStatus: TypeAlias = Literal["ok", "absent", "false_alarm", "missed"]

_BLOCK_VOXELS = 1 << 19
_WORD_BYTES = 8
# With more runs than this the detour over run lengths costs more than it saves.
_MOST_RUNS = 0.4


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


class PairCounts:
    """Counts of voxels by (reference label, predicted label), taken block by block.

    Label maps have long runs of equal values: a block is cut into runs of one pair first and their lengths are counted.

    Args:
        n_labels: labels 0 to n_labels - 1 are told apart; all other values share the last row and column.
    """

    def __init__(self, n_labels: int) -> None:
        self._n_labels, self._side = n_labels, n_labels + 1
        self._counts = np.zeros(self._side**2)  # float64, which np.bincount sums lengths in: exact up to 2^53 voxels
        self._scratch = np.empty((2, 0), dtype=np.uint64)  # a fresh array for each block would cost as much as its use

    def add(self, reference: Integer[np.ndarray, " voxel"], prediction: Integer[np.ndarray, " voxel"]) -> None:
        """Count one block, of any integer types."""
        starts = self._run_starts(reference, prediction)
        if starts.size > _MOST_RUNS * reference.size:
            self._counts += np.bincount(self._codes(reference, prediction), minlength=self._counts.size)
            return
        lengths = np.empty(starts.size)
        np.subtract(starts[1:], starts[:-1], out=lengths[:-1])
        lengths[-1:] = reference.size - starts[-1:]
        codes = self._codes(reference.take(starts), prediction.take(starts))
        self._counts += np.bincount(codes, weights=lengths, minlength=self._counts.size)

    def matrix(self) -> Confusion:
        """(n_labels + 1, n_labels + 1) counts of what was added so far."""
        return self._counts.reshape(self._side, self._side).astype(np.int64)

    def _run_starts(self, reference: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Where the pair (reference, prediction) is another one than before, the first voxel included."""
        n_voxels = reference.size
        one, other = (values.view(f"u{values.dtype.itemsize}") for values in (reference, prediction))
        width = max(one.itemsize, other.itemsize)
        n_words = -(-n_voxels * width // _WORD_BYTES)
        if self._scratch.shape[1] < n_words:
            self._scratch = np.empty((2, n_words), dtype=np.uint64)
        words = self._scratch[0, :n_words]
        changes, changes_of_other = (row[:n_words].view(f"u{width}") for row in self._scratch)
        within = slice(1, n_voxels)
        np.bitwise_xor(one[1:], one[:-1], out=changes[within])
        np.bitwise_xor(other[1:], other[:-1], out=changes_of_other[within])
        np.bitwise_or(changes[within], changes_of_other[within], out=changes[within])
        changes[:1], changes[n_voxels:] = 1, 0
        # Most words are 0. The others are found first, and voxels looked for in those alone.
        changed_words = np.flatnonzero(words != 0)
        found = np.flatnonzero(words[changed_words].view(changes.dtype) != 0)
        per_word = _WORD_BYTES // width
        bits = per_word.bit_length() - 1  # of the place in a word
        starts = (changed_words << bits)[found >> bits]
        found &= per_word - 1
        starts += found
        return np.asarray(starts)

    def _codes(self, reference: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        codes = _limited(reference, self._n_labels).astype(np.intp)
        codes *= self._side
        codes += _limited(prediction, self._n_labels).astype(np.intp)
        return codes


def confusion_matrix(
    reference: Integer[np.ndarray, "..."], prediction: Integer[np.ndarray, "..."], *, n_labels: int
) -> Confusion:
    """Counts of voxels by (reference label, predicted label), one pass over the arrays in blocks (see `PairCounts`).

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
    flat_reference, flat_prediction = reference.reshape(-1), prediction.reshape(-1)
    counts = PairCounts(n_labels)
    for start in range(0, flat_reference.size, _BLOCK_VOXELS):
        block = slice(start, start + _BLOCK_VOXELS)
        counts.add(flat_reference[block], flat_prediction[block])
    return counts.matrix()


def _limited(values: np.ndarray, n_labels: int) -> np.ndarray:
    """Values outside 0 ... n_labels - 1 as n_labels."""
    if values.dtype.kind == "i":
        if values.dtype.itemsize == 1:
            values = values.astype(np.int16)
        values = values.view(f"u{values.dtype.itemsize}")  # a negative value becomes one above every label
    # A narrow type may not hold n_labels, nor then a value above it.
    return np.asarray(np.minimum(values, min(n_labels, np.iinfo(values.dtype).max)))


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
