"""How much probability the likeliest class of a voxel leaves to the others, over the annotated foreground of a case.

Per voxel this is the aleatoric part of EAOA (Zong and Huang, CVPR 2025), which ranks single images by it. The
background as a class of logit 0 and the mean over voxels are added here: a prompted model has one class at a time.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float


class ResidualProbability:
    """Mean of log(1 - p_max) over the foreground, p = softmax of 0 (background) and the logits of the classes.

    Classes come one after the other, so that their maps never stand in memory together: a pixel keeps its largest logit
    and the log-sum-exp of all others, from which log(1 - p_max) follows without a difference of nearly equal numbers.
    A class that was not decoded on a slice does not compete there.
    """

    def __init__(self) -> None:
        self._largest: dict[int, Float[np.ndarray, "h w"]] = {}
        self._others: dict[int, Float[np.ndarray, "h w"]] = {}
        self._foreground: dict[int, Bool[np.ndarray, "h w"]] = {}

    def add(
        self, logits: Float[np.ndarray, "slice h w"], region: Bool[np.ndarray, "slice h w"], slices: Iterable[int]
    ) -> None:
        """Add the map of one class, its region, and the numbers of the slices that its rows are."""
        for number, plane, inside in zip(map(int, slices), logits, region, strict=True):
            if number not in self._largest:
                self._largest[number] = np.zeros(plane.shape, dtype=np.float32)  # the background
                self._others[number] = np.full(plane.shape, -np.inf, dtype=np.float32)
                self._foreground[number] = np.zeros(plane.shape, dtype=bool)
            largest = self._largest[number]
            self._others[number] = np.logaddexp(self._others[number], np.minimum(largest, plane), dtype=np.float32)
            self._largest[number] = np.maximum(largest, plane)
            self._foreground[number] |= inside

    def mean_log(self) -> float:
        """The mean, at most log(1 - 1 / number of classes); nan without foreground."""
        values = [
            (self._others[number] - np.logaddexp(self._others[number], self._largest[number]))[inside]
            for number, inside in self._foreground.items()
        ]
        joined = np.concatenate([*values, np.empty(0)])
        return float(joined.mean(dtype=np.float64)) if joined.size else float("nan")
