"""What a spectrum is taken of, and the spectrum of a feature matrix from sums over its voxels.

A map (d, h, w) is unfolded to a matrix whose rows run along one axis and whose columns are all the rest;
`auvtool.gram` has its singular values. Here stands what needs no torch.
"""

import math
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float

Unfolding: TypeAlias = Literal["d_hw", "h_dw", "w_dh"]
Centering: TypeAlias = Literal["centered", "uncentered"]
UNFOLDINGS: tuple[Unfolding, ...] = get_args(Unfolding)
CENTERINGS: tuple[Centering, ...] = get_args(Centering)

_CHUNK_VALUES = 1 << 20  # float64 values converted at once: 8 MiB


def singular_values(gram: Float[np.ndarray, "row row"], rank: int) -> Float[np.ndarray, " rank"]:
    """The `rank` largest singular values of Z, largest first, from Z Z^T; rounding below zero is set to zero."""
    eigenvalues = np.linalg.eigvalsh(gram)[::-1][:rank]
    return np.sqrt(np.maximum(eigenvalues, 0.0))


class FeatureMoments:
    """Sums over voxels from which the mean and the spectrum of a feature matrix (feature x voxel) follow.

    Voxels are added a batch at a time, so the feature maps of a case never stand in memory together.
    """

    def __init__(self, n_features: int) -> None:
        self.n_voxels = 0
        self._origin = np.zeros(n_features)
        self._sums = np.zeros(n_features)
        self._gram = np.zeros((n_features, n_features))

    def add(self, features: Float[np.ndarray, "feature voxel"]) -> None:
        """Add voxels.

        Raises:
            ValueError: a feature is NaN or infinite.
        """
        if features.shape[1] == 0:
            return
        if not np.isfinite(features).all():
            raise ValueError("a feature is NaN or infinite")
        if self.n_voxels == 0:
            # Sums about a point of the cloud keep the digits that sums about zero would lose.
            self._origin = features[:, 0].astype(np.float64)
        step = max(1, _CHUNK_VALUES // features.shape[0])
        for start in range(0, features.shape[1], step):
            block = features[:, start : start + step].astype(np.float64) - self._origin[:, None]
            self._sums += block.sum(axis=1)
            self._gram += block @ block.T
        self.n_voxels += features.shape[1]

    def mean(self) -> Float[np.ndarray, " feature"]:
        """Mean of each feature over the voxels; nan where there are none."""
        if self.n_voxels == 0:
            return np.full_like(self._sums, math.nan)
        return self._origin + self._sums / self.n_voxels

    def spectrum(self, centering: Centering) -> Float[np.ndarray, " feature"]:
        """Singular values of the feature matrix, largest first, zeros past its rank; nan where there are no voxels."""
        if self.n_voxels == 0:
            return np.full_like(self._sums, math.nan)
        shift = self._sums / self.n_voxels
        gram = self._gram - self.n_voxels * np.outer(shift, shift)
        if centering == "uncentered":
            gram += self.n_voxels * np.outer(self.mean(), self.mean())
        values = np.zeros_like(self._sums)
        rank = min(len(values), self.n_voxels)
        values[:rank] = singular_values(gram, rank)
        return values
