"""Aleatoric uncertainty value: where a case lies on the axis that its data set spans (eq. 6)."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from auvtool.arrays import Scale

Side: TypeAlias = Literal["certain", "uncertain"]


@dataclass(frozen=True)
class AuvAxis:
    """The axis of eq. 6: smallest and largest coordinate of a data set, with what they were made with.

    Stored beside the AUV, so that a new case can be placed among the old ones.

    Args:
        minimum: smallest coordinate (of the scale S: log S); with a center the smallest distance from it.
        maximum: largest coordinate.
        high: whether a high coordinate means a certain or an uncertain case.
        range_eps: added to maximum - minimum. Eq. 6 has none; the released example adds 1e-8.
        center: two-sided: the coordinate from which distances are taken, and far means uncertain; None: one-sided.
    """

    minimum: float
    maximum: float
    high: Side
    range_eps: float = 0.0
    center: float | None = None


def log_coordinates(values: Scale, *, log_eps: float) -> Scale:
    """log(value + log_eps), the coordinate of eq. 6; nan stays nan.

    Raises:
        ValueError: a value is negative or infinite, or is 0 with log_eps 0.
    """
    values = np.asarray(values, dtype=np.float64)
    if np.isinf(values).any() or (values < 0).any():
        raise ValueError("expected finite values >= 0 for a logarithm, got others")
    if (values + log_eps <= 0.0).any():
        raise ValueError("expected values > 0 for a logarithm without eps, got 0")
    return np.asarray(np.log(values + log_eps))


# Coordinates that differ by less, relative to the largest (to 1 at least), are equal but for rounding.
_RESOLUTION = 1e-12


def fit_axis(coordinates: Scale, *, high: Side, range_eps: float = 0.0, two_sided: bool = False) -> AuvAxis | None:
    """The axis that the coordinates of a data set span; None when no case has one.

    Cases that differ by rounding only are equal: the axis then has no width.

    `two_sided` measures how far a case lies from the data set's median, on either side: some faults raise a quantifier
    and others lower it, and a one-sided axis takes half of them for the cleanest cases.
    """
    known = np.asarray(coordinates, dtype=np.float64)
    known = known[~np.isnan(known)]
    if known.size == 0:
        return None
    resolution = _RESOLUTION * max(1.0, float(np.abs(known).max()))
    center = float(np.median(known)) if two_sided else None
    if center is not None:
        known, high = np.abs(known - center), "uncertain"
    low, top = float(known.min()), float(known.max())
    return AuvAxis(low, top if top - low > resolution else low, high, range_eps, center)


def place(coordinates: Scale, axis: AuvAxis) -> Scale:
    """AUV of each coordinate on a given axis (eq. 6): 0 at its most certain case, 1 at its most uncertain one.

    With x the coordinate (or its distance from the axis' center) and t = (x - minimum) / (maximum - minimum +
    range_eps), AUV = 1 - t where high means certain (eq. 6, x = log S), t where high means uncertain.

    Returns:
        One AUV a coordinate, dimensionless; outside [0, 1] for a new case beyond the axis; nan where the coordinate is
        nan. Where all cases of the axis are equal (or there was one only) no case is more uncertain than another: nan,
        unless range_eps makes the division possible (then t = 0, as released).
    """
    values = np.asarray(coordinates, dtype=np.float64)
    if axis.center is not None:
        values = np.abs(values - axis.center)
    width = axis.maximum - axis.minimum + axis.range_eps
    if width <= 0.0:
        return np.full_like(values, np.nan)
    share = (values - axis.minimum) / width
    return np.asarray(1.0 - share if axis.high == "certain" else share)
