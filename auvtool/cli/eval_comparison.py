"""What `auvtool eval --compare` prints and writes."""

from pathlib import Path
from typing import TYPE_CHECKING

from auvtool import console
from auvtool.atomic import is_piped
from auvtool.errors import InputError
from auvtool.plural import counted
from auvtool.schema import PAIRED_METRICS, Row
from auvtool.tables import STANDARD_STREAM, write_table

if TYPE_CHECKING:
    from auvtool.run_comparison import RunComparison

_COLUMNS = ("metric", "class", "n", "A", "B", "B - A", "+/-", "p")
_SMALL_P = 0.001
_LEGEND = "+/-: cases in which B is better, worse; p: signed-rank test, for classes corrected (Holm)"


def compare_tables(
    tables: tuple[Path, Path],
    output: Path,
    *,
    table_format: str | None,
    allow_missing: bool,
    resamples: int,
    seed: int,
    force: bool,
) -> None:
    """Read both tables, compare them, write and print the result."""
    from auvtool.run_comparison import compare_runs, read_metrics

    first, second = (read_metrics(path) for path in tables)
    found = compare_runs(first, second, resamples=resamples, seed=seed)
    _check_alone(found, tables, allow_missing=allow_missing)
    on_terminal = console.wants_reading(output, table_format)
    if not on_terminal:
        write_table(found.rows, PAIRED_METRICS, output, requested=table_format, force=force)
    if on_terminal or output != STANDARD_STREAM:
        rows = found.rows if on_terminal else [row for row in found.rows if row["class_id"] is None]
        title = f"A: {tables[0]}, B: {tables[1]}, {counted(found.n_cases, 'case')}\n{_LEGEND}"
        console.print_table([_readable(row) for row in rows], _COLUMNS, title=title, to_stderr=not on_terminal)
    one_sided = sum(int(str(row[name])) for row in found.rows for name in ("n_only_a", "n_only_b") if row["class_id"])
    if one_sided:
        console.warn(f"{one_sided} values of one run have none of the other beside them (n_only_a, n_only_b): no pairs")
    if not is_piped(output):
        from auvtool.manifest import write_manifest

        write_manifest(
            output,
            command="eval",
            options={"compare": list(tables), "allow_missing": allow_missing, "resamples": resamples, "seed": seed},
            inputs=list(tables),
            counts={
                "cases": found.n_cases,
                "only_a": len(found.alone[0]),
                "only_b": len(found.alone[1]),
                "rows": len(found.rows),
            },
        )


def _readable(row: Row) -> Row:
    change, low, high = (row.get(name) for name in ("difference", "difference_low", "difference_high"))
    p = row["holm_p"] if row["class_id"] is not None else row.get("wilcoxon_p")
    return {
        "metric": row["metric"],
        "class": row["class_name"],
        "n": row["n"],
        "A": row.get("mean_a"),
        "B": row.get("mean_b"),
        "B - A": "-" if change is None else f"{change:6.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]"),
        "+/-": f"{row['n_better']}/{row['n_worse']}",
        "p": "-" if p is None else "< 0.001" if isinstance(p, float) and p < _SMALL_P else f"{p:.3f}",
    }


def _check_alone(found: "RunComparison", tables: tuple[Path, Path], *, allow_missing: bool) -> None:
    """Name what only one table has; cases and classes are an error unless --allow-missing."""
    for what, alone in (("cases", found.alone), ("classes", found.classes_alone)):
        for path, other, names in zip(tables, reversed(tables), alone, strict=True):
            if not names:
                continue
            if not allow_missing:
                raise InputError(
                    other,
                    expected=f"the {what} of {path}",
                    found=f"none of {console.some(names)}",
                    cure="evaluate them too, or say --allow-missing",
                )
            console.warn(f"{len(names)} {what} of {path} alone, in no pair: {console.some(names)}")
    for path, measures in zip(tables, found.measures_alone, strict=True):
        if measures:
            console.warn(f"measures of {path} alone, left out: {', '.join(measures)}")
