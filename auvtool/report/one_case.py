"""Tables about one case: its place beside the other cases, the evidence that stands out, its Dice."""

from collections.abc import Sequence

import numpy as np

from auvtool.case_features import CaseFeatures
from auvtool.evidence import evidence_of
from auvtool.report.page import NONE, ClassScore, ScoredCase, Table, number, table
from auvtool.schema import Row

_N_EVIDENCE = 20
_LEAST_EVIDENCE = 2.0  # of a z


def classes_of(own: ScoredCase, cases: Sequence[ScoredCase]) -> Table:
    """A row a class of the case, then the whole case: its place beside the medians of the data set."""
    rows = []
    for one in own.classes:
        others = [other for case in cases for other in case.classes if other.class_id == one.class_id]
        rows.append(_place(one.class_name, one, others))
    rows.append(_place("whole case", own, cases))
    columns = ("class", "status", "value", "median of the cases", "AUV", "place", "volume (ml)", "slices")
    return table(
        "Classes of the case", columns, rows, text=2, note="Place 1 is the most uncertain case of the data set."
    )


def _place(
    name: str, own: ScoredCase | ClassScore, others: Sequence[ScoredCase] | Sequence[ClassScore]
) -> tuple[str, ...]:
    values = [other.value for other in others if other.value is not None]
    auvs = [other.auv for other in others if other.auv is not None]
    return (
        name,
        own.status,
        number(own.value),
        number(float(np.median(values)) if values else None),
        number(own.auv),
        NONE if own.auv is None else f"{sum(auv > own.auv for auv in auvs) + 1} of {len(auvs)}",
        number(own.volume_ml, 2),
        NONE if own.n_slices is None else str(own.n_slices),
    )


def evidence_table(features: Sequence[CaseFeatures], case_id: str) -> Table | None:
    """The numbers of a case that lie farthest from what is usual; None where the features do not hold it."""
    ids = [case.case_id for case in features]
    if case_id not in ids or not all(case.spectra for case in features):
        return None
    evidence = evidence_of(features)
    z = evidence.z()[ids.index(case_id)]
    names = features[0].class_names
    rows = []
    for flat in np.argsort(-np.abs(np.nan_to_num(z)), axis=None, kind="stable")[:_N_EVIDENCE]:
        item, of_class = divmod(int(flat), z.shape[1])
        if np.isnan(z[item, of_class]) or abs(z[item, of_class]) < _LEAST_EVIDENCE:
            break
        group, _, name = evidence.names[item].partition(": ")
        rows.append((group, name, "case" if evidence.of_case[item] else names[of_class], f"{z[item, of_class]:+.1f}"))
    return table(
        "Evidence that stands out",
        ("group", "what", "of", "z"),
        rows,
        text=3,
        note="z: distance from the median of the data set in robust standard deviations (at most 50), the effect of "
        f"size taken out where there is one; at most {_N_EVIDENCE} rows, none below {_LEAST_EVIDENCE:g}.",
    )


def metrics_of(case_id: str, metrics: Sequence[Row]) -> Table:
    """The rows of a METRICS table that are of the case."""
    own = [row for row in metrics if row["case"] == case_id]
    lines = [
        (
            str(row["class_name"]),
            str(row["status"]),
            *(number(value if isinstance(value, float) else None) for value in (row["dice"], row["iou"])),
        )
        for row in own
    ]
    note = "" if own else "The metrics do not hold this case."
    return table("Dice and IoU of the case", ("class", "status", "Dice", "IoU"), lines, text=2, note=note)
