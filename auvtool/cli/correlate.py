"""`auvtool correlate`."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from auvtool import console
from auvtool.atomic import is_piped
from auvtool.cli.one_run import one_run_at_a_time
from auvtool.cli.options import Force, Format, Output, Seed, names_of, refuse_input_as_output
from auvtool.plural import counted
from auvtool.schema import CORRELATIONS, Cell, Row
from auvtool.tables import STANDARD_STREAM, check_output, write_table

if TYPE_CHECKING:
    from auvtool.correlation_tables import MetricsTable, ScoreTable

_FEW_POINTS = 10
_MANY_ROWS = 5
_SHOWN_CLASSES = 5
# Each coefficient and its p. A column is named by its key: blanks tell the three p apart.
_COEFFICIENTS = ("Pearson", "p", "Spearman", "p ", "partial", "p  ")


@one_run_at_a_time(lambda options: options["output"])
def correlate(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="S.csv... M.csv", help="Scores of score, and metrics of eval, in any order; '-' is standard input."
        ),
    ],
    *,
    output: Output = STANDARD_STREAM,
    metric: Annotated[
        Literal["dice", "iou"], typer.Option("--metric", help="What the scores should go with.")
    ] = "dice",
    level: Annotated[
        Literal["classes", "cases", "both"],
        typer.Option("--level", help="A point is a class (Table 4), or a case; or a row of each."),
    ] = "both",
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes",
            metavar="A,B",
            help="Names or ids of the classes to use; all by default. Whole cases stay as scored.",
        ),
    ] = None,
    resamples: Annotated[
        int,
        typer.Option(
            "--resamples", metavar="N", min=0, help="Samples that the bootstrap draws for the intervals; 0: none."
        ),
    ] = 2000,
    seed: Seed = 0,
    table_format: Format = None,
    force: Force = False,
) -> None:
    """Correlate scores with the Dice (or IoU) of a segmentation: does a certain case get a good one?

    Pearson and Spearman with two-sided p, 95 % bootstrap intervals, and both again given log volume and log number of
    slices: where the partial correlation is much smaller, size explains the plain one. Every score is turned so that
    high = certain, so a useful one is positive. Over classes a point is the mean of a class, as in the paper's Table 4;
    over cases it is a whole case, then each class over the cases that have it. Several score tables stand under one
    another. Scores made with --residualise or --two-sided count by their AUV, over cases only. What is not defined
    (fewer than 3 points, all equal) is an empty cell.

    \b
      auvtool correlate S.csv M.csv -o T.csv
      auvtool correlate auv.csv fisher.csv volume.csv M.csv --level classes
      auvtool score F.h5 | auvtool correlate - M.csv --metric iou --format jsonl
    """
    check_output(output, requested=table_format, force=force)
    refuse_input_as_output(output, files)

    from auvtool.correlation_tables import read_tables
    from auvtool.score_correlation import LEVELS, correlation_rows

    scores, metrics = read_tables(files, metric=metric)
    wanted = names_of(classes, "--classes")
    rows = correlation_rows(
        scores,
        metrics,
        metric=metric,
        levels=[one for one in LEVELS if level in {one, "both"}],
        classes=wanted,
        resamples=resamples,
        seed=seed,
    )
    _say_what_is_common(scores, metrics)
    _say_what_it_rests_on(rows)
    if console.wants_reading(output, table_format):
        _print_layout(rows)
        return
    write_table(rows, CORRELATIONS, output, requested=table_format, force=force)
    if not is_piped(output):
        from auvtool.manifest import write_manifest

        write_manifest(
            output,
            command="correlate",
            options={"metric": metric, "level": level, "classes": wanted, "resamples": resamples, "seed": seed},
            inputs=files,
            counts={"score_tables": len(scores), "rows": len(rows)},
        )


def _say_what_is_common(scores: Sequence["ScoreTable"], metrics: "MetricsTable") -> None:
    from auvtool.correlation_tables import common

    groups: dict[str, list[str]] = {}
    shared = [common(table, metrics) for table in scores]
    for table, found in zip(scores, shared, strict=True):
        classes = counted(len(found.class_names), "class", "classes") + (
            f" ({console.some(found.class_names)})" if found.class_names else ""
        )
        seen = f"{len(table.cases)} scored, {len(metrics.cases)} evaluated"
        groups.setdefault(f"{counted(len(found.cases), 'case')} ({seen}) and {classes} in common", []).append(
            table.quantifier
        )
    named = [what if len(groups) == 1 else f"{', '.join(who)}: {what}" for what, who in groups.items()]
    console.info(f"correlate: {'; '.join(named)}")
    if len({frozenset(found.cases) for found in shared}) > 1:
        console.warn("the score tables do not hold the same cases: their rows are not of the same points")
    alone = [
        f"{table.quantifier}: {console.some(left)}"
        for table, found in zip(scores, shared, strict=True)
        if (left := [name for name in table.class_names if name not in found.class_names])
    ]
    if alone:
        console.warn(f"classes that are scored but not evaluated are left out ({'; '.join(alone)})")


def _say_what_it_rests_on(rows: Sequence[Row]) -> None:
    few = [row for row in rows if isinstance(row["n"], int) and row["n"] < _FEW_POINTS]
    if few:
        console.warn(
            f"{len(few)} of {counted(len(rows), 'row')} with fewer than {_FEW_POINTS} points: "
            "such p values and intervals mean little"
        )
    tested = sum(row["pearson"] is not None for row in rows)
    if tested > _MANY_ROWS:
        console.warn(
            f"{tested} rows are tested at once and no p value is corrected for it; "
            f"0.05 for all together is {0.05 / tested:.2g} for one (Bonferroni)"
        )


def _print_layout(rows: Sequence[Row]) -> None:
    """Table 4's layout, one row a quantifier; on a narrow terminal without the intervals, level and class in one."""
    names = _short_names(rows)
    columns = ["quantifier", "level", "class", "n", *_COEFFICIENTS]
    shown = [_readable(row, names, with_interval=True) for row in rows]
    widths = [max(len(name), *(len(str(row[name])) for row in shown)) for name in columns]
    if sum(widths) + 2 * (len(widths) - 1) > shutil.get_terminal_size().columns:
        columns = ["quantifier", "points", "n", *_COEFFICIENTS]
        shown = [_readable(row, names, with_interval=False) for row in rows]
        console.info("correlate: the terminal is too narrow for the intervals; -o T.csv holds them")
    console.print_table(shown, columns)


