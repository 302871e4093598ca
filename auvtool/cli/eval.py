"""`auvtool eval`."""

import importlib.util
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from auvtool import console
from auvtool.atomic import is_piped, refuse_existing, write_text
from auvtool.cli.one_run import one_run_at_a_time
from auvtool.cli.options import (
    Cluster,
    Force,
    Jobs,
    KeepGoing,
    Output,
    Seed,
    check_second_output,
    is_typed,
    refuse_input_as_output,
    workplace_of,
)
from auvtool.errors import CasesFailed, InputError, UsageError
from auvtool.failures import failures_path, write_failures
from auvtool.schema import METRICS
from auvtool.tables import STANDARD_STREAM, TableFormat, check_output, write_table

if TYPE_CHECKING:
    from auvtool.evaluation import Evaluation
    from auvtool.evaluation_pairs import Comparison
    from auvtool.surface_distances import SurfaceMeasures

_NNUNET = "nnunet"
_IDLE_IN_COMPARISON = {
    "predictions": "PRED",
    "dataset_json": "-d",
    "hd95": "--hd95",
    "nsd": "--nsd",
    "means": "--means",
    "jobs": "--jobs",
    "cluster": "--cluster",
    "keep_going": "--keep-going",
}
_OF_COMPARISON = {"resamples": "--resamples", "seed": "--seed"}


@one_run_at_a_time(lambda options: options["output"], lambda options: options["means"])
def eval(
    context: typer.Context,
    predictions: Annotated[
        Path | None, typer.Argument(metavar="PRED", help="Folder of predicted label maps.", show_default=False)
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Argument(
            metavar="LABELS",
            help="Folder of reference label maps, or an nnU-Net raw data set.",
            show_default=False,
        ),
    ] = None,
    *,
    dataset_json: Annotated[
        Path | None,
        typer.Option(
            "-d", "--dataset-json", help="Tells the classes; by default the one in or beside LABELS, or in PRED."
        ),
    ] = None,
    hd95: Annotated[
        bool, typer.Option("--hd95", help="Also the 95th percentile of the Hausdorff distance (needs auvtool[monai]).")
    ] = False,
    nsd: Annotated[
        float | None,
        typer.Option(
            "--nsd",
            metavar="MM",
            help="Also the normalised surface distance: the share of both surfaces within MM of the other one.",
        ),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare", metavar="A.csv B.csv", help="Instead: what changed from the metrics of run A to those of B."
        ),
    ] = None,
    output: Output = STANDARD_STREAM,
    table_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="csv, tsv, json, jsonl, parquet, or nnunet (summary.json); by default the output's ending.",
        ),
    ] = None,
    means: Annotated[
        Path | None,
        typer.Option("--means", metavar="FILE", help="Also the means as JSON, which `dvc metrics show` reads."),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Evaluate (compare) the cases that are there, and name the others.")
    ] = False,
    resamples: Annotated[
        int,
        typer.Option(
            "--resamples", metavar="N", min=0, help="Samples that --compare draws for its intervals; 0: none."
        ),
    ] = 2000,
    seed: Seed = 0,
    jobs: Jobs = 1,
    cluster: Cluster = None,
    keep_going: KeepGoing = True,
    force: Force = False,
) -> None:
    """Compare predictions with references: Dice and IoU of each class in each case.

    Files belong together by name. A case that has neither reference nor predicted voxels of a class says nothing about
    it (status absent, no Dice, no part of a mean); a class that is only predicted (false_alarm) or only in the
    reference (missed) counts 0 in Dice, IoU and NSD, and has no HD95. Voxels of the ignore label count nowhere. A
    reference case without a prediction is an error. On a terminal, and on stderr beside a file, the means of the
    classes are printed as a table.

    --compare pairs two such tables by case and class: mean difference with its bootstrap interval (95 %), how often B
    is better or worse, and the p of Wilcoxon's signed-rank test, also corrected for the number of classes (Holm).

    \b
      auvtool eval P Dataset004_Hippocampus -o M.csv
      auvtool eval P Dataset004_Hippocampus --hd95 --nsd 1 -o M.csv --means M.json
      auvtool eval P labelsTs -d dataset.json --format nnunet -o summary.json
      auvtool eval RUN/fold_0/validation Dataset004_Hippocampus --allow-missing | head
      auvtool eval --compare baseline.csv filtered.csv -o change.csv
    """
    if compare is not None:
        table_format = _format_of_comparison(context, table_format)
        check_output(output, requested=table_format, force=force)
        refuse_input_as_output(output, compare)

        from auvtool.cli.eval_comparison import compare_tables

        compare_tables(
            compare,
            output,
            table_format=table_format,
            allow_missing=allow_missing,
            resamples=resamples,
            seed=seed,
            force=force,
        )
        return
    _refuse_options_of_comparison(context, table_format)
    if table_format != _NNUNET:
        check_output(output, requested=table_format, force=force)
    elif output != STANDARD_STREAM:
        refuse_existing(output, force=force)
    if predictions is None or labels is None:
        raise UsageError("eval: expected PRED and LABELS, or --compare A.csv B.csv, got less; see auvtool eval --help")
    if means is not None:
        check_second_output(means, "--means", output, force=force)

    from auvtool.evaluation import evaluate
    from auvtool.evaluation_pairs import find_pairs

    workplace = workplace_of(context, jobs=jobs, cluster=cluster)
    surfaces = _surface_measures(hd95=hd95, nsd=nsd)
    comparison = find_pairs(predictions, labels, dataset_json=dataset_json)
    refuse_input_as_output(output, [comparison.dataset_json])
    _check_matches(comparison, labels, allow_missing=allow_missing)
    with console.progress("eval", len(comparison.pairs)) as progress:
        result = evaluate(
            comparison, surfaces=surfaces, workplace=workplace, keep_going=keep_going, on_case=progress.advance
        )
    for case in result.cases:
        for note in case.warnings:
            console.warn(note)
    if result.cases:
        _write(result, output, means, table_format=table_format, force=force)
    if result.cases and not is_piped(output):
        _write_manifest(result, output, predictions, labels, allow_missing=allow_missing, table_format=table_format)
    _report_failures(result, output)


