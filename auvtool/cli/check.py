"""`auvtool check`."""

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auvtool import console
from auvtool.atomic import is_piped
from auvtool.cli.one_run import one_run_at_a_time
from auvtool.cli.options import Force, Format, Jobs, MaxMemory, Output, names_of, workplace_of
from auvtool.errors import InputError
from auvtool.plural import counted
from auvtool.schema import FINDINGS, Row
from auvtool.tables import STANDARD_STREAM, check_output, stream_table, write_table

if TYPE_CHECKING:
    from auvtool.cases import Dataset
    from auvtool.checks import Finding

_SHOWN_CODES = 8


@one_run_at_a_time(lambda options: options["output"])
def check(
    context: typer.Context,
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="nnU-Net raw data set; it stays as it is.")],
    *,
    output: Output = STANDARD_STREAM,
    select: Annotated[
        str | None,
        typer.Option("--select", metavar="A,B", help="Look for these only: codes, beginnings of codes, or names."),
    ] = None,
    ignore: Annotated[
        str | None, typer.Option("--ignore", metavar="A,B", help="Do not look for these: codes, beginnings, or names.")
    ] = None,
    jobs: Jobs = 1,
    max_memory: MaxMemory = None,
    table_format: Format = None,
    force: Force = False,
) -> None:
    """Look for faults of a data set that nnU-Net does not look for, and for those it does; one line a finding.

    Files that are missing, truncated or misnamed; headers that do not fit one another; NaN; CT that is not in
    Hounsfield units; a series appended to itself; labels with wrong values, gaps, holes, stray pieces, odd volumes,
    left and right exchanged; the same scan twice. `auvtool info rules` lists all rules with their codes.

    An error certainly is a fault, a warning is to be looked at. Exit 0 with no finding or warnings alone, 3 with an
    error. Findings come as the cases finish, in the order of the cases; what only the whole data set tells comes last.

    \b
      auvtool check Dataset004_Hippocampus
      auvtool check Dataset004_Hippocampus -o FINDINGS.csv -j 4
      auvtool check Dataset003_Liver --select F,G,L003
      auvtool check Dataset003_Liver --ignore orientation --format jsonl | jq -r .case | sort -u
    """
    from auvtool.checking import check_dataset, finding_row
    from auvtool.checks import chosen_codes
    from auvtool.checks.files import survey

    workplace = workplace_of(context, jobs=jobs, max_memory=max_memory)
    codes = chosen_codes(names_of(select, "--select"), names_of(ignore, "--ignore"))
    check_output(output, requested=table_format, force=force)
    opened = survey(dataset)
    case_ids = _case_ids(opened)
    streamed = output == STANDARD_STREAM
    # A bar would take the lines of stdout for its own.
    counter = nullcontext(console.Progress("check", len(case_ids))) if streamed else None
    found: list[Row] = []

    with counter or console.progress("check", len(case_ids)) as bar:

        def rows() -> Iterator[Row]:
            findings = check_dataset(
                opened,
                codes=codes,
                workplace=workplace,
                on_case=bar.advance,
                on_worker_died=console.warn_of_killed_worker,
            )
            for finding in findings:
                found.append(finding_row(finding))
                yield found[-1]

        if console.wants_reading(output, table_format):
            _print_rows(rows(), max(map(len, case_ids), default=1))
        elif streamed:
            stream_table(rows(), FINDINGS, requested=table_format)
        else:
            write_table(list(rows()), FINDINGS, output, requested=table_format, force=force)
    counts = Counter(str(row["severity"]) for row in found)
    if not is_piped(output):
        from auvtool.manifest import write_manifest

        options = {"select": select, "ignore": ignore}
        totals = {"cases": len(case_ids), "errors": counts["error"], "warnings": counts["warning"]}
        write_manifest(output, command="check", options=options, inputs=[dataset], counts=totals)
    console.info(
        f"check: {counted(len(case_ids), 'case')} of {dataset.absolute().name}: {counted(counts['error'], 'error')}, "
        f"{counted(counts['warning'], 'warning')}"
    )
    if counts["error"]:
        raise _errors(dataset, [row for row in found if row["severity"] == "error"])


def _case_ids(opened: "Dataset | Finding") -> list[str]:
    from auvtool.cases import Dataset

    if not isinstance(opened, Dataset):
        return []
    return sorted({case.case_id for case in opened.cases} | {problem.case_id for problem in opened.problems})


def _print_rows(rows: Iterator[Row], width: int) -> None:
    for row in rows:
        place = "" if row["slice"] is None else f", slice {row['slice']}"
        where = f"{row['file']}{place}: " if row["file"] else ""
        cells = (str(row["case"] or "-"), str(row["code"]), str(row["severity"]))
        console.print_columns([*cells, f"{where}{row['what']}; {row['cure']}"], (width, 4, 7))


def _errors(dataset: Path, errors: list[Row]) -> InputError:
    codes = Counter(str(row["code"]) for row in errors)
    shown = ", ".join(f"{code} {n}" for code, n in sorted(codes.items())[:_SHOWN_CODES])
    shown += ", ..." if len(codes) > _SHOWN_CODES else ""
    cases = {row["case"] for row in errors} - {None}
    return InputError(
        dataset,
        expected="no errors",
        found=f"{len(errors)} in {counted(len(cases), 'case')} ({shown})",
        cure="correct them, or leave these cases out",
    )
