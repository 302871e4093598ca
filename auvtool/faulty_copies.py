"""Copies of clean cases with one known fault each: what is dealt out, and the answer key."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from auvtool.cases import Case, Dataset, Fault
from auvtool.corruption.kinds import KINDS
from auvtool.faults import copy_id


def choose_cases(dataset: Dataset, n_cases: int | None, *, seed: int) -> tuple[Case, ...]:
    """`n_cases` of the labelled cases, drawn blindly, sorted by id; all where None or more than there are."""
    labelled = [case for case in dataset.cases if case.label is not None]
    if n_cases is None or n_cases >= len(labelled):
        return tuple(labelled)
    chosen = np.random.default_rng([seed, 0]).choice(len(labelled), size=n_cases, replace=False)
    return tuple(labelled[index] for index in sorted(chosen))


def fault_combinations(kinds: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Each (kind, level) of the kinds named, or of all."""
    return [(name, level) for name, kind in KINDS.items() if not kinds or name in kinds for level in kind.levels]


def faulty_copies(
    cases: Sequence[Case], combinations: Sequence[tuple[str, str]], *, n_copies: int, seed: int
) -> tuple[Case, ...]:
    """`n_copies` copies of each case, each with one (kind, level), dealt so that all of them are used equally often.

    No case gets the same (kind, level) twice. The donor of a fault that needs another case's label is drawn from the
    others. A smaller `n_copies` gives a part of the copies of a larger one. Faults of labels come first for each case,
    because they share its image.

    Raises:
        ValueError: more copies a case than there are combinations.
    """
    if n_copies > len(combinations):
        raise ValueError(f"{n_copies} copies of a case for {len(combinations)} faults")
    generator = np.random.default_rng([seed, 1])
    dealt: list[list[Fault]] = [[] for _ in cases]
    n_used = np.zeros(len(combinations))
    used = np.zeros((len(cases), len(combinations)), dtype=bool)
    for _ in range(n_copies):
        for position in generator.permutation(len(cases)):
            # The least used of those that this case has not; the draw decides between equals.
            order = n_used + generator.random(len(combinations)) + np.where(used[position], np.inf, 0.0)
            card = int(np.argmin(order))
            n_used[card] += 1
            used[position, card] = True
            donor = int(generator.integers(len(cases) - 1)) if len(cases) > 1 else None
            kind, level = combinations[card]
            dealt[position].append(Fault(kind, level, seed, _label_of(cases, position, donor, kind)))
    copies = []
    for case, faults in zip(cases, dealt, strict=True):
        labels_first = sorted(faults, key=lambda fault: KINDS[fault.kind].of != "label")
        copies += [
            replace(case, case_id=copy_id(case.case_id, fault.kind, fault.level), fault=fault) for fault in labels_first
        ]
    return tuple(copies)


def donors(copies: Sequence[Case], cases: Sequence[Case]) -> dict[str, str]:
    """Id of each copy that carries another case's label -> id of that case."""
    owner = {case.label: case.case_id for case in cases if case.label is not None}
    return {
        copy.case_id: owner[copy.fault.donor]
        for copy in copies
        if copy.fault is not None and copy.fault.donor is not None
    }


def _label_of(cases: Sequence[Case], position: int, other: int | None, kind: str) -> Path | None:
    if kind != "other-label" or other is None:
        return None
    return cases[other + (other >= position)].label
