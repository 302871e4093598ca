"""Two runs on the same cases, from their METRICS tables: what changed, class by class, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np

from auvtool.errors import InputError
from auvtool.paired_statistics import PairedDifference, holm, paired_difference
from auvtool.schema import ALL_CLASSES, METRICS, Row
from auvtool.tables import read_table

ClassKey: TypeAlias = tuple[int, str]  # class_id, class_name
Key = TypeVar("Key", str, ClassKey)

# Each measure of a METRICS table, and whether more of it is better.
_MEASURES = {"dice": True, "iou": True, "hd95_mm": False, "nsd": True}
_OPTIONAL = ("hd95_mm", "nsd")


@dataclass(frozen=True)
class MetricsTable:
    """A METRICS table by case and class; rows of whole cases are made anew from them where they are needed."""

    path: Path
    rows: dict[tuple[str, ClassKey], Row]

    @property
    def cases(self) -> list[str]:
        return list(dict.fromkeys(case for case, _ in self.rows))

    @property
    def classes(self) -> list[ClassKey]:
        return list(dict.fromkeys(key for _, key in self.rows))

    def value(self, case: str, key: ClassKey, measure: str) -> float | None:
        """What was measured; None where it is not defined."""
        found = self.rows.get((case, key), {}).get(measure)
        return float(found) if isinstance(found, int | float) else None


@dataclass(frozen=True)
class RunComparison:
    """Rows of the PAIRED_METRICS table, and what of the two tables is in no pair.

    Attributes:
        rows: of each measure its classes, then their mean.
        n_cases: cases in both tables.
        alone: for the first and the second table the cases that only it has.
        classes_alone: the same of classes, by name.
        measures_alone: the same of measures.
    """

    rows: list[Row]
    n_cases: int
    alone: tuple[list[str], list[str]]
    classes_alone: tuple[list[str], list[str]]
    measures_alone: tuple[list[str], list[str]]


def read_metrics(path: Path) -> MetricsTable:
    """The classes of a METRICS table.

    Raises:
        InputError: it cannot be read, or has two rows of one case and class, or none of a class.
    """
    rows: dict[tuple[str, ClassKey], Row] = {}
    for row in read_table(path, METRICS):
        if row["class_id"] is None:
            continue
        key = (str(row["case"]), (int(str(row["class_id"])), str(row["class_name"])))
        if key in rows:
            raise InputError(
                path,
                expected="one row of a case and class",
                found=f"two of {row['case']}, {row['class_name']}",
                cure="give the metrics of one run",
            )
        rows[key] = row
    if not rows:
        raise InputError(path, expected="rows of classes", found="whole cases only", cure="give what eval -o wrote")
    return MetricsTable(path, rows)


def compare_runs(first: MetricsTable, second: MetricsTable, *, resamples: int, seed: int) -> RunComparison:
    """Pair two runs by case and class; a pair counts where both have a value.

    The row of all classes takes a case as its mean over the classes that are paired in it, so that both runs are
    averaged over the same classes and cases.

    Raises:
        InputError: they have no case and class in common, not the same references, or not the same tolerance.
    """
    all_cases, all_classes = (first.cases, second.cases), (first.classes, second.classes)
    cases, classes = _in_both(*all_cases), _in_both(*all_classes)
    if not cases or not classes:
        what, of = ("class", all_classes[0]) if cases else ("case", all_cases[0])
        raise InputError(
            second.path,
            expected=f"a {what} of {first.path} ({of[0]!s}, ...)",
            found="none",
            cure="compare two runs on the same cases and classes",
        )
    _check_references(first, second)
    present = [{name for name in _MEASURES if _is_measured(table, name)} for table in (first, second)]
    measures = [name for name in _MEASURES if name in present[0] & present[1] or name not in _OPTIONAL]
    if "nsd" in measures:
        _check_tolerance(first, second)
    rows = [
        row
        for measure in measures
        for row in _rows_of(first, second, cases, classes, measure=measure, resamples=resamples, seed=seed)
    ]
    return RunComparison(
        rows=rows,
        n_cases=len(cases),
        alone=_alone(*all_cases),
        classes_alone=_alone(*([name for _, name in keys] for keys in all_classes)),
        measures_alone=_alone(sorted(present[0]), sorted(present[1])),
    )


def _rows_of(
    first: MetricsTable,
    second: MetricsTable,
    cases: Sequence[str],
    classes: Sequence[ClassKey],
    *,
    measure: str,
    resamples: int,
    seed: int,
) -> list[Row]:
    values = np.array(
        [[[_number(table.value(case, key, measure)) for key in classes] for case in cases] for table in (first, second)]
    )  # table, case, class
    there = ~np.isnan(values)
    paired = there.all(axis=0)
    found = [
        paired_difference(*values[:, paired[:, position], position], resamples=resamples, seed=seed)
        for position in range(len(classes))
    ]
    some = paired.any(axis=1)
    of_cases = np.where(paired, values, 0.0)[:, some].sum(axis=2) / paired[some].sum(axis=1)
    whole = paired_difference(*of_cases, resamples=resamples, seed=seed)
    corrected = holm([None if one is None else one.p for one in found])
    only = (there & ~paired).sum(axis=1)  # table, class
    rows = [
        _row(measure, key, one, (int(counts[0]), int(counts[1])), holm_p)
        for key, one, counts, holm_p in zip(classes, found, only.T, corrected, strict=True)
    ]
    n_only = (int(only[0].sum()), int(only[1].sum()))
    return [*rows, _row(measure, (None, ALL_CLASSES), whole, n_only, None)]


def _row(
    measure: str,
    key: tuple[int | None, str],
    found: PairedDifference | None,
    n_only: tuple[int, int],
    holm_p: float | None,
) -> Row:
    row: Row = {"metric": measure, "class_id": key[0], "class_name": key[1], "n": 0}
    row |= {"n_only_a": n_only[0], "n_only_b": n_only[1], "n_better": 0, "n_worse": 0, "holm_p": holm_p}
    if found is None:
        return row
    n_better, n_worse = found.n_larger, found.n_smaller
    if not _MEASURES[measure]:
        n_better, n_worse = n_worse, n_better
    return row | {
        "n": found.n,
        "mean_a": found.mean_first,
        "mean_b": found.mean_second,
        "difference": found.difference,
        "difference_low": found.low,
        "difference_high": found.high,
        "n_better": n_better,
        "n_worse": n_worse,
        "wilcoxon_p": found.p,
    }


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _is_measured(table: MetricsTable, measure: str) -> bool:
    return any(row.get(measure) is not None for row in table.rows.values())


def _in_both(first: Sequence[Key], second: Sequence[Key]) -> list[Key]:
    others = set(second)
    return [key for key in first if key in others]


def _alone(first: Sequence[str], second: Sequence[str]) -> tuple[list[str], list[str]]:
    names = set(first), set(second)
    return [name for name in first if name not in names[1]], [name for name in second if name not in names[0]]


def _check_references(first: MetricsTable, second: MetricsTable) -> None:
    for (case, key), row in first.rows.items():
        counts = row.get("n_reference"), second.rows.get((case, key), {}).get("n_reference")
        if None not in counts and counts[0] != counts[1]:
            raise InputError(
                second.path,
                expected=f"the reference that {first.path} has of {case}, {key[1]} ({counts[0]} voxels)",
                found=f"{counts[1]} voxels",
                cure="evaluate both runs on the same labels",
            )


def _check_tolerance(first: MetricsTable, second: MetricsTable) -> None:
    tolerances = [
        {row.get("nsd_tolerance_mm") for row in table.rows.values() if row.get("nsd") is not None}
        for table in (first, second)
    ]
    if tolerances[0] != tolerances[1] or len(tolerances[0]) != 1:
        shown = [", ".join(sorted(map(str, found))) for found in tolerances]
        raise InputError(
            second.path,
            expected=f"one tolerance of nsd, that of {first.path} ({shown[0]} mm)",
            found=f"{shown[1]} mm",
            cure="evaluate both runs with the same --nsd",
        )
