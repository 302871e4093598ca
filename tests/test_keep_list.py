"""Keep lists made from scores and read back."""

import io

import pytest

from auvtool.errors import InputError, UsageError
from auvtool.keep_list import KeepList, class_losses, class_presence, judge, read_keep_list, refuse_lost_class
from auvtool.schema import KEEP_LIST
from auvtool.tables import write_table


def scores(table, *, volumes=None):
    """SCORES rows of {case: (whole AUV, large AUV, small AUV)}; None stands for an absent class."""
    rows = []
    for case_id, (whole, *classes) in table.items():
        for class_id, (name, auv) in enumerate(zip(("large", "small"), classes, strict=True), start=1):
            status = "absent" if auv is None else "ok"
            volume = (volumes or {}).get(case_id)
            rows.append(
                {"case": case_id, "class_id": class_id, "class_name": name, "status": status, "auv": auv}
                | {"volume_ml": volume}
            )
        status = "absent" if whole is None else "ok"
        rows.append({"case": case_id, "class_id": None, "class_name": "all", "status": status, "auv": whole})
    return rows


TABLE = {"a": (0.0, 0.0, 1.0), "b": (0.5, 0.6, 0.0), "c": (1.0, 1.0, 0.8), "d": (None, None, None)}


def decisions(rows):
    return {row["case"]: row["keep"] for row in rows}


def test_global():
    rows = judge(scores(TABLE), 0.6)
    assert decisions(rows) == {"a": True, "b": True, "c": False, "d": True}
    assert [row["reason"] for row in rows] == [None, None, "AUV 1 above 0.5", "not judged: absent"]
    assert [row["auv"] for row in rows] == [0.0, 0.5, 1.0, None]


def test_read_back(tmp_path):
    path = tmp_path / "K.csv"
    write_table(judge(scores(TABLE), 0.6), KEEP_LIST, path)
    keep = read_keep_list(path)
    assert keep == KeepList(frozenset("abd"), frozenset("c"))
    assert keep.keeps("not scored")
    assert not keep.keeps("c")


def test_per_class_union_drops_what_every_class_would_drop():
    """With q = 0.5, large keeps up to 0.6 (a, b) and small up to 0.8 (b, c); only the absent case was not judged."""
    rows = judge(scores(TABLE | {"e": (0.9, 0.9, None)}), 0.5, per_class="union")
    assert decisions(rows) == {"a": True, "b": True, "c": True, "d": True, "e": False}
    assert rows[3]["reason"] == "not judged: no class with an AUV"
    assert rows[4]["reason"] == "large AUV 0.9 above 0.6"


def test_per_class_intersection_drops_what_any_class_would_drop():
    rows = judge(scores(TABLE), 0.5, per_class="intersection")
    assert decisions(rows) == {"a": False, "b": True, "c": False, "d": True}
    assert rows[0]["reason"] == "small AUV 1 above 0.8"


@pytest.mark.parametrize("chosen", ["small", "2"])
def test_chosen_classes(chosen):
    rows = judge(scores(TABLE), 0.5, per_class="intersection", classes=[chosen])
    assert decisions(rows) == {"a": False, "b": True, "c": True, "d": True}


def test_unknown_class():
    with pytest.raises(UsageError, match="--classes: expected classes among large, small, got tumour; correct them"):
        judge(scores(TABLE), 0.5, per_class="union", classes=["tumour"])


def test_scores_that_are_no_scores():
    rows = scores(TABLE)
    with pytest.raises(InputError, match="scores: a: expected one row for large, got two"):
        judge([*rows, rows[0]], 0.5)
    with pytest.raises(InputError, match="scores: a: expected a row for the whole case"):
        judge([row for row in rows if row["class_id"] is not None], 0.5)
    with pytest.raises(InputError, match="expected rows of classes, got whole cases only"):
        judge([row for row in rows if row["class_id"] is None], 0.5, per_class="union")


def test_a_class_must_keep_a_case():
    presence = class_presence(scores(TABLE | {"d": (0.2, 0.1, None)}))
    assert presence == {"large": frozenset("abcd"), "small": frozenset("abc")}
    refuse_lost_class(presence, frozenset("abcd"), frozenset("ad"))
    with pytest.raises(InputError, match="expected a training case left for every class, got none for small;"):
        refuse_lost_class(presence, frozenset("abcd"), frozenset("d"))
    refuse_lost_class(presence, frozenset("d"), frozenset("d"))  # what was not there cannot be lost


