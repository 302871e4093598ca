"""Which cases to keep (equations 7 to 9)."""

from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float

Combination: TypeAlias = Literal["union", "intersection"]


def auv_threshold(auv: Float[np.ndarray, " case"], quantile: float) -> float:
    """F^-1(q), the smallest AUV that at least a share `quantile` of the cases does not exceed (eq. 7).

    It is always the AUV of a case: of n in ascending order the first, the k-th, with F = k / n >= q. Both sides are
    rounded once, so that equal fractions are equal: 0.28 of 25 cases is the seventh, as is 7 / 25. (numpy's
    `inverted_cdf` multiplies instead, 0.28 * 25 = 7.000000000000001, and takes the eighth.) Cases without an AUV (nan)
    are not counted; nan if no case has one.

    Raises:
        ValueError: `quantile` is not in (0, 1].
    """
    if not 0.0 < quantile <= 1.0:
        raise ValueError(f"a quantile lies in (0, 1], got {quantile}")
    judged = np.sort(auv[~np.isnan(auv)])
    if not judged.size:
        return float("nan")
    shares = np.arange(1, judged.size + 1) / judged.size
    return float(judged[np.searchsorted(shares, quantile)])


def filter_cases(auv: Float[np.ndarray, " case"], quantile: float) -> Bool[np.ndarray, " case"]:
    """D* of eq. 8: the cases whose AUV is at most F^-1(q), and those that could not be judged (nan).

    Cases of equal AUV stay or go together, so more than a share `quantile` may be kept.
    """
    # nan compares as false, so what is not judged is not above.
    return np.asarray(~(auv > auv_threshold(auv, quantile)))


def filter_by_class(
    auv: Float[np.ndarray, "case class"], quantile: float, *, combination: Combination
) -> Bool[np.ndarray, " case"]:
    """D* of eq. 9 from the AUV of every class, nan where a class is absent from a case.

    "union" is eq. 9 as written: a case stays if any class keeps it, so only a case that all its classes would drop
    goes. "intersection" keeps a case only if all its classes do. A class votes on the cases that hold it, by the
    quantile of those; a case without any class was not judged, and stays.
    """
    present = ~np.isnan(auv)
    kept_by_class = np.stack([filter_cases(column, quantile) for column in auv.T], axis=1)
    if combination == "union":
        votes = (kept_by_class & present).any(axis=1) | ~present.any(axis=1)
    else:
        votes = (kept_by_class | ~present).all(axis=1)
    return np.asarray(votes)
