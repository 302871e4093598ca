"""`auvtool report`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from auvtool import console
from auvtool.atomic import is_piped, refuse_existing, write_text
from auvtool.cli.one_run import one_run_at_a_time
from auvtool.cli.options import Force, Output, refuse_input_as_output
from auvtool.errors import CasesFailed, UsageError
from auvtool.failures import failure_row, failures_path, write_failures
from auvtool.plural import counted
from auvtool.tables import STANDARD_STREAM

if TYPE_CHECKING:
    from auvtool.report.content import Inputs, Report

_Kind = Literal["html", "md"]
_ENDINGS = (".html", ".htm", ".md", "")
_MOST = 50  # cases with slices at each end: more would make the file slow to open


@one_run_at_a_time(lambda options: options["output"])
def report(
    scores: Annotated[Path, typer.Argument(metavar="S.csv", help="Scores that score or calibrate wrote; '-': stdin.")],
    *,
    output: Output = STANDARD_STREAM,
    features: Annotated[
        Path | None,
        typer.Option("--features", metavar="F.h5", help="Of the same cases: energy curves, decoded maps, evidence."),
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option("--dataset", metavar="DATASET", help="Of the same cases: slices with their outlines.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="K.csv", help="Keep list: says what is kept and dropped.")
    ] = None,
    metrics: Annotated[Path | None, typer.Option("--metrics", metavar="M.csv", help="Metrics that eval wrote.")] = None,
    training: Annotated[
        Path | None, typer.Option("--training", metavar="RUN", help="Run that train wrote: its training curves.")
    ] = None,
    top: Annotated[
        int,
        typer.Option(
            "--top",
            metavar="N",
            min=0,
            max=_MOST,
            help="Show slices of the N most uncertain cases and of the N most certain ones; in Markdown list N cases.",
        ),
    ] = 6,
    case: Annotated[
        str | None, typer.Option("--case", metavar="CASE", help="Report on this one case, with all its classes.")
    ] = None,
    report_format: Annotated[
        Literal["html", "md"] | None,
        typer.Option(
            "--format",
            help="html, or md for a pull request; by default the output's ending, md on a terminal, else html.",
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Write what scores say of a data set as one HTML file that needs nothing else.

    Ranked cases with value, AUV and reason, what a filter would drop, AUV distributions, AUV against size, and a table
    of the classes; with --dataset the slices that matter of the cases at both ends, with --features energy curves and,
    where it holds maps (extract --store both), the decoded map beside each slice. The file works offline and printed;
    its script only sorts and filters. Slices are pictures of patients: treat the file as you treat the scans.

    \b
      auvtool report S.csv --features F.h5 --dataset Dataset004_Hippocampus --keep K.csv -o R.html
      auvtool report S.csv --metrics M.csv --training RUN -o R.html
      auvtool report S.csv --case hippocampus_156 --features F.h5 --dataset Dataset004_Hippocampus -o one.html
      auvtool report S.csv --format md >> summary.md
    """
    kind = _kind(output, report_format)
    if output != STANDARD_STREAM:
        refuse_existing(output, force=force)
        refuse_input_as_output(output, [path for path in (scores, features, keep, metrics) if path is not None])

    from auvtool.report.content import Inputs
    from auvtool.report.content import report as make_report
    from auvtool.report.html import render_html
    from auvtool.report.markdown import render_markdown

    inputs = Inputs(scores, features, dataset, keep, metrics, training)
    with_pictures = kind == "html"
    if with_pictures and dataset is not None:
        with console.progress("report", 1 if case is not None else 2 * top) as progress:
            made = make_report(inputs, top=top, case_id=case, on_case=progress.advance)
    else:
        made = make_report(inputs, top=top, case_id=case, with_pictures=with_pictures)
    text = render_html(made.page) if kind == "html" else render_markdown(made.page, n_cases=top)
    if output == STANDARD_STREAM:
        print(text, end="")
    else:
        write_text(output, text, force=force)
        if not is_piped(output):
            _write_manifest(inputs, output, made, top=top, case=case, kind=kind)
        n_bytes = len(text.encode())
        size = f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:.0f} kB"
        about = "" if case is None else f"{case}, one of "
        console.info(f"report: {about}{counted(made.page.n_cases, 'case')}, {size} in {output}")
    _report_failures(made, output)


def _kind(output: Path, requested: "_Kind | None") -> "_Kind":
    suffix = output.suffix.lower()
    if requested is None and suffix not in _ENDINGS and not is_piped(output):
        raise UsageError(
            f"-o: expected a file that ends in .html or .md, got {output}; name such a file, or say which with --format"
        )
    return requested or ("md" if suffix == ".md" or console.wants_reading(output, requested) else "html")


def _write_manifest(inputs: "Inputs", output: Path, made: "Report", *, top: int, case: str | None, kind: _Kind) -> None:
    from auvtool.manifest import write_manifest

    given = (inputs.scores, inputs.features, inputs.dataset, inputs.keep, inputs.metrics, inputs.training)
    write_manifest(
        output,
        command="report",
        options={"top": top, "case": case, "format": kind},
        inputs=[path for path in given if path is not None],
        counts={"cases": made.page.n_cases, "with_slices": len(made.page.figures), "failed": len(made.failures)},
    )


def _report_failures(made: "Report", output: Path) -> None:
    for _, error in made.failures:
        console.error(error)
    if not is_piped(output):
        rows = [failure_row(case_id, "report", error) for case_id, error in made.failures]
        write_failures(rows, failures_path(output))
    if made.failures:
        raise CasesFailed(f"the slices of {counted(len(made.failures), 'case')} could not be shown; the page says so")
