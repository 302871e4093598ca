"""`auvtool merge`."""

from pathlib import Path
from typing import Annotated, get_args

import typer

from auvtool import console
from auvtool.atomic import is_piped, refuse_existing
from auvtool.cli.one_run import one_run_at_a_time
from auvtool.cli.options import Force, Format, refuse_input_as_output
from auvtool.errors import UsageError
from auvtool.plural import counted
from auvtool.tables import TableFormat, check_output, write_table

_HDF5 = {".h5", ".hdf5"}


@one_run_at_a_time(lambda options: options["output"])
def merge(
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Feature files, or tables of one kind.")],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write; tables also to '-'.")],
    table_format: Format = None,
    force: Force = False,
) -> None:
    """Join the feature files of shards, or tables of metrics, failures or keep lists.

    Feature files must come from one data set, model and set of options. A case may stand in two of them only if both
    hold the same numbers. The result does not depend on how the cases were divided. Scores are not joined: AUV is
    relative to the cases that were scored together, so merge features and score the result.

    \b
      auvtool merge F.*.h5 -o F.h5
      auvtool merge fold*/M.csv -o M.csv
    """
    if all(path.suffix.lower() not in _HDF5 for path in files):
        _merge_tables(files, output, table_format, force=force)
        return
    if table_format is not None or output.suffix.lower().lstrip(".") in get_args(TableFormat):
        asked = output if table_format is None else f"--format {table_format}"
        raise UsageError(f"merge: expected a file of features to write (-o F.h5), got {asked}; features are no table")
    if is_piped(output):
        raise UsageError(f"-o: expected a file, got {output}; HDF5 cannot stream, name a file (-o F.h5)")
    refuse_existing(output, force=force)
    refuse_input_as_output(output, files)

    from auvtool.manifest import write_manifest
    from auvtool.merging import merge_features

    n_cases, header = merge_features(files, output, force=force)
    counts = {"cases": n_cases, "files": len(files)}
    write_manifest(output, command="merge", options={}, inputs=files, counts=counts, model_sha256=header.weights_sha256)
    console.info(f"merge: {counted(n_cases, 'case')} of {counted(len(files), 'file')} in {output}")


def _merge_tables(files: list[Path], output: Path, table_format: str | None, *, force: bool) -> None:
    if output.suffix.lower() in _HDF5:
        raise UsageError(f"-o: expected a file for a table (-o M.csv), got {output}; tables are no features")
    check_output(output, requested=table_format, force=force)
    refuse_input_as_output(output, files)

    from auvtool.merging import merge_tables

    rows, schema = merge_tables(files)
    write_table(rows, schema, output, requested=table_format, force=force)
    where = "" if is_piped(output) else f" in {output}"
    console.info(f"merge: {counted(len(rows), 'row')} ({schema.name}) of {counted(len(files), 'file')}{where}")