def _format_of_comparison(context: typer.Context, table_format: str | None) -> str | None:
    """--format for --compare, once what was typed beside it is refused; defaults of a file are for the other mode.

    Raises:
        UsageError: an option that would change nothing stands on the command line.
    """
    idle = [option for name, option in _IDLE_IN_COMPARISON.items() if is_typed(context, name)]
    if table_format == _NNUNET:
        if is_typed(context, "table_format"):
            idle.append("--format nnunet")
        table_format = None
    if idle:
        raise UsageError(f"{idle[0]}: expected none with --compare, which reads two tables, got one; leave it out")
    return table_format


def _refuse_options_of_comparison(context: typer.Context, table_format: str | None) -> None:
    """Refuse what only --compare draws with, and a --format that nothing here has.

    Raises:
        UsageError: see above.
    """
    for name, option in _OF_COMPARISON.items():
        if is_typed(context, name):
            raise UsageError(f"{option}: expected --compare beside it, which draws samples, got none; leave it out")
    formats = (*get_args(TableFormat), _NNUNET)
    if table_format is not None and table_format not in formats:
        raise UsageError(f"--format: expected one of {', '.join(formats)}, got {table_format}; choose one of them")


def _surface_measures(*, hd95: bool, nsd: float | None) -> "SurfaceMeasures":
    """What is asked for of surfaces.

    Raises:
        UsageError: the tolerance is none, or MONAI is not installed.
    """
    from auvtool.surface_distances import SurfaceMeasures

    if nsd is not None and not 0 <= nsd < math.inf:
        raise UsageError(f"--nsd: expected a tolerance in mm, 0 or more, got {nsd:g}; say --nsd 1")
    if (hd95 or nsd is not None) and importlib.util.find_spec("monai") is None:
        raise UsageError("--hd95, --nsd: expected the package monai, got none; pip install 'auvtool[monai]'")
    return SurfaceMeasures(hd95=hd95, nsd_tolerance_mm=nsd)


def _write(result: "Evaluation", output: Path, means: Path | None, *, table_format: str | None, force: bool) -> None:
    """The table, the means in a file if they are asked for, and the means to read."""
    from auvtool.evaluation import class_means, metrics_rows

    on_terminal = console.wants_reading(output, table_format)
    if table_format == _NNUNET:
        _write_summary(result, output, force=force)
    elif not on_terminal:
        write_table(metrics_rows(result), METRICS, output, requested=table_format, force=force)
    if means is not None:
        from auvtool.dvc_metrics import render_means

        write_text(means, render_means(result), force=force)
    if on_terminal or output != STANDARD_STREAM:
        rows = class_means(result)
        n_cases = len(result.comparison.pairs) + len(result.comparison.missing)
        title = f"means over {len(result.cases)} of {n_cases} cases"
        asked = {"hd95_mm": result.surfaces.hd95, "nsd": result.surfaces.nsd_tolerance_mm is not None}
        columns = [name for name in rows[0] if asked.get(name, True)]
        console.print_table(rows, columns, title=title, to_stderr=not on_terminal)


def _check_matches(comparison: "Comparison", labels: Path, *, allow_missing: bool) -> None:
    if comparison.extra:
        console.warn(f"predictions without a reference, left out: {console.some(comparison.extra)}")
    if not comparison.missing:
        return
    names = console.some(comparison.missing)
    if not allow_missing:
        raise InputError(
            labels,
            expected=f"a prediction of each of {len(comparison.pairs) + len(comparison.missing)} cases",
            found=f"none of {names}",
            cure="predict them too, or say --allow-missing",
        )
    console.warn(f"cases without a prediction, in no mean: {names}")


def _write_summary(result: "Evaluation", output: Path, *, force: bool) -> None:
    from auvtool.nnunet_summary import render_summary

    text = render_summary(result)
    if output == STANDARD_STREAM:
        print(text)
    else:
        write_text(output, text, force=force)


def _write_manifest(
    result: "Evaluation",
    output: Path,
    predictions: Path,
    labels: Path,
    *,
    allow_missing: bool,
    table_format: str | None,
) -> None:
    from auvtool.manifest import write_manifest

    write_manifest(
        output,
        command="eval",
        options={
            "dataset_json": result.comparison.dataset_json,
            "allow_missing": allow_missing,
            "format": table_format,
            "hd95": result.surfaces.hd95,
            "nsd": result.surfaces.nsd_tolerance_mm,
        },
        inputs=[predictions, labels, result.comparison.dataset_json],
        counts={
            "cases": len(result.cases),
            "failed": len(result.failures),
            "missing": len(result.comparison.missing),
            "extra": len(result.comparison.extra),
        },
    )


def _report_failures(result: "Evaluation", output: Path) -> None:
    for row in result.failures:
        console.error(f"{row['case']}: {row['error']}")
    if is_piped(output):
        seen = ""
    else:
        write_failures(result.failures, failures_path(output))
        seen = f"; see {failures_path(output)}"
    if result.failures:
        raise CasesFailed(
            f"{len(result.failures)} of {len(result.comparison.pairs)} cases could not be evaluated{seen}"
        )
