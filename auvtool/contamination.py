"""Which cases of a clean data set are exchanged for their faulty copies."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ContaminationDraw:
    """A data set of which some cases are dirty.

    Attributes:
        dirty: position of a clean case -> position of the copy that stands in its place.
        n_cases: cases of the data set, clean and dirty.
        n_asked: dirty cases that the share asked for; there are fewer where not enough cases have a copy.
    """

    dirty: Mapping[int, int]
    n_cases: int
    n_asked: int

    @property
    def share(self) -> float:
        """Share of the cases that are dirty."""
        return len(self.dirty) / self.n_cases

    @property
    def clean(self) -> tuple[int, ...]:
        """Positions of the cases that stay."""
        return tuple(case for case in range(self.n_cases) if case not in self.dirty)

    def positions(self) -> tuple[int, ...]:
        """For each case of the data set the position of what stands there: itself, or its copy."""
        return tuple(self.dirty.get(case, case) for case in range(self.n_cases))


def draw_contaminations(
    copies: Mapping[int, Sequence[int]], *, n_cases: int, share: float, n_draws: int, generator: np.random.Generator
) -> tuple[ContaminationDraw, ...]:
    """Data sets of which a share is dirty, each with other dirty cases, drawn blindly.

    share * n_cases cases are dirty, rounded to the nearest (half up), at least one; all that have a copy if these are
    fewer, and one case fewer than all if every one would be dirty.

    Args:
        copies: position of a clean case (0 to n_cases - 1) -> positions of its copies. Of one kind of fault and one
            level a case has one; for mixed faults several, of which each draw takes one blindly. A case that is not in
            it, or has none, stays clean.
        n_cases: clean cases.
        share: wanted, above 0 and below 1.
        n_draws: data sets.
        generator: which cases and copies.

    Returns:
        None at all where no case has a copy, or there is one case only.

    Raises:
        ValueError: the share is not one, or a position is not that of a case.
    """
    if not 0.0 < share < 1.0:
        raise ValueError(f"expected a share between 0 and 1, got {share:g}")
    candidates = sorted(case for case, of_case in copies.items() if of_case)
    if candidates and not 0 <= candidates[0] <= candidates[-1] < n_cases:
        raise ValueError(f"expected positions of {n_cases} cases, got {candidates[0]} to {candidates[-1]}")
    n_asked = max(1, int(share * n_cases + 0.5))
    n_dirty = min(n_asked, len(candidates), n_cases - 1)
    if n_dirty < 1:
        return ()
    draws = []
    for _ in range(n_draws):
        chosen = sorted(int(case) for case in generator.choice(candidates, size=n_dirty, replace=False))
        dirty = {case: copies[case][int(generator.integers(len(copies[case])))] for case in chosen}
        draws.append(ContaminationDraw(dirty, n_cases, n_asked))
    return tuple(draws)


def halves(names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Distinct names in their order, cut in two; the first half has the odd one, and an empty half is left out."""
    distinct = tuple(dict.fromkeys(names))
    middle = (len(distinct) + 1) // 2
    return tuple(half for half in (distinct[:middle], distinct[middle:]) if half)
