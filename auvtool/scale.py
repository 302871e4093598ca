"""Semantic perception scale of a spectrum (eqs 4 and 5), as the paper writes it and as its authors released it."""

from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from auvtool.arrays import Scale, Spectrum

Energy: TypeAlias = Literal["squared", "linear"]
EpsRule: TypeAlias = Literal["denominator", "added"]

# Eq. 4's eps only guards the division. Here it is relative to the largest energy, so that the scale ignores gain.
_EPS_DENOMINATOR = 1e-15
# What the released function adds to every singular value, whatever their size.
_EPS_ADDED = 1e-6


def semantic_perception_scale(
    spectrum: Spectrum, *, energy: Energy = "squared", eps_rule: EpsRule = "denominator"
) -> Scale:
    """Normalised entropy of each map's energy distribution (eq. 5).

    S = -sum(p log p) / log r, r the number of singular values. With eps_rule "denominator" (eq. 4 as written)
    p = e / (sum e + eps), where the energy e is s^2 ("squared") or s ("linear"). With eps_rule "added" (as released)
    every s becomes s + 1e-6 before e is taken, which lifts an all-zero map to 1, the most certain value there is.

    Args:
        spectrum: singular values in any order, the last axis over the r of one map.
        energy: what stands for the energy of a singular value.
        eps_rule: where the small constant stands.

    Returns:
        One scale a map, dimensionless, in [0, 1]: 0 at rank one, 1 at equal values; under "denominator" nan where all
        singular values are zero, for a map without variation has no scale.

    Raises:
        ValueError: a singular value is negative or not finite, or r < 2.
    """
    rank = np.shape(spectrum)[-1] if np.ndim(spectrum) else 0
    if rank < 2:
        raise ValueError(f"expected at least 2 singular values, got {rank}")
    shares = energy_shares(spectrum, energy=energy, eps_rule=eps_rule)
    # 0 log 0 = 0: the entropy's limit, and what a rank-one map needs; nan of a flat map stays.
    logarithms = np.log(shares, out=np.zeros_like(shares), where=shares > 0.0)
    return np.asarray(np.maximum(-(shares * logarithms).sum(axis=-1), 0.0) / np.log(rank))


def energy_shares(
    spectrum: Spectrum, *, energy: Energy = "squared", eps_rule: EpsRule = "denominator"
) -> Float[np.ndarray, "*class rank"]:
    """Energy distribution p of the singular values of each map (eq. 4); arguments as in `semantic_perception_scale`.

    Returns:
        Shares, dimensionless, with sum 1 a map (less eps), in the order of the spectrum; nan where all are zero.

    Raises:
        ValueError: a singular value is negative or not finite.
    """
    values = np.asarray(spectrum, dtype=np.float64)
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError("expected finite singular values >= 0, got others")
    if eps_rule == "added":
        return _shares(values + _EPS_ADDED, energy=energy, eps=0.0)
    largest = values.max(axis=-1, keepdims=True, initial=0.0)
    flat = largest == 0.0
    # Dividing by the largest value first keeps the squares from underflow and overflow.
    shares = _shares(values / np.where(flat, 1.0, largest), energy=energy, eps=_EPS_DENOMINATOR)
    return np.asarray(np.where(flat, np.nan, shares))


def _shares(values: Spectrum, *, energy: Energy, eps: float) -> Spectrum:
    energies = np.square(values) if energy == "squared" else values
    return np.asarray(energies / (energies.sum(axis=-1, keepdims=True) + eps))
