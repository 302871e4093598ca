"""Tables written and read back, in every format, by files and pipes."""

import io
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auvtool import tables
from auvtool.errors import InputError, OutputError, UsageError
from auvtool.schema import KEEP_LIST, METRICS, SCORES, Row

ROWS: list[Row] = [
    {"case": "a,b", "keep": True, "auv": 0.1 + 0.2, "reason": None},
    {"case": 'quote"d\ttab', "keep": False, "auv": None, "reason": "organ: AUV 0.9 > 0.8"},
]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_write_then_read_is_identity(suffix, tmp_path):
    path = tmp_path / f"keep.{suffix}"
    tables.write_table(ROWS, KEEP_LIST, path)
    assert tables.read_table(path, KEEP_LIST) == ROWS


def test_csv_is_what_a_person_would_write(tmp_path):
    path = tmp_path / "keep.csv"
    tables.write_table(ROWS[:1], KEEP_LIST, path)
    assert path.read_bytes() == b'case,keep,auv,reason\n"a,b",true,0.30000000000000004,\n'


@given(
    value=st.floats(allow_nan=False, allow_infinity=False),
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r"), min_size=1),
)
def test_csv_keeps_every_digit_and_character(value, text):
    row: Row = {"case": text, "keep": True, "auv": value, "reason": None}
    body = tables.render([row], KEEP_LIST, "csv")
    records = tables._read_delimited(body, KEEP_LIST, "here")
    back = tables._typed(records, KEEP_LIST, "here", first_line=2)
    assert back[0]["case"] == text
    assert math.copysign(1, float(str(back[0]["auv"]))) == math.copysign(1, value)
    assert back[0]["auv"] == value


def test_a_pipe_is_read_and_written(monkeypatch, capsys):
    tables.write_table(ROWS, KEEP_LIST, tables.STANDARD_STREAM, requested="jsonl")
    written = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(written.encode())))
    assert tables.read_table(tables.STANDARD_STREAM, KEEP_LIST) == ROWS


def test_columns_of_the_user_are_left_out(tmp_path):
    path = tmp_path / "keep.csv"
    path.write_text("case,note,keep\na,mine,1\n")
    assert tables.read_table(path, KEEP_LIST) == [{"case": "a", "keep": True, "auv": None, "reason": None}]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "no rows"),
        (b"case,keep\n", "no rows"),
        (b"case,kept\na,true\n", "without keep"),
        (b"case,keep\na,maybe\n", "'maybe'"),
        (b"case,keep\n,true\n", "column case"),
        (b"case,keep,auv\na,true,high\n", "'high'"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b'{"case": "a"', "got Expecting"),
        (b"[1, 2]", "other JSON"),
    ],
)
def test_a_bad_table_is_one_clear_line(content, found, tmp_path):
    path = tmp_path / "keep.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        tables.read_table(path, KEEP_LIST)
    assert found in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_cell_names_its_line(tmp_path):
    path = tmp_path / "keep.csv"
    path.write_text("case,keep\na,true\nb,perhaps\n")
    with pytest.raises(InputError, match=r"keep\.csv:3: expected bool in column keep, got 'perhaps'"):
        tables.read_table(path, KEEP_LIST)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="expected a readable table"):
        tables.read_table(tmp_path / "none.csv", SCORES)


def test_an_existing_file_is_not_replaced_without_force(tmp_path):
    path = tmp_path / "keep.csv"
    path.write_text("mine")
    with pytest.raises(UsageError, match="--force"):
        tables.write_table(ROWS, KEEP_LIST, path)
    assert path.read_text() == "mine"
    tables.write_table(ROWS, KEEP_LIST, path, force=True)
    assert tables.read_table(path, KEEP_LIST) == ROWS


def test_a_full_disk_is_one_clear_line():
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(
        OutputError, match=r"/dev/full: expected to be able to write here, got 'No space left on device'"
    ):
        tables.write_table(ROWS, KEEP_LIST, full)


def test_formats_are_told_by_option_then_ending():
    assert tables.table_format(Path("a.tsv"), None) == "tsv"
    assert tables.table_format(Path("a.tsv"), "json") == "json"
    assert tables.table_format(Path("-"), None) == "csv"
    with pytest.raises(UsageError, match="got xlsx"):
        tables.table_format(Path("a.csv"), "xlsx")
    for stream in ("T", "/dev/stdout", "/dev/fd/1"):
        assert tables.table_format(Path(stream), None) == "csv"
    with pytest.raises(UsageError, match="on a pipe"):
        tables.table_format(Path("-"), "parquet")


@pytest.mark.parametrize("name", ["a.xlsx", "a.csv.gz", "a.txt", "a.TSV.bak"])
def test_an_ending_of_no_table_is_refused_unless_the_format_is_named(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(
        UsageError, match=r"-o: expected a file that ends in \.csv, \.tsv, \.json, \.jsonl, \.parquet, got"
    ):
        tables.write_table(ROWS, KEEP_LIST, path)
    assert not path.exists()
    tables.write_table(ROWS, KEEP_LIST, path, requested="tsv")
    assert path.read_text().startswith("case\tkeep\t")


def test_a_wide_table_is_not_listed_column_by_column():
    with pytest.raises(InputError) as told:
        tables.parse_table(b"case,dice\na,0.5\n", SCORES, "M.csv")
    assert str(told.value) == (
        "M.csv: expected a table (auvtool.scores) with columns case, class_id, class_name, status, ... (12 in all), "
        "got one without class_id, class_name, status, quantifier, ... (11 in all); give the file that the step "
        "before wrote"
    )


@pytest.mark.parametrize("text", ["inf", "-inf", "Infinity"])
def test_an_infinite_number_is_refused(text):
    with pytest.raises(InputError, match="float in column auv"):
        tables.parse_table(f"case,keep,auv\na,true,{text}\n".encode(), KEEP_LIST, "K.csv")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_whole_numbers_may_have_been_through_floats(suffix, tmp_path):
    rows: list[Row] = [dict.fromkeys(METRICS.column_names()) for _ in range(2)]
    for row, class_id, name in zip(rows, (2, None), ("tumour", "all"), strict=True):
        row |= {"case": "a", "class_id": class_id, "class_name": name, "status": "ok", "dice": 0.5, "iou": 0.25}
    path = tmp_path / f"M.{suffix}"
    tables.write_table(rows, METRICS, path)
    text = path.read_text()
    path.write_text(text.replace("a,2,", "a,2.0,").replace('"class_id": 2,', '"class_id": 2.0,'))  # as pandas writes it
    assert path.read_text() != text
    assert tables.read_table(path, METRICS) == rows
    path.write_text(text.replace("a,2,", "a,2.5,").replace('"class_id": 2,', '"class_id": 2.5,'))
    with pytest.raises(InputError, match="expected int in column class_id"):
        tables.read_table(path, METRICS)


def test_a_number_that_is_none_is_missing():
    (row,) = tables.parse_table(b"case,keep,auv\na,true,nan\n", KEEP_LIST, "K.csv")
    assert row["auv"] is None
