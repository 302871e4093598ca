"""From scores and metrics to a table of correlations, over classes (as the paper's Table 4) and over cases."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import numpy as np

from auvtool.correlation import bootstrap_intervals, partial_pearson, partial_spearman, pearson, spearman
from auvtool.correlation_tables import Common, MetricName, MetricsTable, Point, ScoreTable, common
from auvtool.errors import UsageError
from auvtool.schema import ALL_CLASSES, Row, class_label

Level: TypeAlias = Literal["classes", "cases"]

LEVELS: tuple[Level, ...] = ("classes", "cases")


def correlation_rows(
    scores: Sequence[ScoreTable],
    metrics: MetricsTable,
    *,
    metric: MetricName,
    levels: Sequence[Level] = LEVELS,
    classes: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """CORRELATIONS rows: for each level and class one row a score table, so that quantifiers stand under one another.

    Level "classes" (Table 4): a point is a class, its mean value over the cases in common that have one against its
    mean metric over the cases in common where it is defined; covariates are the means of log volume and of log number
    of slices over the former. Level "cases": a point is a case; first whole cases, the value of the whole case against
    the mean metric of its defined classes (those in common, or all if no class is), then each class over the cases that
    have it. A quantifier of whole cases only has neither a row of classes nor a row for a class, scores of residuals or
    distances have no row of classes.

    Pearson takes the value as it stands (its sign turned, high = certain) also where eq. 6 takes its logarithm, as the
    paper correlates S itself; to Spearman it makes no difference. Both partial coefficients are given log volume and
    log number of slices; they are empty unless every point has both. Each row draws its resamples from the same seed.

    Args:
        scores: from `read_tables` or `score_tables`.
        metrics: what they are correlated with.
        metric: name of what `metrics` holds.
        levels: which of LEVELS.
        classes: names, or ids of the scores, of the classes that are points, or have a row; empty: all. Whole cases are
            not changed by it.
        resamples: of the bootstrap; 0: no intervals.
        seed: of the bootstrap.

    Raises:
        UsageError: `classes` names one that no score table has in common with the metrics, or level "classes" alone is
            asked of quantifiers of whole cases.
        InputError: a score table has no case in common with the metrics.
    """
    shared = [common(table, metrics) for table in scores]
    names = list(dict.fromkeys(name for found in shared for name in found.class_names))
    ids = {class_id: name for table in scores for class_id, name in table.class_ids.items()}
    classes = [name if name in names else ids.get(name, name) for name in classes]
    unknown = [name for name in classes if name not in names]
    if unknown:
        known = ", ".join(names) or "none"
        raise UsageError(
            f"--classes: expected classes in common ({known}), got {', '.join(unknown)}; name some of them"
        )
    if classes:
        names = [name for name in names if name in classes]

    if "cases" not in levels and not any(_has_class_level(table) for table in scores):
        raise UsageError(
            f"--level: expected cases for {scores[0].quantifier}, whose values do not compare classes, got classes; "
            "choose --level cases"
        )

    groups: list[tuple[Level, str | None]] = []
    if "classes" in levels:
        groups.append(("classes", None))
    if "cases" in levels:
        groups += [("cases", name) for name in (None, *names)]
    rows: list[Row] = []
    for level, name in groups:
        for table, found in zip(scores, shared, strict=True):
            if (level == "classes" and not _has_class_level(table)) or (
                name is not None and name not in found.class_names
            ):
                continue
            if level == "classes":
                pairs = _class_pairs(table, metrics, found, names)
            else:
                pairs = _case_pairs(table, metrics, found, name)
            rows.append(
                {
                    "quantifier": table.quantifier,
                    "method": table.method,
                    "metric": metric,
                    "level": level,
                    "class_name": ALL_CLASSES if name is None else class_label(name),
                    **_measure(pairs, resamples=resamples, seed=seed),
                }
            )
    return rows


def _has_class_level(table: ScoreTable) -> bool:
    # What has no value of a class has no names of classes.
    return table.classes_compare and bool(table.class_names)


def _class_pairs(
    table: ScoreTable, metrics: MetricsTable, found: Common, names: Sequence[str]
) -> list[tuple[Point, float]]:
    pairs = []
    for name in (name for name in found.class_names if name in names):
        points = [table.points[case_id, name] for case_id in found.cases if (case_id, name) in table.points]
        values = [metrics.values[case_id, name] for case_id in found.cases if (case_id, name) in metrics.values]
        if points and values:
            mean = Point(
                _mean(point.value for point in points),
                _mean(point.log_volume for point in points),
                _mean(point.log_slices for point in points),
            )
            pairs.append((mean, _mean(values)))
    return pairs


def _case_pairs(
    table: ScoreTable, metrics: MetricsTable, found: Common, class_name: str | None
) -> list[tuple[Point, float]]:
    names = (found.class_names or metrics.class_names) if class_name is None else (class_name,)
    pairs = []
    for case_id in found.cases:
        point = table.points.get((case_id, class_name))
        values = [metrics.values[case_id, name] for name in names if (case_id, name) in metrics.values]
        if point is not None and values:
            pairs.append((point, _mean(values)))
    return pairs


def _measure(pairs: Sequence[tuple[Point, float]], *, resamples: int, seed: int) -> Row:
    """The numbers of one row."""
    value = np.array([point.value for point, _ in pairs], dtype=np.float64)
    metric = np.array([number for _, number in pairs], dtype=np.float64)
    size = np.array([(point.log_volume, point.log_slices) for point, _ in pairs], dtype=np.float64).reshape(-1, 2)
    row: Row = {"n": len(pairs)}
    linear, ranked = pearson(value, metric), spearman(value, metric)
    intervals = (None, None) if linear is None else bootstrap_intervals(value, metric, resamples=resamples, seed=seed)
    for name, found, interval in zip(("pearson", "spearman"), (linear, ranked), intervals, strict=True):
        row[name], row[f"{name}_p"] = (None, None) if found is None else (found.coefficient, found.p)
        row[f"{name}_low"], row[f"{name}_high"] = (None, None) if interval is None else (interval.low, interval.high)
    # Over the points whose size happens to be known it would be another correlation than the one beside it.
    if not np.isnan(size).any():
        for name, found in (
            ("partial_pearson", partial_pearson(value, metric, size)),
            ("partial_spearman", partial_spearman(value, metric, size)),
        ):
            row[name], row[f"{name}_p"] = (None, None) if found is None else (found.coefficient, found.p)
    return row


def _mean(values: Iterable[float]) -> float:
    collected = list(values)
    return math.fsum(collected) / len(collected)
