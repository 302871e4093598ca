"""Tables that `correlate` reads: scores as points with their sizes, metrics by case and class."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from auvtool.errors import InputError, UsageError
from auvtool.quantifiers import CALIBRATED, QUANTIFIERS
from auvtool.schema import METRICS, SCORES, Row, TableSchema
from auvtool.tables import STANDARD_STREAM, parse_table, read_content

MetricName: TypeAlias = Literal["dice", "iou"]


@dataclass(frozen=True)
class Point:
    """One value of a score table, its sign turned so that high = certain, with the logarithms of its size.

    The logarithms are nan where the table does not give the size.
    """

    value: float
    log_volume: float
    log_slices: float


@dataclass(frozen=True)
class ScoreTable:
    """What one quantifier, measured in one way, says of cases and classes.

    Attributes:
        where: file that it was read from.
        quantifier: a name of QUANTIFIERS, or CALIBRATED.
        method: its options; equal texts compare.
        cases: all cases of the table, in its order, also those without a value.
        class_names: its classes, in its order; empty for a quantifier of whole cases.
        points: by case and class name; None for the class: the whole case. What has no value, no volume or no slices
            is not in it.
        class_ids: class id -> class name.
        classes_compare: the values of two classes are of one scale. An AUV is relative within its class.
    """

    where: str
    quantifier: str
    method: str
    cases: tuple[str, ...]
    class_names: tuple[str, ...]
    points: Mapping[tuple[str, str | None], Point] = field(repr=False)
    classes_compare: bool = True
    class_ids: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MetricsTable:
    """Dice or IoU by case and class name; where it is not defined there is no entry."""

    where: str
    cases: tuple[str, ...]
    class_names: tuple[str, ...]
    values: Mapping[tuple[str, str], float] = field(repr=False)


@dataclass(frozen=True)
class Common:
    """Cases and classes that a score table and the metrics have in common, in the order of the scores."""

    cases: tuple[str, ...]
    class_names: tuple[str, ...]


def read_tables(paths: Sequence[Path], *, metric: MetricName) -> tuple[list[ScoreTable], MetricsTable]:
    """Score tables and the metrics table among `paths`, in any order, told apart by their columns.

    A file may hold several quantifiers; each (quantifier, method) becomes a table of its own.

    Raises:
        UsageError: there are no scores, or no metrics or two tables of them, or '-' stands twice.
        InputError: a file is neither, a quantifier is unknown, a case and class or a (quantifier, method) stands twice,
            or a number is infinite or a size negative.
    """
    if list(paths).count(STANDARD_STREAM) > 1:
        raise UsageError("correlate: expected '-' once, got it twice; standard input holds one table")
    scores: list[ScoreTable] = []
    metrics: list[MetricsTable] = []
    for path in paths:
        where = "standard input" if path == STANDARD_STREAM else str(path)
        schema, rows = _read(path, where)
        if schema is SCORES:
            scores += score_tables(rows, where)
        else:
            metrics.append(metrics_table(rows, where, metric=metric))
    if len(metrics) != 1:
        found = f"two: {metrics[0].where}, {metrics[1].where}" if metrics else "none"
        raise UsageError(f"correlate: expected one metrics table, got {found}; name the one that eval wrote")
    if not scores:
        raise UsageError("correlate: expected scores beside the metrics, got none; name a table that score wrote")
    _refuse_same_method(scores)
    return scores, metrics[0]


def score_tables(rows: Sequence[Row], where: str) -> list[ScoreTable]:
    """One table for each quantifier and method of SCORES rows.

    The value of a quantifier that is high where a case is uncertain changes its sign (QUANTIFIERS). A row that is
    absent, or whose volume or number of slices is 0, has no point: preset official gives it a value nonetheless.
    Scores of residuals or of distances from the median are not in the value but in the AUV, which is taken instead, its
    sign changed; it compares the cases of a class, not classes.

    Raises:
        InputError: a quantifier is unknown, a case and class stands twice, a number is infinite or a size negative.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((str(row["quantifier"]), str(row["method"])), []).append(row)
    tables = []
    for (name, method), group in groups.items():
        if name not in QUANTIFIERS and name != CALIBRATED:
            raise InputError(
                where,
                expected=f"a quantifier of {', '.join(QUANTIFIERS)}",
                found=name,
                cure="give scores that this version of score wrote",
            )
        quantifier = next((known for known in QUANTIFIERS if known == name), None)
        # A probability of being dirty is, as deviation, high where uncertain and of whole cases.
        known = QUANTIFIERS[quantifier or "deviation"]
        as_measured = str(group[0]["axis"]) in {"log", "linear"}
        column = "value" if as_measured else "auv"
        sign = 1.0 if as_measured and known.high == "certain" else -1.0
        points = {}
        for key, row in _by_case_and_class(group, where).items():
            value = _finite(row, column, where)
            volume, slices = (_finite(row, size, where, least=0.0) for size in ("volume_ml", "n_slices"))
            if value is not None and row["status"] != "absent" and volume != 0 and slices != 0:
                points[key] = Point(sign * value, _log(volume), _log(slices))
        names = _class_names(group) if known.of_classes else ()
        tables.append(
            ScoreTable(where, name, method, _case_ids(group), names, points, as_measured, _ids_of_classes(group))
        )
    return tables


