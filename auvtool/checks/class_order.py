"""Rule of how classes lie to one another: a pair that changed sides against the other cases, along any body axis."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float

from auvtool.checks import Finding
from auvtool.checks.case_facts import CaseFacts
from auvtool.checks.sides import pairs_of_sides

_FEWEST_OTHERS = 4
_NEARLY_ALL = 0.8
_STEADY = 3.0  # median distance along an axis in units of its spread (1.4826 MAD)
_AXES = (("right of", "left of"), ("in front", "behind"), ("above", "below"))


@dataclass(frozen=True)
class _Change:
    """A pair of classes that lies the other way round in a case, and how far from the usual in units of the spread."""

    deviation: float
    name: str
    other: str
    axis: int
    usual_mm: float
    found_mm: float


def changed_places(cases: Sequence[CaseFacts], class_names: Sequence[str]) -> Iterator[Finding]:
    """Cases in which a pair of classes lies the other way round than in nearly all others; the clearest pair of each.

    Centroids are compared along the axes of RAS+ coordinates, only where the distance is steady over the cases: its
    median at least three times its spread. Pairs of left and right have a rule of their own.
    """
    clearest: dict[str, _Change] = {}
    for case_id, change in _changes(cases, class_names):
        if case_id not in clearest or change.deviation > clearest[case_id].deviation:
            clearest[case_id] = change
    for case in cases:
        found = clearest.get(case.case_id)
        if found is not None:
            yield Finding("L011", _described(found), case.case_id, file=case.label_file, class_name=found.other)


def _changes(cases: Sequence[CaseFacts], class_names: Sequence[str]) -> Iterator[tuple[str, _Change]]:
    names = [name for name in class_names if any(name in case.classes for case in cases)]
    places = np.full((len(cases), len(names), 3), np.nan)
    for row, case in zip(places, cases, strict=True):
        for column, name in enumerate(names):
            if name in case.classes:
                row[column] = case.classes[name].centroid_mm
    sides = {frozenset(pair) for pair in pairs_of_sides(names)}
    for one, other in combinations(range(len(names)), 2):
        if frozenset((names[one], names[other])) in sides:
            continue
        for position, axis, deviation, usual, found in _turned(places[:, other] - places[:, one]):
            yield cases[position].case_id, _Change(deviation, names[one], names[other], axis, usual, found)


def _described(change: _Change) -> str:
    plus, minus = _AXES[change.axis]
    usual, found = (plus, minus) if change.usual_mm > 0 else (minus, plus)
    return (
        f"expected {change.other} {usual} {change.name} as in the other cases (median {abs(change.usual_mm):.3g} mm), "
        f"got it {found}, {abs(change.found_mm):.3g} mm"
    )


def _turned(apart: Float[np.ndarray, "case 3"]) -> Iterator[tuple[int, int, float, float, float]]:
    """Case, axis, deviation, usual and found distance wherever the sign is not the steady sign of the others."""
    held = np.flatnonzero(~np.isnan(apart[:, 0]))
    if len(held) <= _FEWEST_OTHERS:
        return
    known = apart[held]
    median = np.median(known, axis=0)
    spread = np.maximum(1.4826 * np.median(np.abs(known - median), axis=0), 1e-3)
    wrong = np.sign(known) == -np.sign(median)
    rare = wrong.sum(axis=0) <= (1.0 - _NEARLY_ALL) * len(held)
    for axis in np.flatnonzero(rare & (np.abs(median) > _STEADY * spread)).tolist():
        for position in np.flatnonzero(wrong[:, axis]).tolist():
            found = float(known[position, axis])
            deviation = abs(found - float(median[axis])) / float(spread[axis])
            yield int(held[position]), axis, deviation, float(median[axis]), found
