"""Singular values of an unfolded map through its float64 Gram matrix, without a float64 copy of the map.

A map (d, h, w) is unfolded to a matrix whose rows run along one axis and whose columns are all the rest. The Gram
matrix Z Z^T is at most a few hundred rows wide, so its eigenvalues cost little; in float64 the singular values above
1e-8 of the largest are right, those below are rounding. (In float32 the scale of a nearly constant map would be noise.)
"""

import math
from collections.abc import Iterator
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float

from auvtool.arrays import Volume

Unfolding: TypeAlias = Literal["d_hw", "h_dw", "w_dh"]
Centering: TypeAlias = Literal["centered", "uncentered"]
UNFOLDINGS: tuple[Unfolding, ...] = get_args(Unfolding)
CENTERINGS: tuple[Centering, ...] = get_args(Centering)

_CHUNK_VALUES = 1 << 20  # float64 values converted at once: 8 MiB


def map_spectra(volume: Volume) -> dict[tuple[Unfolding, Centering], Float[np.ndarray, " rank"]]:
    """Singular values of the three unfoldings of one map, each centred and not (eq. 2).

    "uncentered" is the singular values of the unfolded map Z itself; "centered" those of Z with each row's mean
    subtracted, whose squares are the eigenvalues of the covariance in eq. 2 times the number of columns.

    Args:
        volume: one decoded map; any float type, any unit.

    Returns:
        For each unfolding and centring the min(rows, columns) singular values, largest first, in the map's unit.

    Raises:
        ValueError: the map is empty or holds a NaN or infinity.
    """
    return {
        (unfolding, centering): values
        for unfolding in UNFOLDINGS
        for centering, values in unfolding_spectra(volume, unfolding).items()
    }


def unfolding_spectra(volume: Volume, unfolding: Unfolding) -> dict[Centering, Float[np.ndarray, " rank"]]:
    """Singular values of one unfolding, centred and not, from one Gram matrix; see `map_spectra`."""
    if volume.size == 0:
        raise ValueError(f"a map of shape {volume.shape} has no singular values")
    n_columns = volume.size // volume.shape[UNFOLDINGS.index(unfolding)]
    with np.errstate(invalid="ignore", over="ignore"):  # checked below
        centered, means = _centered_gram(volume, unfolding)
    if not np.isfinite(centered).all():
        raise ValueError("the map holds a NaN, an infinity or values whose squares overflow")
    # Z Z^T = (Z - m 1^T)(Z - m 1^T)^T + n m m^T: adding the means back loses nothing, taking them out would.
    uncentered = centered + n_columns * np.outer(means, means)
    rank = min(len(means), n_columns)
    return {"centered": singular_values(centered, rank), "uncentered": singular_values(uncentered, rank)}


def singular_values(gram: Float[np.ndarray, "row row"], rank: int) -> Float[np.ndarray, " rank"]:
    """The `rank` largest singular values of Z, largest first, from Z Z^T; rounding below zero is set to zero."""
    eigenvalues = np.linalg.eigvalsh(gram)[::-1][:rank]
    return np.sqrt(np.maximum(eigenvalues, 0.0))


def _centered_gram(volume: Volume, unfolding: Unfolding) -> tuple[np.ndarray, np.ndarray]:
    """Gram matrix of the rows less their means, and the means."""
    n_rows = volume.shape[UNFOLDINGS.index(unfolding)]
    # Means are taken about each row's first value, so that a constant row comes out centred to exactly zero.
    origin = np.moveaxis(volume, UNFOLDINGS.index(unfolding), 0)[:, 0, 0].astype(np.float64)[:, None]
    sums = np.zeros(n_rows)
    for columns in _column_blocks(volume, unfolding):
        sums += (columns - origin).sum(axis=1)
    means = origin[:, 0] + sums / (volume.size // n_rows)
    gram = np.zeros((n_rows, n_rows))
    for columns in _column_blocks(volume, unfolding):
        centered = columns - means[:, None]
        gram += centered @ centered.T
    return gram, means


def _column_blocks(volume: Volume, unfolding: Unfolding) -> Iterator[np.ndarray]:
    """The unfolded map as float64, a block of columns at a time."""
    row_axis = UNFOLDINGS.index(unfolding)
    block_axis = 1 if row_axis == 0 else 0
    step = max(1, _CHUNK_VALUES * volume.shape[block_axis] // volume.size)
    for start in range(0, volume.shape[block_axis], step):
        block = volume[:, start : start + step] if block_axis == 1 else volume[start : start + step]
        yield np.moveaxis(block, row_axis, 0).astype(np.float64).reshape(volume.shape[row_axis], -1)


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