def _short_names(rows: Sequence[Row]) -> dict[tuple[Cell, Cell], str]:
    """The name of each quantifier; where it was measured in several ways, with the words that tell them apart."""
    methods: dict[Cell, dict[str, list[str]]] = {}
    for row in rows:
        method = str(row["method"])
        methods.setdefault(row["quantifier"], {})[method] = method.replace(";", " ").split()
    names: dict[tuple[Cell, Cell], str] = {}
    for quantifier, words_of in methods.items():
        common = set.intersection(*map(set, words_of.values()))
        for method, words in words_of.items():
            own = " ".join(word for word in words if word not in common)
            names[quantifier, method] = f"{quantifier} {own}" if len(words_of) > 1 and own else str(quantifier)
    return names


def _readable(row: Row, names: dict[tuple[Cell, Cell], str], *, with_interval: bool) -> Row:
    texts = (
        _coefficient(row, "pearson", with_interval=with_interval),
        _p(row["pearson_p"]),
        _coefficient(row, "spearman", with_interval=with_interval),
        _p(row["spearman_p"]),
        _coefficient(row, "partial_spearman", with_interval=False),
        _p(row.get("partial_spearman_p")),
    )
    of_class = row["level"] == "cases" and row["class_name"] != "all"
    return {
        "quantifier": names[row["quantifier"], row["method"]],
        "level": row["level"],
        "n": row["n"],
        "class": row["class_name"],
        "points": f"{row['level']}: {row['class_name']}" if of_class else row["level"],
        **dict(zip(_COEFFICIENTS, texts, strict=True)),
    }


def _coefficient(row: Row, name: str, *, with_interval: bool) -> str:
    coefficient, low, high = (row.get(key) for key in (name, f"{name}_low", f"{name}_high"))
    if coefficient is None:
        return "-"
    return f"{coefficient:6.3f}" + (f" [{low:5.2f}, {high:5.2f}]" if with_interval and low is not None else "")


def _p(value: Cell) -> str:
    if value is None:
        return "-"
    return "<0.001" if float(value) < 0.001 else f"{float(value):.3f}"
