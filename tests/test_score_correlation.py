"""Points are put together as Table 4 puts them; the coefficients themselves are tested in test_correlation.py."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from score_tables import CASES, CLASSES, metric_row, random_tables, score_row

from auvtool.correlation_tables import common, metrics_table, read_tables, score_tables
from auvtool.errors import InputError, UsageError
from auvtool.quantifiers import QUANTIFIERS
from auvtool.schema import CORRELATIONS, METRICS, SCORES
from auvtool.score_correlation import correlation_rows
from auvtool.tables import write_table


def correlate(scores, metrics, *, metric="dice", **options):
    tables = [table for rows in scores for table in score_tables(rows, "S.csv")]
    return correlation_rows(tables, metrics_table(metrics, "M.csv", metric=metric), metric=metric, **options)


def key(row):
    return row["quantifier"], row["level"], row["class_name"]


def test_by_hand():
    # Class means of S: 1, 2, 3; of Dice: 0.2, 0.1, 0.6. r = 2 / sqrt 7 (test_correlation.py), ranks 2 1 3: rho = 0.5.
    scores, metrics = [], []
    for case, shift in (("a", -0.5), ("b", 0.5)):
        for class_id, dice in ((1, 0.2), (2, 0.1), (3, 0.6)):
            scores.append(score_row(case, class_id, class_id + shift))
            metrics.append(metric_row(case, class_id, dice + shift / 10))
    (row,) = correlate([scores], metrics, levels=["classes"])
    assert key(row) == ("auv", "classes", "all")
    assert (row["method"], row["metric"], row["n"]) == ("m", "dice", 3)
    assert row["pearson"] == pytest.approx(2 / math.sqrt(7), abs=1e-12)
    assert row["spearman"] == pytest.approx(0.5, abs=1e-12)
    assert row["spearman_p"] == pytest.approx(1.0)  # every order of three has |rho| >= 0.5
    assert (row["pearson_low"], row["spearman_high"]) == (None, None)  # 3 points are too few to resample
    assert row["partial_pearson"] == pytest.approx(row["pearson"])  # every class is of the same size


def test_rows_and_their_order():
    auv, metrics, _ = random_tables()
    fisher, _, _ = random_tables(1, quantifier="fisher", sign=-1.0)
    rows = correlate([auv, fisher], metrics)
    groups = [("classes", "all"), ("cases", "all"), *(("cases", name) for name in CLASSES.values())]
    assert [key(row) for row in rows] == [(name, *group) for group in groups for name in ("auv", "fisher")]
    assert [row["n"] for row in rows] == [3, 3, *[12] * 8]
    assert all(set(row) <= set(CORRELATIONS.column_names()) for row in rows)


def test_a_class_called_as_all_of_them():
    auv, metrics, _ = random_tables()
    first = CLASSES[1]
    renamed = [
        [row | {"class_name": "all"} if row["class_name"] == first else row for row in of] for of in (auv, metrics)
    ]
    rows = [key(row) for row in correlate([renamed[0]], renamed[1], levels=["cases"])]
    assert rows[:2] == [("auv", "cases", "all"), ("auv", "cases", "all (class)")]


def test_cases_equal_scipy_on_the_columns():
    scores, metrics, (value, dice, volume, slices) = random_tables()
    rows = {key(row): row for row in correlate([scores], metrics, levels=["cases"])}
    columns = {name: (value[:, c], dice[:, c], volume[:, c], slices[:, c]) for c, name in enumerate(CLASSES.values())}
    columns["all"] = (value.mean(axis=1), dice.mean(axis=1), volume.sum(axis=1), slices.max(axis=1))
    for name, (x, y, size, depth) in columns.items():
        row = rows["auv", "cases", name]
        assert row["pearson"] == pytest.approx(stats.pearsonr(x, y).statistic)
        assert row["pearson_p"] == pytest.approx(stats.pearsonr(x, y).pvalue)
        assert row["spearman"] == pytest.approx(stats.spearmanr(x, y).statistic)
        assert row["spearman_p"] == pytest.approx(stats.spearmanr(x, y).pvalue)
        assert -1 <= row["pearson_low"] < row["pearson_high"] <= 1
        covariates = np.column_stack([np.ones(12), np.log(size), np.log(depth)])
        left = [side - covariates @ np.linalg.lstsq(covariates, side, rcond=None)[0] for side in (x, y)]
        assert row["partial_pearson"] == pytest.approx(np.corrcoef(*left)[0, 1])
        covariates = np.column_stack([np.ones(12), stats.rankdata(size), stats.rankdata(depth)])
        ranks = [stats.rankdata(side) for side in (x, y)]
        left = [side - covariates @ np.linalg.lstsq(covariates, side, rcond=None)[0] for side in ranks]
        assert row["partial_spearman"] == pytest.approx(np.corrcoef(*left)[0, 1])


def test_iou_is_another_metric():
    scores, metrics, (value, dice, _, _) = random_tables()
    row = correlate([scores], metrics, metric="iou", levels=["cases"])[1]
    assert row["metric"] == "iou"
    assert row["pearson"] == pytest.approx(stats.pearsonr(value[:, 0], dice[:, 0] / (2 - dice[:, 0])).statistic)


@pytest.mark.parametrize("quantifier", list(QUANTIFIERS))
def test_a_good_quantifier_correlates_positively(quantifier):
    sign = 1.0 if QUANTIFIERS[quantifier].high == "certain" else -1.0
    scores, metrics, _ = random_tables(quantifier=quantifier, sign=sign)
    rows = correlate([scores], metrics, levels=["cases"], resamples=0)
    assert all(row["pearson"] > 0.3 and row["spearman"] > 0.3 for row in rows)


def test_quantifier_of_whole_cases_has_neither_a_row_of_classes_nor_of_a_class():
    eaoa, metrics, _ = random_tables(quantifier="eaoa", sign=-1.0)
    auv, _, _ = random_tables()
    whole = [row for row in eaoa if row["class_id"] is None]
    for rows in (eaoa, whole):  # whether the table lists its classes without a value or not at all
        assert [key(row) for row in correlate([rows], metrics)] == [("eaoa", "cases", "all")]
    found = [key(row) for row in correlate([auv, eaoa], metrics)]
    assert [one for one in found if one[0] == "eaoa"] == [("eaoa", "cases", "all")]
    with pytest.raises(UsageError, match="--level: expected cases for eaoa"):
        correlate([eaoa], metrics, levels=["classes"])


@pytest.mark.parametrize("axis", ["log residual", "log two-sided", "linear residual two-sided"])
def test_scores_that_were_moved_before_the_axis_count_by_their_auv(axis):
    scores, metrics, (_, dice, _, _) = random_tables()
    plain = [row | {"method": "plain"} for row in scores]
    generator = np.random.default_rng(5)
    moved = [row | {"axis": axis, "auv": float(generator.random())} for row in scores]
    rows = correlate([plain, moved], metrics)
    of_moved = {row["class_name"]: row for row in rows if row["method"] == "m"}
    # An AUV is relative within its class: it says nothing of one class against another.
    assert {row["level"] for row in of_moved.values()} == {"cases"}
    assert {row["level"] for row in rows if row["method"] == "plain"} == {"classes", "cases"}
    auv = [row["auv"] for row in moved if row["class_id"] == 2]
    column = list(CLASSES).index(2)
    assert of_moved[CLASSES[2]]["pearson"] == pytest.approx(-stats.pearsonr(auv, dice[:, column]).statistic)
    with pytest.raises(UsageError, match="--level: expected cases for auv"):
        correlate([moved], metrics, levels=["classes"])


def test_classes_are_chosen_by_name_or_id():
    scores, metrics, _ = random_tables()
    by_name, by_id = (correlate([scores], metrics, classes=[wanted]) for wanted in (CLASSES[2], "2"))
    assert by_name == by_id
    assert {row["class_name"] for row in by_name} == {"all", CLASSES[2]}


def test_what_is_absent_is_no_point():
    scores, metrics, (value, dice, _, _) = random_tables()
    named = {(row["case"], row["class_name"]): row for row in scores}
    named[CASES[0], "tumour"] |= {"status": "absent", "value": 1.0}  # as preset official says
    named[CASES[1], "tumour"] |= {"volume_ml": 0.0, "value": 1.0}
    named[CASES[2], "tumour"] |= {"n_slices": 0, "value": 1.0}
    named[CASES[3], "tumour"] |= {"status": "flat", "value": None}
    named[CASES[4], "tumour"]["value"] = math.nan
    evaluated = {(row["case"], row["class_name"]): row for row in metrics}
    evaluated[CASES[5], "tumour"] |= {"status": "absent", "dice": None}
    rows = {key(row): row for row in correlate([scores], metrics)}
    tumour = rows["auv", "cases", "tumour"]
    assert tumour["n"] == 6
    assert tumour["pearson"] == pytest.approx(stats.pearsonr(value[6:, 2], dice[6:, 2]).statistic)
    # The whole case: the mean over the classes where Dice is defined.
    dice[5, 2] = math.nan
    whole = rows["auv", "cases", "all"]
    assert whole["n"] == 12
    assert whole["pearson"] == pytest.approx(stats.pearsonr(value.mean(axis=1), np.nanmean(dice, axis=1)).statistic)
    # The class: means of the values that are there and of the Dice that are there.
    x = [value[:, 0].mean(), value[:, 1].mean(), value[5:, 2].mean()]
    assert rows["auv", "classes", "all"]["n"] == 3
    assert rows["auv", "classes", "all"]["pearson"] == pytest.approx(
        stats.pearsonr(x, np.nanmean(dice, axis=0)).statistic
    )


def test_only_cases_in_common_count():
    scores, metrics, _ = random_tables()
    fewer_scores = [row for row in scores if row["case"] not in CASES[:2]]
    fewer_metrics = [row for row in metrics if row["case"] not in CASES[-3:]]
    both = [
        [row for row in rows if row["case"] not in CASES[:2] + CASES[-3:]] for rows in (fewer_scores, fewer_metrics)
    ]
    found = correlate([fewer_scores], fewer_metrics)
    assert found == correlate([both[0]], both[1])
    assert found[1]["n"] == 7


def test_only_classes_in_common_count():
    scores, metrics, (value, dice, _, _) = random_tables()
    without_liver = [row for row in metrics if row["class_name"] != "liver"]
    rows = correlate([scores], without_liver)
    assert [key(row)[1:] for row in rows] == [
        *(("classes", "all"), ("cases", "all"), ("cases", "spleen"), ("cases", "tumour"))
    ]
    assert rows[0]["n"] == 2
    x, y = value.mean(axis=1), dice[:, 1:].mean(axis=1)
    assert rows[1]["pearson"] == pytest.approx(stats.pearsonr(x, y).statistic)
    # A decoder's channel may have the number of a class, and is not that class.
    channels = [row | {"class_name": f"channel {row['class_id']}"} for row in metrics if row["class_id"] is not None]
    tables = score_tables(scores, "S.csv")[0], metrics_table(channels, "M.csv", metric="dice")
    assert common(*tables).class_names == ()
    rows = correlate([scores], channels)
    assert [(*key(row)[1:], row["n"]) for row in rows] == [("classes", "all", 0), ("cases", "all", 12)]
    assert rows[1]["pearson"] == pytest.approx(stats.pearsonr(x, dice.mean(axis=1)).statistic)


def test_chosen_classes():
    scores, metrics, _ = random_tables()
    everything = {key(row): row for row in correlate([scores], metrics)}
    rows = correlate([scores], metrics, classes=["tumour", "liver"])
    assert [key(row)[1:] for row in rows] == [
        *(("classes", "all"), ("cases", "all"), ("cases", "liver"), ("cases", "tumour"))
    ]
    assert rows[0]["n"] == 2
    assert all(row == everything[key(row)] for row in rows[1:])
    with pytest.raises(UsageError, match=r"--classes: expected classes in common \(liver, .*got kidney"):
        correlate([scores], metrics, classes=["kidney"])


@pytest.mark.parametrize("what", ["constant value", "constant dice", "two cases"])
def test_undefined_is_an_empty_cell_beside_n(what):
    scores, metrics, _ = random_tables()
    if what == "constant value":
        scores = [row | {"value": 0.5} for row in scores]
    elif what == "constant dice":
        metrics = [row | {"dice": 0.5} for row in metrics]
    else:
        metrics = metrics[:8]
    rows = correlate([scores], metrics, levels=["cases"])
    assert len(rows) == 4
    for row in rows:
        assert row["n"] == (2 if what == "two cases" else 12)
        assert [name for name in CORRELATIONS.column_names()[6:] if row.get(name) is not None] == []


def test_size_that_a_point_lacks_leaves_the_partial_cells_empty():
    scores, metrics, _ = random_tables()
    plain = correlate([scores], metrics)
    scores[0]["volume_ml"] = None  # liver of the first case
    for row, before in zip(correlate([scores], metrics), plain, strict=True):
        touched = key(row)[1:] in {("classes", "all"), ("cases", "liver")}
        assert (row["pearson"], row["spearman_low"]) == (before["pearson"], before["spearman_low"])
        assert row.get("partial_spearman") == (None if touched else before["partial_spearman"])


def test_volume_has_no_partial_rank_correlation_given_volume():
    scores, metrics, _ = random_tables(quantifier="volume")
    scores = [row | {"value": row["volume_ml"]} for row in scores]
    for row in correlate([scores], metrics, levels=["cases"]):
        assert row["spearman"] is not None
        assert row["partial_spearman"] is None


def test_seed_and_resamples_move_the_intervals_only():
    scores, metrics, _ = random_tables()
    rows = [
        correlate([scores], metrics, levels=["cases"], **options)[0]
        for options in ({}, {"seed": 1}, {"resamples": 100}, {"resamples": 0})
    ]
    ends = ("pearson_low", "pearson_high", "spearman_low", "spearman_high")
    assert len({tuple(row[name] for name in ends) for row in rows}) == 4
    assert all(rows[3][name] is None for name in ends)
    assert len({tuple(value for name, value in row.items() if name not in ends) for row in rows}) == 1


# Reading


def write(path: Path, rows, schema) -> Path:
    write_table(rows, schema, path)
    return path


def test_tables_are_told_by_their_columns_in_any_order_and_format(tmp_path):
    auv, metrics, _ = random_tables()
    fisher, _, _ = random_tables(1, quantifier="fisher")
    paths = [
        write(tmp_path / "one.jsonl", auv, SCORES),
        write(tmp_path / "two.tsv", metrics, METRICS),
        write(tmp_path / "three", fisher, SCORES),
    ]
    tables, metrics_read = read_tables(paths, metric="dice")
    assert [table.quantifier for table in tables] == ["auv", "fisher"]
    assert metrics_read == metrics_table(metrics, str(paths[1]), metric="dice")
    assert tables[0] == score_tables(auv, str(paths[0]))[0]
    assert tables[0].class_names == tuple(CLASSES.values())


def test_a_file_with_several_quantifiers_and_methods(tmp_path):
    auv, metrics, _ = random_tables()
    other = [row | {"method": "other"} for row in auv]
    fisher, _, _ = random_tables(1, quantifier="fisher")
    paths = [write(tmp_path / "S.csv", [*auv, *other, *fisher], SCORES), write(tmp_path / "M.csv", metrics, METRICS)]
    tables, _ = read_tables(paths, metric="dice")
    assert [(table.quantifier, table.method) for table in tables] == [("auv", "m"), ("auv", "other"), ("fisher", "m")]


def refused(tmp_path, change, kind, words):
    scores, metrics, _ = random_tables()
    tables = {"S.csv": (scores, SCORES), "M.csv": (metrics, METRICS)}
    change(tables)
    paths = [write(tmp_path / name, *table) for name, table in tables.items()]
    with pytest.raises(kind, match=words) as raised:
        read_tables(paths, metric="dice")
    assert "\n" not in str(raised.value)
    assert "expected" in str(raised.value)
    assert "; " in str(raised.value)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda tables: tables.pop("M.csv"), UsageError, "expected one metrics table, got none"),
        (lambda tables: tables.update({"N.csv": tables["M.csv"]}), UsageError, r"got two: .*M\.csv, .*N\.csv"),
        (lambda tables: tables.pop("S.csv"), UsageError, "expected scores beside the metrics, got none"),
        (
            lambda tables: tables.update({"T.csv": tables["S.csv"]}),
            InputError,
            r"T\.csv: expected another quantifier or method .*got auv \(m\) as in .*S\.csv",
        ),
        (
            lambda tables: tables["S.csv"][0][3].update(quantifier="guess"),
            InputError,
            r"S\.csv: expected a quantifier of auv, .*got guess",
        ),
        (lambda tables: tables["S.csv"][0].append(tables["S.csv"][0][0]), InputError, "got liver of case_00 twice"),
        (lambda tables: tables["M.csv"][0].append(tables["M.csv"][0][3]), InputError, "got all of case_00 twice"),
        (
            lambda tables: tables["S.csv"][0][0].update(value=math.inf),
            InputError,
            r"S\.csv:2: expected float in column value, got 'inf'",
        ),
        (lambda tables: tables["S.csv"][0][0].update(volume_ml=-1.0), InputError, "volume_ml of at least 0, got -1"),
        (
            lambda tables: tables["S.csv"][0][0].update(value="high"),
            InputError,
            r"S\.csv:2: expected float in column value, got 'high'",
        ),
        (lambda tables: tables["M.csv"][0].clear(), InputError, "got another table, or one without rows"),
    ],
    ids=[
        *("no metrics", "two metrics", "no scores", "same method", "unknown quantifier", "score twice"),
        *("metric twice", "infinite", "negative volume", "no number", "empty"),
    ],
)
def test_wrong_tables_are_refused_in_one_line(tmp_path, change, kind, words):
    refused(tmp_path, change, kind, words)


def test_no_case_in_common():
    scores, metrics, _ = random_tables()
    others = [row | {"case": f"other_{row['case']}"} for row in metrics]
    with pytest.raises(InputError, match=r"S\.csv: expected cases that M\.csv evaluates, .*got none, but case_00"):
        correlate([scores], others)
