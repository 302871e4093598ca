"""Scored cases from a SCORES table: ranked, with their classes, and what the table says of classes and sizes."""

from collections.abc import Mapping, Sequence

import numpy as np

from auvtool.correlation import partial_spearman
from auvtool.errors import InputError
from auvtool.keep_list import KeepList, judge
from auvtool.report.page import NONE, ClassScore, Distribution, ScoredCase, SizePlot, Table, number, table
from auvtool.schema import Cell, Row


def check_scores(rows: Sequence[Row], where: object) -> None:
    """Refuse a table that is not of one scoring, or in which a case stands twice or has no row of its own.

    Raises:
        InputError: see above.
    """
    ways = sorted({f"{row['quantifier']} ({row['method']})" for row in rows})
    if len(ways) > 1:
        raise InputError(
            where, expected="scores of one run", found=" and ".join(ways[:2]), cure="report each of them by itself"
        )
    judge(rows, 1.0)  # checks the rows


def scored_cases(rows: Sequence[Row], keep: KeepList | None) -> tuple[ScoredCase, ...]:
    """The cases of a checked SCORES table, the most uncertain first, those without an AUV last."""
    classes: dict[str, list[ClassScore]] = {}
    for row in rows:
        if isinstance(row["class_id"], int):
            classes.setdefault(str(row["case"]), []).append(
                ClassScore(
                    row["class_id"],
                    str(row["class_name"]),
                    str(row["status"]),
                    _float(row["value"]),
                    _float(row["auv"]),
                    _float(row["volume_ml"]),
                    _int(row["n_slices"]),
                )
            )
    whole = [row for row in rows if row["class_id"] is None]
    placed = np.sort([float(row["auv"]) for row in whole if isinstance(row["auv"], float)])
    thirds = _thirds({str(row["case"]): _float(row["volume_ml"]) for row in whole})
    cases = []
    for row in whole:
        case_id, auv = str(row["case"]), _float(row["auv"])
        cases.append(
            ScoredCase(
                case_id,
                str(row["status"]),
                _float(row["value"]),
                auv,
                None if auv is None else int(len(placed) - np.searchsorted(placed, auv, "right")) + 1,
                _float(row["volume_ml"]),
                _int(row["n_slices"]),
                str(row["reason"] or ""),
                None if keep is None else keep.keeps(case_id),
                thirds.get(case_id),
                tuple(classes.get(case_id, ())),
            )
        )
    return tuple(sorted(cases, key=lambda case: (case.auv is None, -(case.auv or 0.0), case.case_id)))


def class_table(cases: Sequence[ScoredCase]) -> Table | None:
    """A row a class: how many cases have it, its values and AUVs, its size; None where the scores have no classes."""
    by_class = _by_class(cases)
    if not by_class:
        return None
    rows = []
    for name, own in by_class.items():
        there = [one for _, one in own if one.status != "absent"]
        auvs = [one.auv for one in there if one.auv is not None]
        most = max(((one.auv, case.case_id) for case, one in own if one.auv is not None), default=None)
        quartiles = np.quantile(auvs, [0.25, 0.5, 0.75]) if auvs else [None] * 3
        rows.append(
            (
                name,
                most[1] if most else NONE,
                str(len(there)),
                str(len(own) - len(there)),
                number(_median([one.value for one in there])),
                *(number(None if q is None else float(q)) for q in quartiles),
                number(_median([one.volume_ml for one in there]), 2),
            )
        )
    columns = (
        *("class", "most uncertain case", "cases", "without it", "median value", "AUV at 25 %", "50 %", "75 %"),
        "median volume (ml)",
    )
    return table(
        "Scores by class",
        columns,
        rows,
        text=2,
        note="AUV at 25 %: a quarter of the cases has at most it.",
    )


def class_names(cases: Sequence[ScoredCase]) -> tuple[str, ...]:
    """Names of the classes, in the order of the table."""
    return tuple(dict.fromkeys(one.class_name for case in cases for one in case.classes))


def _by_class(cases: Sequence[ScoredCase]) -> dict[str, list[tuple[ScoredCase, ClassScore]]]:
    found: dict[str, list[tuple[ScoredCase, ClassScore]]] = {}
    for case in cases:
        for one in case.classes:
            found.setdefault(one.class_name, []).append((case, one))
    return found


def distributions(cases: Sequence[ScoredCase], chosen: str | None) -> tuple[Distribution, ...]:
    """AUVs of the whole cases, then of each class that has some."""
    columns = {
        name: [(case.case_id, one.auv) for case, one in own if one.status != "absent"]
        for name, own in _by_class(cases).items()
    }
    groups = [("whole cases", [(case.case_id, case.auv) for case in cases]), *columns.items()]
    found = []
    for name, group in groups:
        auv = tuple(value for _, value in group if value is not None)
        own = next((value for case_id, value in group if case_id == chosen), None)
        if auv:
            found.append(Distribution(name, auv, len(group) - len(auv), own))
    return tuple(found)


def size_plots(cases: Sequence[ScoredCase], chosen: str | None) -> tuple[SizePlot, ...]:
    """AUV against volume and against slices, of the cases that have both sizes; none where fewer than two do."""
    both = [case for case in cases if case.auv is not None and case.volume_ml and case.n_slices]
    if len(both) < 2:
        return ()
    auv = np.array([case.auv for case in both], dtype=np.float64)
    volume = np.array([case.volume_ml for case in both], dtype=np.float64)
    depth = np.array([case.n_slices for case in both], dtype=np.float64)
    ids = tuple(case.case_id for case in both)
    return tuple(
        SizePlot(what, unit, ids, tuple(own), tuple(auv), _correlation(auv, own, other, other_name), chosen)
        for what, unit, own, other, other_name in (
            ("volume", "ml", volume, depth, "slices"),
            ("slices", "", depth, volume, "volume"),
        )
    )


def status_counts(rows: Sequence[Row]) -> str:
    """How often classes are absent, flat or undefined in cases; empty where all are ok."""
    words = [str(row["status"]) for row in rows if row["class_id"] is not None]
    return ", ".join(f"{words.count(word):,} {word}" for word in sorted(set(words)))


def _correlation(auv: np.ndarray, size: np.ndarray, other: np.ndarray, other_name: str) -> str:
    plain, given = (partial_spearman(auv, size, other[:, None][:, :k]) for k in (0, 1))
    said = ["not defined" if found is None else f"{found.coefficient:+.2f}" for found in (plain, given)]
    return f"Spearman {said[0]}, given {other_name} {said[1]}"


def _thirds(volumes: Mapping[str, float | None]) -> dict[str, int]:
    """As `class_losses` cuts them, so that the slider and the table agree; none where a volume is not known."""
    known = [volume for volume in volumes.values() if volume is not None]
    if len(known) < len(volumes) or not known:
        return {}
    cuts = np.quantile(known, (1 / 3, 2 / 3), method="inverted_cdf")
    return {case_id: int(part) for case_id, part in zip(volumes, np.searchsorted(cuts, known), strict=True)}


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _float(value: Cell) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _int(value: Cell) -> int | None:
    return value if isinstance(value, int) else None