def test_what_each_class_loses():
    rows = scores(TABLE, volumes={"a": 1.0, "b": 3.0, "c": 0.5, "d": 9.0})
    large, small, whole = class_losses(rows, frozenset("abd"))
    assert (large.class_name, large.n_kept, large.n_dropped) == ("large", 2, 1)
    assert (large.median_ml_kept, large.median_ml_dropped) == (2.0, 0.5)
    assert small.n_dropped == 1
    assert (whole.class_name, whole.n_kept, whole.n_dropped, whole.tertiles) == ("all", 3, 1, ())
    assert class_losses(scores(TABLE), frozenset("ab"))[0].median_ml_kept is None


def test_a_class_named_all_is_not_taken_for_whole_cases():
    rows = [row | ({"class_name": "all"} if row["class_id"] == 1 else {}) for row in scores(TABLE)]
    named_all, small, whole = class_losses(rows, frozenset("abd"))
    assert (named_all.class_name, small.class_name, whole.class_name) == ("all", "small", "all")
    assert (named_all.n_kept, whole.n_kept) == (2, 3)


def test_a_class_is_found_by_name_before_id():
    renamed = [row | ({"class_name": "1"} if row["class_id"] == 2 else {}) for row in scores(TABLE)]
    by_small = decisions(judge(scores(TABLE), 0.6, per_class="union", classes=["small"]))
    assert decisions(judge(renamed, 0.6, per_class="union", classes=["1"])) == by_small


def test_what_is_dropped_by_size_tertile():
    volumes = {f"{number}": float(number + 1) for number in range(9)}
    table = dict.fromkeys(volumes, (0.5, 0.5, None))
    large, small, _ = class_losses(scores(table, volumes=volumes), frozenset("345678"))
    assert large.tertiles == ((3, 3), (0, 3), (0, 3))
    assert (small.n_kept, small.n_dropped, small.tertiles) == (0, 0, ())
    equal = class_losses(scores(table, volumes=dict.fromkeys(volumes, 2.0)), frozenset("345678"))[0]
    assert equal.tertiles == ((3, 9), (0, 0), (0, 0))  # cases of one size are in one third


def test_a_filter_by_class_needs_values_of_classes():
    rows = [{**row, "auv": row["auv"] if row["class_id"] is None else None} for row in scores(TABLE)]
    assert decisions(judge(rows, 0.6))["c"] is False
    with pytest.raises(InputError, match="AUVs of whole cases only"):
        judge(rows, 0.6, per_class="union")


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_every_format(tmp_path, ending):
    path = tmp_path / f"K.{ending}"
    write_table(judge(scores(TABLE), 0.6), KEEP_LIST, path)
    assert read_keep_list(path).dropped == {"c"}


def test_plain_ids(tmp_path, monkeypatch):
    path = tmp_path / "kept.txt"
    path.write_text("# from a spreadsheet\ncase_1\n\n  case.2 \r\n")
    keep = read_keep_list(path)
    assert keep == KeepList(frozenset({"case_1", "case.2"}), None)
    assert keep.keeps("case.2")
    assert not keep.keeps("case_3")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"case_7\n")))
    from auvtool.tables import STANDARD_STREAM

    assert read_keep_list(STANDARD_STREAM).kept == {"case_7"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"case,keep\na,true\na,false\n", "expected every case once, got a twice"),
        (b"a\na\n", "expected every case once, got a twice"),
        (b"case,keep\na,false\n", "expected at least one case to keep, got none"),
        (b"", "expected at least one case to keep, got none"),
        (b"case,keep\na,perhaps\n", "expected bool in column keep, got 'perhaps'"),
        (b"case,auv\na,0.1\n", "expected a table with columns case and keep, or ids one a line"),
        (b"\xff\xfe\n", "bytes that are not UTF-8 text"),
    ],
)
def test_bad_keep_list(tmp_path, content, message):
    path = tmp_path / "K.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_keep_list(path)


def test_missing_keep_list(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.csv: expected a readable table, got 'No such file or directory'"):
        read_keep_list(tmp_path / "nowhere.csv")
