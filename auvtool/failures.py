"""The table of the cases that failed: beside the output that they are not in, or in the data set."""

from collections.abc import Sequence
from pathlib import Path

from auvtool.schema import FAILURES, Row
from auvtool.tables import write_table

FAILURES_NAME = "failures.csv"  # in the folder of a data set


def failures_path(output: Path) -> Path:
    """Where the table stands beside an output."""
    return output.with_name(output.name + ".failures.csv")


def failure_row(case_id: str, step: str, error: str) -> Row:
    """A case that failed, the step in which it did, and what was wrong, on one line."""
    return {"case": case_id, "step": step, "error": error}


def write_failures(failures: Sequence[Row], path: Path) -> None:
    """Write the table; of a run without failures none stays, not even that of an earlier run.

    Raises:
        OutputError: see `write_table`.
    """
    if failures:
        write_table(failures, FAILURES, path, force=True)
    else:
        path.unlink(missing_ok=True)
