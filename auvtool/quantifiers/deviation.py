"""How far all evidence of a case lies from what is usual in its data set, with no knowledge of any fault."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

_TOP_SHARE = 0.05
_POWER = 4.0


def most_deviant_class(z: Float[np.ndarray, "case name class"]) -> Float[np.ndarray, "case name"]:
    """The z of each name in the class where it is largest in magnitude; 0 where no class has one."""
    known = np.where(np.isnan(z), 0.0, z)
    place = np.abs(known).argmax(axis=2)
    return np.asarray(np.take_along_axis(known, place[..., None], axis=2)[..., 0])


def group_deviations(z: Float[np.ndarray, "case name"], groups: Sequence[str]) -> Float[np.ndarray, "case group"]:
    """How unusual each group of evidence is: the mean of log(1 + |z|) over its most deviant twentieth, at least one.

    A fault shows in few numbers of a group, so the others are not let speak against them; the logarithm keeps one
    number of a heavy tail from deciding alone. Groups stand in alphabetical order.
    """
    columns = []
    for group in sorted(set(groups)):
        of_group = np.sort(np.abs(z[:, [name == group for name in groups]]), axis=1)[:, ::-1]
        columns.append(np.log1p(of_group[:, : max(1, round(_TOP_SHARE * of_group.shape[1]))]).mean(axis=1))
    return np.stack(columns, axis=1)


def overall_deviation(of_groups: Float[np.ndarray, "case group"]) -> Float[np.ndarray, " case"]:
    """The groups together: their mean of power 4, near the most deviant of them, but raised by others."""
    return np.asarray((of_groups**_POWER).mean(axis=1) ** (1.0 / _POWER))


def deviation(z: Float[np.ndarray, "case name class"], groups: Sequence[str]) -> Float[np.ndarray, " case"]:
    """How unusual a case is: 0 where all its evidence is that of the median case.

    Args:
        z: robust z of each piece of evidence (see `auvtool.robust`).
        groups: of each name; a group counts once, however many names it has.
    """
    return overall_deviation(group_deviations(most_deviant_class(z), groups))
