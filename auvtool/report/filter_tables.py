"""What a filter would drop at several quantiles: of all cases, and by class and size."""

from collections.abc import Sequence

from auvtool.keep_list import class_losses, judge
from auvtool.report.page import NONE, Table, number, table
from auvtool.schema import Row

QUANTILES = (0.99, 0.95, 0.9, 0.8, 0.7)
_THIRDS = ("smallest third", "middle third", "largest third")


def filter_tables(rows: Sequence[Row], chosen: str | None) -> tuple[Table, ...]:
    """What a filter of whole cases would drop at each of QUANTILES: of the cases, then by class."""
    kept_at = {q: frozenset(str(row["case"]) for row in judge(rows, q) if row["keep"]) for q in QUANTILES}
    auv = {str(row["case"]): row["auv"] for row in rows if row["class_id"] is None}
    of_cases: list[list[str]] = []
    of_classes: dict[str, list[str]] = {}
    for q, kept in kept_at.items():
        *classes, whole = class_losses(rows, kept)
        stay = [float(value) for case, value in auv.items() if case in kept and isinstance(value, int | float)]
        line = [f"{q:.2f}", number(max(stay, default=None)), str(whole.n_kept), str(whole.n_dropped)]
        line += [f"{gone} of {n}" for gone, n in whole.tertiles] or [NONE] * 3
        of_cases.append([*line, "dropped" if chosen not in kept else "kept"] if chosen is not None else line)
        for loss in classes:
            thirds = " / ".join(str(gone) for gone, _ in loss.tertiles)
            of_classes.setdefault(loss.class_name, [loss.class_name]).append(
                f"{loss.n_dropped} ({thirds})" if thirds else str(loss.n_dropped)
            )
    columns = ["quantile", "keeps AUV up to", "kept", "dropped", *_THIRDS] + ([chosen] if chosen is not None else [])
    found = [
        table(
            "What filter --quantile would drop",
            columns,
            of_cases,
            note="Thirds are of the cases by volume: where one loses more than the others, the filter chooses by size.",
        )
    ]
    if of_classes and chosen is None:
        found.append(
            table(
                "Cases dropped by class and size",
                ["class", *(f"at {q:.2f}" for q in QUANTILES)],
                list(of_classes.values()),
                note="Dropped cases that hold the class and, in brackets, how many of them are of the smallest, middle "
                "and largest third by its volume.",
            )
        )
    return tuple(found)
