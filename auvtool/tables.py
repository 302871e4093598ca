"""Tables in and out: csv, tsv, json, jsonl, parquet; '-' is standard input or output."""

import csv
import io
import json
import math
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from auvtool.atomic import atomic_path, is_stream, refuse_existing, write_text
from auvtool.errors import InputError, UsageError, one_line
from auvtool.file_limits import require_table_size, table_limit_bytes
from auvtool.json_text import parse_json
from auvtool.schema import Cell, Column, Row, TableSchema

TableFormat: TypeAlias = Literal["csv", "tsv", "json", "jsonl", "parquet"]
STANDARD_STREAM = Path("-")
# A longer line has no table: the largest cells are errors of a case, of some hundred characters.
_MOST_LINE_BYTES = 2**20
_SHOWN = 4  # columns that a message names
_PARQUET_ROW_BYTES = 100  # at least, once it is a row of Python values
# Where a spreadsheet sees a formula begin: within a text too, if its columns have semicolons between them (as in most
# of Europe).
_CELL_BEGINS, _FORMULA_BEGINS = '(^[ "]*|[;,\t\r\n]"*)', "('*)(?=[=+\\-@\t\r\n＝＋－＠].)"
_FORMULA = re.compile(_CELL_BEGINS + _FORMULA_BEGINS, re.DOTALL)
_QUOTED_FORMULA = re.compile(_CELL_BEGINS + "'" + _FORMULA_BEGINS, re.DOTALL)


def table_format(path: Path, requested: str | None) -> TableFormat:
    """The format asked for, else the one that the file's ending names; csv without an ending, and for a pipe.

    Raises:
        UsageError: `requested` is no table format, the ending names another one, or parquet was asked of a pipe.
    """
    formats: tuple[TableFormat, ...] = get_args(TableFormat)
    suffix = path.suffix.lower().lstrip(".")
    for known in formats:
        if known == (requested or suffix):
            if known == "parquet" and path == STANDARD_STREAM:
                raise UsageError("--format: expected csv, tsv, json or jsonl on a pipe, got parquet; name a file")
            return known
    if requested is not None:
        raise UsageError(f"--format: expected one of {', '.join(formats)}, got {requested}; choose one of them")
    if suffix and not is_stream(path):  # a spreadsheet would not open the csv that an .xlsx holds
        raise UsageError(
            f"-o: expected a file that ends in {', '.join(f'.{known}' for known in formats)}, got {path}; "
            "name such a file, or say which with --format"
        )
    return "csv"


def check_output(path: Path, *, requested: str | None, force: bool) -> None:
    """Refuse an output that cannot be written before any work is done for it (see `refuse_existing`)."""
    if table_format(path, requested) == "parquet":
        _pyarrow()
    if path != STANDARD_STREAM:
        refuse_existing(path, force=force)


def write_table(
    rows: Sequence[Row], schema: TableSchema, path: Path, *, requested: str | None = None, force: bool = False
) -> None:
    """Write `rows` in the column order of `schema`; the file appears whole or not at all.

    Numbers are written with the fewest digits that read back as the same value.

    Raises:
        UsageError, OutputError: see `atomic_path` and `table_format`.
    """
    kind = table_format(path, requested)
    if kind == "parquet":
        _write_parquet(rows, schema, path, force=force)
        return
    text = render(rows, schema, kind)
    if path == STANDARD_STREAM:
        sys.stdout.write(text)
    else:
        write_text(path, text, force=force)


def stream_table(rows: Iterable[Row], schema: TableSchema, *, requested: str | None = None) -> None:
    """Write `rows` on standard output as they come; json, which is one list, when the last is there.

    Raises:
        UsageError: see `table_format`.
    """
    kind = table_format(STANDARD_STREAM, requested)
    if kind == "json":
        sys.stdout.write(render(rows, schema, kind))
        return
    header = render([], schema, kind)
    sys.stdout.write(header)
    sys.stdout.flush()
    for row in rows:
        sys.stdout.write(render([row], schema, kind)[len(header) :])
        sys.stdout.flush()


