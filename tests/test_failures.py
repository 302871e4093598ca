"""The table of failed cases."""

from auvtool.failures import failure_row, failures_path, write_failures
from auvtool.schema import FAILURES
from auvtool.tables import read_table


def test_the_table_stands_beside_the_output_until_a_run_without_failures(tmp_path):
    path = failures_path(tmp_path / "F.h5")
    assert path == tmp_path / "F.h5.failures.csv"
    write_failures([failure_row("b", "read", "no label"), failure_row("a", "extract", "one, two")], path)
    assert path.read_text() == 'case,step,error\nb,read,no label\na,extract,"one, two"\n'
    write_failures([failure_row("a", "extract", "again")], path)
    assert read_table(path, FAILURES) == [{"case": "a", "step": "extract", "error": "again"}]
    write_failures([], path)
    assert not path.exists()
    write_failures([], path)
