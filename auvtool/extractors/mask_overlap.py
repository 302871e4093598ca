"""How a model's mask and the label overlap, counted in one go or part by part."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from auvtool.extractors import Agreement


@dataclass
class MaskOverlap:
    """Voxels of prediction, reference and both, over all parts that were added."""

    both: int = 0
    predicted: int = 0
    reference: int = 0

    def add(self, prediction: Bool[np.ndarray, "..."], reference: Bool[np.ndarray, "..."]) -> None:
        """Count a part."""
        self.both += int(np.count_nonzero(prediction & reference))
        self.predicted += int(np.count_nonzero(prediction))
        self.reference += int(np.count_nonzero(reference))

    def dice(self) -> float:
        """Dice; two empty masks are equal."""
        total = self.predicted + self.reference
        return 2 * self.both / total if total else 1.0

    def iou(self) -> float:
        """Intersection over union; two empty masks have none (ZeroDivisionError)."""
        return self.both / (self.predicted + self.reference - self.both)

    def log_ratio(self) -> float:
        """Log of predicted to reference voxels, each counted one more than it is: a mask may be empty."""
        return math.log((self.predicted + 1) / (self.reference + 1))


def agreement_of(mask: Bool[np.ndarray, "..."], region: Bool[np.ndarray, "..."]) -> Agreement:
    """The agreement of one mask with a class region that is not empty; what takes another prompt to know stays nan."""
    overlap = MaskOverlap()
    overlap.add(mask, region)
    return Agreement(dice=overlap.dice(), iou=overlap.iou(), log_ratio=overlap.log_ratio())