def render(rows: Iterable[Row], schema: TableSchema, kind: TableFormat) -> str:
    """`rows` as the text of a csv, tsv, json or jsonl file.

    In csv and tsv what a spreadsheet takes for a formula in a text has a ' before it, which `read_table` takes away.
    """
    names = schema.column_names()
    records = [{name: row.get(name) for name in names} for row in rows]
    if kind == "json":
        return json.dumps(records, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if kind == "jsonl":
        return "".join(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)
    buffer = _LineFeeds()
    # Of the characters that end a line, the writer quotes those that it ends lines with.
    writer = csv.writer(buffer, delimiter="\t" if kind == "tsv" else ",", lineterminator="\r\n")
    writer.writerow(names)
    writer.writerows([_to_cell(record[name]) for name in names] for record in records)
    return buffer.getvalue()


class _LineFeeds(io.StringIO):
    """Takes whole lines that end with CR LF, and keeps them with LF alone."""

    def write(self, text: str, /) -> int:
        return super().write(text.removesuffix("\r\n") + "\n")


def read_table(path: Path, schema: TableSchema) -> list[Row]:
    """The rows of a table, each cell of its column's type; columns that the schema does not name are left out.

    The format is told by the content, not by the name, so that a pipe needs no option.

    Raises:
        InputError: the file is missing, is no table, lacks a column, or a cell is not of its column's type.
    """
    return parse_table(read_content(path), schema, "standard input" if path == STANDARD_STREAM else str(path))


def parse_table(content: bytes, schema: TableSchema, where: str) -> list[Row]:
    """The rows of a table that was read already; `where` is its name in messages (see `read_table`)."""
    if content[:4] == b"PAR1":
        return _typed(_read_parquet(content, schema, where), schema, where, first_line=1)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            where, expected=f"a table ({schema.name})", found="bytes that are not UTF-8 text", cure="check the file"
        ) from error
    try:
        if text.lstrip()[:1] == "[":
            return _typed(parse_json(text), schema, where, first_line=1)
        if text.lstrip()[:1] == "{":
            return _typed([parse_json(line) for line in text.split("\n") if line.strip()], schema, where, first_line=1)
    except ValueError as error:
        raise InputError(where, expected="JSON", found=one_line(error), cure="check the file") from error
    return _typed(_read_delimited(text, schema, where), schema, where, first_line=2)


def read_content(path: Path) -> bytes:
    """All bytes of a file, or of standard input if it is '-'.

    Raises:
        InputError: the file cannot be read, or is too large for a table.
    """
    most = table_limit_bytes() + 1  # one more tells that it is too large
    try:
        if path == STANDARD_STREAM:
            content = sys.stdin.buffer.read(most)
        else:
            require_table_size(path, path.stat().st_size)
            with path.open("rb") as file:  # which may be a pipe, that has no size
                content = file.read(most)
    except OSError as error:
        raise InputError(
            path, expected="a readable table", found=f"'{error.strerror}'", cure="check the path"
        ) from error
    require_table_size(path, len(content))
    return content


def _read_delimited(text: str, schema: TableSchema, where: str) -> list[dict[str, object]]:
    for start in range(0, len(text), _MOST_LINE_BYTES):
        if len(text) - start >= _MOST_LINE_BYTES and text.find("\n", start, start + _MOST_LINE_BYTES) < 0:
            raise InputError(
                where,
                expected=f"a table ({schema.name})",
                found=f"a line of more than {_MOST_LINE_BYTES} characters",
                cure="check the file",
            )
    header = text.split("\n", 1)[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in header else ",", strict=True)
    try:
        return [{str(key): _from_cell(value) for key, value in record.items()} for record in reader]
    except csv.Error as error:
        raise InputError(
            where, expected=f"a table ({schema.name})", found=one_line(error), cure="check the file"
        ) from error


def _typed(records: object, schema: TableSchema, where: str, *, first_line: int) -> list[Row]:
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise InputError(where, expected="a list of records", found="other JSON", cure="check the file")
    if not records:
        raise InputError(where, expected=f"a table ({schema.name})", found="no rows", cure="check the step before")
    needed = [column.name for column in schema.columns if column.required]
    missing = [name for name in needed if name not in records[0]]
    if missing:
        raise InputError(
            where,
            expected=f"a table ({schema.name}) with columns {_some(needed)}",
            found=f"one without {_some(missing)}",
            cure="give the file that the step before wrote",
        )
    return [
        {column.name: _cell(record.get(column.name), column, f"{where}:{line}") for column in schema.columns}
        for line, record in enumerate(records, start=first_line)
    ]


