"""Aleatoric uncertainty value: the scale of each case on the axis that its data set spans (eq. 6)."""

from dataclasses import dataclass

import numpy as np

from auvtool.arrays import Scale


@dataclass(frozen=True)
class AuvAxis:
    """The axis of eq. 6: smallest and largest log S of a data set, with the constants it was made with.

    Stored beside the AUV, so that a new case can be placed among the old ones.

    Args:
        log_min: smallest log(S + log_eps).
        log_max: largest log(S + log_eps).
        log_eps: added to S before the logarithm.
        range_eps: added to log_max - log_min. Eq. 6 has none; the released example adds 1e-8.
    """

    log_min: float
    log_max: float
    log_eps: float
    range_eps: float = 0.0


def fit_axis(scales: Scale, *, log_eps: float, range_eps: float = 0.0) -> AuvAxis | None:
    """The axis that a data set's scales span; None when no case has a scale.

    Raises:
        ValueError: see `place`.
    """
    logarithms = _log(scales, log_eps)
    logarithms = logarithms[~np.isnan(logarithms)]
    if logarithms.size == 0:
        return None
    return AuvAxis(float(logarithms.min()), float(logarithms.max()), log_eps, range_eps)


def place(scales: Scale, axis: AuvAxis) -> Scale:
    """AUV of each scale on a given axis (eq. 6): 0 at its most certain case, 1 at its most uncertain one.

    AUV = 1 - (log S - log_min) / (log_max - log_min + range_eps), log S with the axis' own log_eps.

    Returns:
        One AUV a scale, dimensionless; outside [0, 1] for a new case beyond the axis; nan where the scale is nan. Where
        all cases of the axis are equal (or there was one only) no case is more uncertain than another: nan, unless
        range_eps makes the division possible (then 1, as released).

    Raises:
        ValueError: a scale is negative or infinite, or is 0 with log_eps 0.
    """
    logarithms = _log(scales, axis.log_eps)
    width = axis.log_max - axis.log_min + axis.range_eps
    if width <= 0.0:
        return np.full_like(logarithms, np.nan)
    return np.asarray(1.0 - (logarithms - axis.log_min) / width)


def _log(scales: Scale, log_eps: float) -> Scale:
    values = np.asarray(scales, dtype=np.float64)
    if np.isinf(values).any() or (values < 0).any():
        raise ValueError("expected finite scales >= 0, got others")
    if (values + log_eps <= 0.0).any():
        raise ValueError("expected scales > 0 for a logarithm without eps, got 0")
    return np.asarray(np.log(values + log_eps))
