"""`auvtool eval`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auvtool import console
from auvtool.atomic import is_stream, refuse_existing, write_text
from auvtool.cli.options import Cluster, Force, Jobs, KeepGoing, Output, workplace_of
from auvtool.errors import CasesFailed, InputError
from auvtool.schema import FAILURES, METRICS
from auvtool.tables import STANDARD_STREAM, check_output, write_table

if TYPE_CHECKING:
    from auvtool.evaluation import Comparison, Evaluation

_NNUNET = "nnunet"
_MEANS = ("class", "dice", "iou", "n_defined", "n_absent", "n_false_alarm", "n_missed")


def eval(
    predictions: Annotated[Path, typer.Argument(metavar="PRED", help="Folder of predicted label maps.")],
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", help="Folder of reference label maps, or an nnU-Net raw data set.")
    ],
    *,
    dataset_json: Annotated[
        Path | None,
        typer.Option(
            "-d", "--dataset-json", help="Tells the classes; by default the one in or beside LABELS, or in PRED."
        ),
    ] = None,
    output: Output = STANDARD_STREAM,
    table_format: Annotated[
        str | None,
        typer.Option(
            "--format", help="csv, tsv, json, jsonl, parquet, or nnunet (summary.json); by default the output's ending."
        ),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Evaluate the predictions that are there; the means are over those.")
    ] = False,
    jobs: Jobs = 1,
    cluster: Cluster = None,
    keep_going: KeepGoing = True,
    force: Force = False,
) -> None:
    """Compare predictions with references: Dice and IoU of each class in each case.

    Files belong together by name. A case that has neither reference nor predicted voxels of a class says nothing about
    it (status absent, no Dice, no part of a mean); a class that is only predicted (false_alarm) or only in the
    reference (missed) counts 0. Voxels of the ignore label count nowhere. A reference case without a prediction is an
    error. On a terminal, and on stderr beside a file, the means of the classes are printed as a table.

    \b
      auvtool eval P Dataset004_Hippocampus -o M.csv
      auvtool eval P labelsTs -d dataset.json --format nnunet -o summary.json
      auvtool eval RUN/fold_0/validation Dataset004_Hippocampus --allow-missing | head
    """
    if table_format != _NNUNET:
        check_output(output, requested=table_format, force=force)
    elif output != STANDARD_STREAM:
        refuse_existing(output, force=force)

    from auvtool.evaluation import class_means, evaluate, find_pairs, metrics_rows

    workplace = workplace_of(jobs=jobs, cluster=cluster)
    comparison = find_pairs(predictions, labels, dataset_json=dataset_json)
    _check_matches(comparison, labels, allow_missing=allow_missing)
    with console.progress("eval", len(comparison.pairs)) as progress:
        result = evaluate(comparison, workplace=workplace, keep_going=keep_going, on_case=progress.advance)
    for case in result.cases:
        for note in case.warnings:
            console.warn(note)
    if result.cases:
        on_terminal = console.wants_reading(output, table_format)
        if table_format == _NNUNET:
            _write_summary(result, output, force=force)
        elif not on_terminal:
            write_table(metrics_rows(result), METRICS, output, requested=table_format, force=force)
        title = f"means over {len(result.cases)} of {len(comparison.pairs) + len(comparison.missing)} cases"
        if on_terminal or output != STANDARD_STREAM:
            console.print_table(class_means(result), _MEANS, title=title, to_stderr=not on_terminal)
    if output != STANDARD_STREAM and not is_stream(output) and result.cases:
        _write_manifest(result, output, predictions, labels, allow_missing=allow_missing, table_format=table_format)
    _report_failures(result, output)


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
    beside = None if output == STANDARD_STREAM or is_stream(output) else output.with_name(output.name + ".failures.csv")
    if not result.failures:
        if beside is not None:
            beside.unlink(missing_ok=True)  # of an earlier run
        return
    for row in result.failures:
        console.error(f"{row['case']}: {row['error']}")
    if beside is not None:
        write_table(result.failures, FAILURES, beside, force=True)
    raise CasesFailed(f"{len(result.failures)} of {len(result.comparison.pairs)} cases could not be evaluated")