def _some(names: Sequence[str]) -> str:
    """The names, or the first of many and their number."""
    return ", ".join(names) if len(names) <= _SHOWN else f"{', '.join(names[:_SHOWN])}, ... ({len(names)} in all)"


def _cell(value: object, column: Column, where: str) -> Cell:
    if value is None or value == "":
        if column.nullable or not column.required:
            return None
        raise InputError(where, expected=f"a value in column {column.name}", found="none", cure="check the file")
    try:
        converted = _convert(value, column)
    except ValueError as error:
        raise InputError(
            where, expected=f"{column.type} in column {column.name}", found=repr(value), cure="check the file"
        ) from error
    if isinstance(converted, float) and math.isnan(converted):  # how other programs write a missing number
        return _cell(None, column, where)
    return converted


def _convert(value: object, column: Column) -> Cell:
    if isinstance(value, list | dict | bytes):
        raise ValueError("no single value")  # noqa: TRY004  # as any other cell that cannot be converted
    if column.type == "str":
        return str(value)
    if column.type == "bool":
        text = str(value).lower()
        if text not in {"true", "false", "1", "0"}:
            raise ValueError(text)
        return text in {"true", "1"}
    if column.type == "int":
        whole = int(str(value).removesuffix(".0"))  # pandas makes floats of a column with gaps
        if not -(2**63) <= whole < 2**63:  # what parquet can hold
            raise ValueError(whole)
        return whole
    number = float(str(value))
    if math.isinf(number):
        raise ValueError(number)
    return number


def _to_cell(value: Cell) -> str:
    """As csv and tsv hold a value: what looks like a formula to a spreadsheet has a ' before it."""
    return _FORMULA.sub(r"\1'\2", value) if isinstance(value, str) else _to_text(value)


def _from_cell(value: object) -> object:
    """The inverse of `_to_cell`; a ' before anything else is the user's own."""
    return _QUOTED_FORMULA.sub(r"\1\2", value) if isinstance(value, str) else value


def _to_text(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def _write_parquet(rows: Sequence[Row], schema: TableSchema, path: Path, *, force: bool) -> None:
    parquet = _pyarrow()
    import pyarrow as pa

    types = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
    columns = pa.schema([pa.field(column.name, types[column.type]) for column in schema.columns])
    table = pa.Table.from_pylist([{name: row.get(name) for name in columns.names} for row in rows], schema=columns)
    with atomic_path(path, force=force) as temporary:
        parquet.write_table(table, temporary)


def _read_parquet(content: bytes, schema: TableSchema, where: str) -> list[dict[str, object]]:
    parquet = _pyarrow()
    import pyarrow as pa

    try:
        file = parquet.ParquetFile(io.BytesIO(content))
        sizes = [file.metadata.row_group(number).total_byte_size for number in range(file.metadata.num_row_groups)]
        # A file of few bytes may repeat a value as often as it likes.
        require_table_size(where, max(sum(sizes), file.metadata.num_rows * _PARQUET_ROW_BYTES))
        fields = [field for field in file.schema_arrow if field.name in schema.column_names()]
        texts = [
            field.name for field in fields if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        ]
        # A text that stands in many rows is held once, until all of them were weighed.
        file = parquet.ParquetFile(io.BytesIO(content), read_dictionary=texts)
        table = file.read(columns=[field.name for field in fields], use_threads=False)
        require_table_size(where, sum(map(_text_bytes, table.columns)))
        return list(table.to_pylist())
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise InputError(
            where, expected=f"a table ({schema.name})", found=f"'{one_line(error)[:160]}'", cure="check the file"
        ) from error


def _text_bytes(column: Any) -> int:
    """Bytes of all texts of a column that holds each different one once; of any other column 0."""
    import pyarrow as pa
    from pyarrow import compute

    if not pa.types.is_dictionary(column.type):
        return 0
    lengths = (compute.binary_length(chunk.dictionary).take(chunk.indices) for chunk in column.chunks)
    return sum(compute.sum(of_chunk).as_py() or 0 for of_chunk in lengths)


def _pyarrow() -> Any:  # pyarrow ships no type information
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(
            "parquet: expected the package pyarrow, got none; pip install 'auvtool[parquet]' or use csv"
        ) from error
    return parquet
