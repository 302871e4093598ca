"""Rule of left and right: a pair of classes that differ in that word, and how they lie in the patient."""

import re
from collections.abc import Iterator, Sequence

from auvtool.checks import Finding
from auvtool.checks.case_facts import CaseFacts

_LEFT = re.compile(r"(?<![a-z])(left|l)(?![a-z])", re.IGNORECASE)
_RIGHT = {"left": "right", "l": "r"}
_MOST = 0.75
_FEWEST_OTHERS = 4


def pairs_of_sides(names: Sequence[str]) -> list[tuple[str, str]]:
    """Names that differ in left and right (or l and r as words of their own), as (left, right)."""
    lower = {name.lower(): name for name in names}
    pairs = []
    for name in names:
        for match in _LEFT.finditer(name):
            other = name[: match.start()] + _RIGHT[match[0].lower()] + name[match.end() :]
            if other.lower() in lower:
                pairs.append((name, lower[other.lower()]))
    return pairs


def left_right(cases: Sequence[CaseFacts], class_names: Sequence[str]) -> Iterator[Finding]:
    """Cases in which a pair lies the other way round than in most, by its centroids in RAS+ coordinates.

    Where most cases, or the few that there are, have left on the patient's right, one line says so of the data set.
    """
    for left, right in pairs_of_sides(class_names):
        both = [case for case in cases if left in case.classes and right in case.classes]
        # x grows towards the patient's right in RAS+ coordinates: left has the smaller one.
        apart = {case.case_id: case.classes[right].centroid_mm[0] - case.classes[left].centroid_mm[0] for case in both}
        turned = [case for case in both if apart[case.case_id] < 0]
        if not turned:
            continue
        n_usual = max(len(turned), len(both) - len(turned))
        is_usual = len(turned) == n_usual
        if is_usual or n_usual < _MOST * len(both):
            what = f"expected {left} left of {right} in the patient, got it right of it in {len(turned)} of {len(both)}"
            yield Finding("D004", what + " cases; are names or headers wrong?", class_name=left)
        if n_usual < _MOST * len(both) or (is_usual and n_usual < _FEWEST_OTHERS):
            continue
        odd = [case for case in both if (apart[case.case_id] < 0) != is_usual]
        for case in odd:
            side = "left" if is_usual else "right"
            what = (
                f"expected {left} as in most other cases, got it {side} of {right}, {abs(apart[case.case_id]):.3g} mm"
            )
            yield Finding("D004", what, case.case_id, file=case.label_file, class_name=left)
