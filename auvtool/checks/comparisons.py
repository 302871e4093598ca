"""Rules of a class in one case against the same class in the other cases; none with fewer than four others."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np

from auvtool.checks import Finding
from auvtool.checks.case_facts import CaseFacts, ClassFacts
from auvtool.checks.labels import FEW_VOXELS
from auvtool.robust import robust_z

_FEWEST_OTHERS = 4
# Of the other cases, for a class that is otherwise to be told: a fifth of a data set may have the same fault.
_NEARLY_ALL = 0.8
_NEARLY_ALL_IN_ONE_PIECE = 0.9
_VOLUME_Z = 6.0
_VOLUME_FACTOR = 4.0
_MANY_PIECES = 10
_MANY_TIMES = 3
_HOLE_SHARE, _NO_HOLE_SHARE = 0.02, 0.005
_ABRUPT, _TAPERED = 0.6, 0.35
_MOSTLY_IN_PADDING, _IN_PADDING, _HARDLY_IN_PADDING = 0.5, 0.1, 0.01
_IN_AIR, _HARDLY_IN_AIR = 0.6, 0.25

# A case, its class, and that class in the other cases.
_Item: TypeAlias = tuple[CaseFacts, ClassFacts, Sequence[ClassFacts]]


def class_comparisons(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    """What stands out in a class of a case, class by class in the order in which they were met."""
    names = dict.fromkeys(name for case in cases for name in case.classes)
    for name in names:
        holders = [case for case in cases if name in case.classes]
        everyone = [case.classes[name] for case in holders]
        yield from _volumes(name, holders)
        for position, case in enumerate(holders):
            item = (case, everyone[position], [*everyone[:position], *everyone[position + 1 :]])
            if item[1].n_voxels <= FEW_VOXELS:
                continue  # said already, and shapes of such say nothing
            for rule in (_pieces, _holes, _abrupt_ends, _outside):
                yield from rule(name, item)


def unused_classes(cases: Sequence[CaseFacts], class_names: Sequence[str]) -> Iterator[Finding]:
    """Classes that no label of several holds."""
    labelled = [case for case in cases if case.label_grid is not None]
    used = {name for case in labelled for name in case.classes}
    if len(labelled) < 2 or not used:
        return
    for name in class_names:
        if name not in used:
            what = f"expected {name} in some label, got none in {len(labelled)} labels"
            yield Finding("D005", what, file="dataset.json", class_name=name)


def _volumes(name: str, holders: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Robust z of the log volume beyond 6 and a factor of 4 from the median; small at the border is a part in view."""
    if len(holders) <= _FEWEST_OTHERS:
        return
    facts = [case.classes[name] for case in holders]
    logs = np.log([one.volume_mm3 for one in facts])
    z, median = robust_z(logs, limit=99.0), float(np.median(logs))
    for case, one, log, score in zip(holders, facts, logs.tolist(), z.tolist(), strict=True):
        factor = math.exp(abs(log - median))
        if abs(score) < _VOLUME_Z or factor < _VOLUME_FACTOR or (log < median and one.at_border):
            continue
        what = (
            f"expected about {math.exp(median) / 1000.0:.3g} ml of {name} (median of {len(facts)} cases), got "
            f"{one.volume_mm3 / 1000.0:.3g} ml (robust z of the logarithm {score:+.1f})"
        )
        yield Finding("L006", what, case.case_id, file=case.label_file, class_name=name)


def _pieces(name: str, item: _Item) -> Iterator[Finding]:
    case, one, others = item
    if len(others) < _FEWEST_OTHERS or one.n_pieces < 2:
        return
    counts = sorted(other.n_pieces for other in others)
    # As many as nearly all others have at most, and never more than a few times what the richest one has.
    usual = counts[math.ceil(_NEARLY_ALL_IN_ONE_PIECE * len(counts)) - 1]
    stray = usual == 1
    if not stray and (one.n_pieces < _MANY_PIECES or one.n_pieces <= _MANY_TIMES * counts[-1]):
        return
    what = (
        f"expected {name} in {'one piece' if usual == 1 else f'at most {counts[-1]} pieces'} as in nearly all other "
        f"cases, got {one.n_pieces}, the smallest of {one.smallest_piece} voxels"
    )
    place = one.smallest_piece_place
    yield Finding("L007", what, case.case_id, file=case.label_file, class_name=name, place=place)


def _holes(name: str, item: _Item) -> Iterator[Finding]:
    case, one, others = item
    if len(others) < _FEWEST_OTHERS or one.hole_share < _HOLE_SHARE:
        return
    if _nearly_all(others, lambda other: other.hole_share < _NO_HOLE_SHARE):
        what = (
            f"expected {name} without holes as in nearly all other cases, got {_percent(one.hole_share)} of its voxels"
        )
        place = one.hole_place
        yield Finding("L008", what, case.case_id, file=case.label_file, class_name=name, place=place)


def _abrupt_ends(name: str, item: _Item) -> Iterator[Finding]:
    case, one, others = item
    for side in (0, 1):
        area = one.ends[side]
        # Of the other cases only those whose end is in view.
        tapering = [end for other in others if (end := other.ends[side]) is not None]
        if area is None or area < _ABRUPT or len(tapering) < _FEWEST_OTHERS:
            continue
        if sum(end < _TAPERED for end in tapering) >= _NEARLY_ALL * len(tapering):
            what = (
                f"expected {name} to taper off as in nearly all other cases, got a last slice of {_percent(area)} of "
                "its largest"
            )
            place = one.end_places[side]
            yield Finding("L009", what, case.case_id, file=case.label_file, class_name=name, place=place)


def _outside(name: str, item: _Item) -> Iterator[Finding]:
    case, one, others = item
    share = one.padding_share or 0.0
    hardly = _nearly_all(others, lambda other: (other.padding_share or 0.0) < _HARDLY_IN_PADDING)
    if share > (_IN_PADDING if len(others) >= _FEWEST_OTHERS else _MOSTLY_IN_PADDING) and hardly:
        what = f"expected {name} on the scanned part of the image, got {_percent(share)} of it in padding"
        yield Finding("L010", what, case.case_id, file=case.label_file, class_name=name)
        return
    in_air = [other for other in others if other.air_share is not None]
    if one.air_share is None or one.air_share < _IN_AIR or len(in_air) < _FEWEST_OTHERS:
        return
    if _nearly_all(in_air, lambda other: (other.air_share or 0.0) < _HARDLY_IN_AIR):
        what = f"expected {name} on tissue as in nearly all other cases, got {_percent(one.air_share)} on dark voxels"
        yield Finding("L010", what, case.case_id, file=case.label_file, class_name=name)


def _nearly_all(others: Sequence[ClassFacts], holds: Callable[[ClassFacts], bool]) -> bool:
    return sum(map(holds, others)) >= _NEARLY_ALL * len(others)


def _percent(share: float) -> str:
    return f"{100.0 * share:.3g} %"