def metrics_table(rows: Sequence[Row], where: str, *, metric: MetricName) -> MetricsTable:
    """`metric` of the classes of METRICS rows; rows of whole cases are means of them, and not used.

    Raises:
        InputError: a case and class stands twice, or a value is infinite.
    """
    values = {}
    for (case_id, class_name), row in _by_case_and_class(rows, where).items():
        value = _finite(row, metric, where)
        if class_name is not None and value is not None:
            values[case_id, class_name] = value
    return MetricsTable(where, _case_ids(rows), _class_names(rows), values)


def common(scores: ScoreTable, metrics: MetricsTable) -> Common:
    """What both tables speak of; classes are matched by name, since a decoder's channels have ids of their own.

    Raises:
        InputError: no case is in both.
    """
    evaluated = set(metrics.cases)
    cases = tuple(case_id for case_id in scores.cases if case_id in evaluated)
    if not cases:
        raise InputError(
            scores.where,
            expected=f"cases that {metrics.where} evaluates, such as {metrics.cases[0]}",
            found=f"none, but {scores.cases[0]}",
            cure="score the cases that were evaluated",
        )
    return Common(cases, tuple(name for name in scores.class_names if name in metrics.class_names))


def _read(path: Path, where: str) -> tuple[TableSchema, list[Row]]:
    content = read_content(path)
    for schema in (SCORES, METRICS):
        # Its columns tell which table it is; what is wrong in a cell of it is then said of that table.
        columns = tuple(replace(column, type="str", nullable=True) for column in schema.columns)
        try:
            parse_table(content, replace(schema, columns=columns), where)
        except InputError:
            continue
        return schema, parse_table(content, schema, where)
    raise InputError(
        where,
        expected=f"scores ({SCORES.name} version {SCORES.version}) or metrics ({METRICS.name})",
        found="another table, or one without rows",
        cure="give files that score and eval of this version wrote",
    )


def _refuse_same_method(scores: Sequence[ScoreTable]) -> None:
    first: dict[tuple[str, str], str] = {}
    for table in scores:
        key = (table.quantifier, table.method)
        if key in first:
            raise InputError(
                table.where,
                expected="another quantifier or method in each score table",
                found=f"{table.quantifier} ({table.method}) as in {first[key]}",
                cure="leave one of the two out; of shards, merge the feature files and score the result",
            )
        first[key] = table.where


def _by_case_and_class(rows: Sequence[Row], where: str) -> dict[tuple[str, str | None], Row]:
    keyed: dict[tuple[str, str | None], Row] = {}
    for row in rows:
        key = (str(row["case"]), None if row["class_id"] is None else str(row["class_name"]))
        if key in keyed:
            raise InputError(
                where,
                expected="each class of a case once",
                found=f"{row['class_name']} of {row['case']} twice",
                cure="leave one of its rows out",
            )
        keyed[key] = row
    return keyed


def _case_ids(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(row["case"]) for row in rows))


def _class_names(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(row["class_name"]) for row in rows if row["class_id"] is not None))


def _ids_of_classes(rows: Sequence[Row]) -> dict[str, str]:
    return {str(row["class_id"]): str(row["class_name"]) for row in rows if row["class_id"] is not None}


def _finite(row: Row, column: str, where: str, *, least: float | None = None) -> float | None:
    """A number of a row; None where there is none or it is nan."""
    cell = row[column]
    if cell is None or math.isnan(float(cell)):
        return None
    if math.isinf(float(cell)) or (least is not None and float(cell) < least):
        raise InputError(
            f"{where}: {row['case']}, {row['class_name']}",
            expected=f"a finite {column}" + ("" if least is None else f" of at least {least:g}"),
            found=cell,
            cure="leave the cell empty if there is no value",
        )
    return float(cell)


def _log(size: float | None) -> float:
    return math.nan if size is None else math.log(size)
