"""How far all evidence of a case lies from what is usual in its data set, with no knowledge of any fault."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

_TOP_SHARE = 0.05
_POWER = 4.0


def most_deviant_class(z: Float[np.ndarray, "case name class"]) -> Float[np.ndarray, "case name"]:
    """The z of each name in the class where it is largest in magnitude; nan where no class has one."""
    place = np.where(np.isnan(z), -1.0, np.abs(z)).argmax(axis=2)
    return np.asarray(np.take_along_axis(z, place[..., None], axis=2)[..., 0])


def group_deviations(z: Float[np.ndarray, "case name"], groups: Sequence[str]) -> Float[np.ndarray, "case group"]:
    """How unusual each group of evidence is: the mean of log(1 + |z|) over its most deviant twentieth, at least one.

    A fault shows in few numbers of a group, so the others are not let speak against them; the logarithm keeps one
    number of a heavy tail from deciding alone. Groups stand in alphabetical order; nan where a case has no number of
    the group, as one whose label is empty has no label shape.
    """
    columns = []
    for group in sorted(set(groups)):
        of_group = -np.sort(-np.abs(z[:, [name == group for name in groups]]), axis=1)  # nan last
        top = np.log1p(of_group[:, : max(1, round(_TOP_SHARE * of_group.shape[1]))])
        n = (~np.isnan(top)).sum(axis=1)
        columns.append(np.where(n > 0, np.nansum(top, axis=1) / np.maximum(n, 1), np.nan))
    return np.stack(columns, axis=1)


def overall_deviation(of_groups: Float[np.ndarray, "case group"]) -> Float[np.ndarray, " case"]:
    """The groups that a case has, together: their mean of power 4, near the most deviant one, but raised by others."""
    n = (~np.isnan(of_groups)).sum(axis=1)
    mean = np.nansum(of_groups**_POWER, axis=1) / np.maximum(n, 1)
    return np.asarray(np.where(n > 0, mean ** (1.0 / _POWER), np.nan))


def deviation(z: Float[np.ndarray, "case name class"], groups: Sequence[str]) -> Float[np.ndarray, " case"]:
    """How unusual a case is: 0 where all its evidence is that of the median case.

    Args:
        z: robust z of each piece of evidence (see `auvtool.robust`).
        groups: of each name; a group counts once, however many names it has.
    """
    return overall_deviation(group_deviations(most_deviant_class(z), groups))


def class_deviations(
    z: Float[np.ndarray, "case name class"], groups: Sequence[str], of_case: Bool[np.ndarray, " name"]
) -> Float[np.ndarray, "class case"]:
    """How unusual each class is: `deviation` of its own evidence alone, without what is of the whole case."""
    own = np.flatnonzero(~of_case)
    of_own = [group for group, mark in zip(groups, of_case, strict=True) if not mark]
    return np.stack([deviation(z[:, own, c : c + 1], of_own) for c in range(z.shape[2])])
