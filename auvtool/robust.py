"""Deviation of a case from the other cases of its data set, of single numbers and of vectors."""

import warnings

import numpy as np
from jaxtyping import Float

_MAD_TO_DEVIATION = 1.4826  # of a normal distribution
_MEAN_TO_DEVIATION = 1.2533


def robust_z(values: Float[np.ndarray, "case ..."], *, limit: float) -> Float[np.ndarray, "case ..."]:
    """(x - median) / (1.4826 MAD) over the cases, clipped to [-limit, limit].

    Where more than half of the cases are equal the MAD is 0; the spread is then 1.2533 times the mean absolute
    deviation from the median, so that the few cases that differ stand out the more the fewer they are. A number that
    never differs, or that fewer than three cases have, has z = 0; a missing one stays nan.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numbers that no case has
        away = values - np.nanmedian(values, axis=0)
        spread = _MAD_TO_DEVIATION * np.nanmedian(np.abs(away), axis=0)
        by_mean = _MEAN_TO_DEVIATION * np.nanmean(np.abs(away), axis=0)
    rounding = 1e-9 * (1.0 + np.nanmax(np.abs(values), axis=0, initial=0.0))
    spread = np.where(spread > rounding, spread, by_mean)
    usable = (spread > rounding) & ((~np.isnan(values)).sum(axis=0) >= 3)
    z = np.where(usable, away / np.where(usable, spread, 1.0), np.where(np.isnan(values), np.nan, 0.0))
    return np.asarray(np.clip(z, -limit, limit))


def left_out_distance(vectors: Float[np.ndarray, "case feature"], *, ridge: float = 0.01) -> Float[np.ndarray, " case"]:
    """Squared distance of each vector from the others, in units of their scatter.

    d = (x - m)^T (S + k I)^-1 (x - m) with mean m and scatter S of the *other* cases and k = `ridge` times the number
    of cases, every feature first brought to unit variance. In closed form: with u = x - mean of all, S' the scatter of
    all, c = n / (n - 1) and q = u^T (S' + k I)^-1 u, d = c^2 q / (1 - c q) (Sherman and Morrison).

    Returns:
        At least 0; nan for a vector with a nan, and for all where fewer than four have none.
    """
    found = np.full(len(vectors), np.nan)
    usable = ~np.isnan(vectors).any(axis=1)
    n = int(usable.sum())
    if n < 4 or not vectors.shape[1]:
        return found
    centred = vectors[usable].astype(np.float64)
    centred -= centred.mean(axis=0)
    spread = centred.std(axis=0)
    varying = spread > 1e-12 * (1.0 + np.abs(vectors[usable]).max(axis=0))
    if not varying.any():
        found[usable] = 0.0
        return found
    u, s, _ = np.linalg.svd(centred[:, varying] / spread[varying], full_matrices=False)
    inside = (u**2 * (s**2 / (s**2 + ridge * n))).sum(axis=1)
    c = n / (n - 1)
    found[usable] = c**2 * inside / (1.0 - c * inside)
    return found
