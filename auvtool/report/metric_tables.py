"""What a METRICS table says, in tables to read: means of the classes, the worst cases, and how AUV goes with Dice."""

from collections.abc import Mapping, Sequence

import numpy as np

from auvtool.correlation import spearman
from auvtool.plural import counted
from auvtool.report.page import ScoredCase, Table, number, table
from auvtool.schema import Cell, Row

_N_WORST = 10


def metric_tables(metrics: Sequence[Row], cases: Sequence[ScoredCase]) -> tuple[Table, ...]:
    """Means of each class of a METRICS table and its worst cases; how AUV goes with Dice where cases are scored too."""
    by_class: dict[str, list[Row]] = {}
    for row in metrics:
        if row["class_id"] is not None:
            by_class.setdefault(str(row["class_name"]), []).append(row)
    lines = [
        (
            name,
            *(number(_mean([_float(row[metric]) for row in rows])) for metric in ("dice", "iou")),
            str(sum(row["dice"] is not None for row in rows)),
            *(str(sum(row["status"] == word for row in rows)) for word in ("absent", "false_alarm", "missed")),
        )
        for name, rows in by_class.items()
    ]
    n_cases = len({row["case"] for row in metrics})
    auv = {case.case_id: case for case in cases if case.auv is not None}
    dice = {
        str(row["case"]): float(row["dice"])
        for row in metrics
        if row["class_id"] is None and isinstance(row["dice"], float)
    }
    means = table(
        f"Dice and IoU over {counted(n_cases, 'case')}",
        ("class", "mean Dice", "mean IoU", "cases", "absent", "false alarm", "missed"),
        lines,
        note=_with_dice(auv, dice),
    )
    worst = sorted(dice.items(), key=lambda item: (item[1], item[0]))[:_N_WORST]
    if not worst:
        return (means,)
    rows = [(case_id, number(value), number(auv[case_id].auv if case_id in auv else None)) for case_id, value in worst]
    return means, table("Cases of lowest mean Dice", ("case", "mean Dice", "AUV"), rows)


def _with_dice(auv: Mapping[str, ScoredCase], dice: Mapping[str, float]) -> str:
    both = sorted(auv.keys() & dice.keys())
    if not both:
        return "None of these cases is scored: they are other cases than the ranked ones."
    x = np.array([auv[case_id].auv for case_id in both], dtype=np.float64)
    y = np.array([dice[case_id] for case_id in both])
    found = spearman(x, y)
    said = "not defined" if found is None else f"{found.coefficient:+.2f} (p {found.p:.2g})"
    return f"Spearman of AUV with mean Dice over the {len(both)} cases that are scored too: {said}."


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _float(value: Cell) -> float | None:
    return float(value) if isinstance(value, int | float) else None
