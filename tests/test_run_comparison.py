import numpy as np
import pytest

from auvtool.errors import InputError
from auvtool.run_comparison import MetricsTable, compare_runs, read_metrics
from auvtool.schema import METRICS, PAIRED_METRICS
from auvtool.tables import read_table, render, write_table

DICE_A = {"a": (0.5, 0.8), "b": (0.6, None), "c": (0.7, 0.0), "d": (0.2, 0.9)}
DICE_B = {"a": (0.7, 0.8), "b": (0.5, 0.0), "c": (0.9, None), "d": (0.4, 0.7)}


def table(path, dice, **more):
    """A METRICS table of classes "x" (1) and "y" (2), with a row of the whole case."""
    rows = []
    for case, values in dice.items():
        for class_id, (name, value) in enumerate(zip("xy", values, strict=False), start=1):
            row = {"case": case, "class_id": class_id, "class_name": name, "status": "ok", "dice": value, "iou": value}
            rows.append(row | {"n_reference": 100 * class_id} | {key: call(case, name) for key, call in more.items()})
        rows.append({"case": case, "class_id": None, "class_name": "all", "status": "ok", "dice": 0.123})
    write_table(rows, METRICS, path, force=True)
    return read_metrics(path)


def compared(tmp_path, one=DICE_A, other=DICE_B, **more):
    tables = [table(tmp_path / f"{name}.csv", dice, **more) for name, dice in (("A", one), ("B", other))]
    return compare_runs(*tables, resamples=200, seed=0)


def row_of(found, class_name, metric="dice"):
    return next(row for row in found.rows if (row["class_name"], row["metric"]) == (class_name, metric))


def test_classes_by_hand(tmp_path):
    found = compared(tmp_path)
    x = row_of(found, "x")
    assert [x[name] for name in ("n", "n_only_a", "n_only_b", "n_better", "n_worse")] == [4, 0, 0, 3, 1]
    assert (x["mean_a"], x["mean_b"], x["difference"]) == pytest.approx((0.5, 0.625, 0.125))
    assert x["difference_low"] < 0.125 < x["difference_high"]
    y = row_of(found, "y")
    assert [y[name] for name in ("n", "n_only_a", "n_only_b", "n_better", "n_worse")] == [2, 1, 1, 0, 1]
    assert y["difference"] == pytest.approx(-0.1)
    assert y["difference_low"] is None
    assert (x["holm_p"], y["holm_p"]) == pytest.approx((min(1.0, 2 * x["wilcoxon_p"]), 1.0))
    assert found.n_cases == 4


def test_all_takes_a_case_as_the_mean_of_its_paired_classes(tmp_path):
    row = row_of(compared(tmp_path), "all")
    changes = [0.1, -0.1, 0.2, 0.0]  # of b and c class x alone is paired
    assert row["difference"] == pytest.approx(np.mean(changes))
    assert row["mean_a"] == pytest.approx(np.mean([0.65, 0.6, 0.7, 0.55]))
    assert (row["n"], row["n_only_a"], row["n_only_b"], row["holm_p"]) == (4, 1, 1, None)


def test_a_class_without_a_pair_has_no_numbers(tmp_path):
    found = compared(tmp_path, {"a": (0.5, None), "b": (0.5, 0.5)}, {"a": (0.5, 0.5), "b": (0.5, None)})
    row = row_of(found, "y")
    assert (row["n"], row["n_only_a"], row["n_only_b"]) == (0, 1, 1)
    assert row.get("difference") is None
    assert row_of(found, "x")["holm_p"] == 1.0
    nothing = compared(tmp_path, {"a": (None, None)}, {"a": (0.5, None)})
    assert row_of(nothing, "all")["n"] == 0
    assert read_back(tmp_path, nothing)[0]["mean_a"] is None


def read_back(tmp_path, found):
    (tmp_path / "C.csv").write_text(render(found.rows, PAIRED_METRICS, "csv"))
    return read_table(tmp_path / "C.csv", PAIRED_METRICS)


def test_less_distance_is_better(tmp_path):
    found = compared(tmp_path, hd95_mm=lambda case, name: 1.0, iou=lambda case, name: 0.5)
    assert {row["metric"] for row in found.rows} == {"dice", "iou", "hd95_mm"}
    one = table(tmp_path / "A.csv", DICE_A, hd95_mm=lambda case, name: 3.0)
    other = table(tmp_path / "B.csv", DICE_B, hd95_mm=lambda case, name: 2.0)
    row = row_of(compare_runs(one, other, resamples=0, seed=0), "x", "hd95_mm")
    assert (row["n_better"], row["n_worse"], row["difference"]) == (4, 0, -1.0)


def test_a_measure_of_one_run_alone_is_named(tmp_path):
    one, other = table(tmp_path / "A.csv", DICE_A, nsd=lambda case, name: 1.0), table(tmp_path / "B.csv", DICE_B)
    found = compare_runs(one, other, resamples=0, seed=0)
    assert found.measures_alone == (["nsd"], [])
    assert {row["metric"] for row in found.rows} == {"dice", "iou"}


def test_what_one_run_has_alone_is_named(tmp_path):
    less = {case: values[:1] for case, values in DICE_B.items() if case != "a"} | {"e": (0.5,)}
    found = compared(tmp_path, DICE_A, less)
    assert (found.alone, found.classes_alone, found.n_cases) == ((["a"], ["e"]), (["y"], []), 3)
    assert row_of(found, "x")["n"] == 3


def test_a_run_against_itself_changes_nothing(tmp_path):
    found = compared(tmp_path, DICE_A, DICE_A)
    assert {row["difference"] for row in found.rows} == {0.0}
    assert {row["wilcoxon_p"] for row in found.rows} == {1.0}
    assert {row["n_better"] + row["n_worse"] for row in found.rows} == {0}


def test_tables_that_do_not_belong_together_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected a case of"):
        compared(tmp_path, DICE_A, {"z": (0.5, 0.5)})
    one = table(tmp_path / "A.csv", DICE_A)
    with pytest.raises(InputError, match="same labels"):
        compare_runs(one, table(tmp_path / "B.csv", DICE_B, n_reference=lambda case, name: 101), resamples=0, seed=0)
    tolerances = [
        table(tmp_path / f"{mm}.csv", DICE_A, nsd=lambda case, name: 1.0, nsd_tolerance_mm=lambda case, name, mm=mm: mm)
        for mm in (1.0, 2.0)
    ]
    with pytest.raises(InputError, match=r"1\.0 mm\), got 2\.0 mm"):
        compare_runs(*tolerances, resamples=0, seed=0)
    rows = read_table(tmp_path / "A.csv", METRICS)
    write_table([*rows, rows[0]], METRICS, tmp_path / "twice.csv")
    with pytest.raises(InputError, match="two of a, x"):
        read_metrics(tmp_path / "twice.csv")
    write_table([row for row in rows if row["class_id"] is None], METRICS, tmp_path / "whole.csv")
    with pytest.raises(InputError, match="whole cases only"):
        read_metrics(tmp_path / "whole.csv")


def test_cases_are_listed_a_few_times_and_not_once_for_each_case(tmp_path, monkeypatch):
    asked = []
    listed = MetricsTable.cases.fget
    monkeypatch.setattr(MetricsTable, "cases", property(lambda self: asked.append(self) or listed(self)))
    dice = {f"case_{number:03d}": (0.5, 0.6) for number in range(200)}
    assert compared(tmp_path, dice, dice).n_cases == 200
    assert len(asked) < 10
