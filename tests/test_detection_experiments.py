"""The experiments on methods whose answer is known, and what they are told of kinds held out."""

import math
import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from detection_items import (
    FACTS,
    USED,
    Told,
    bench_items,
    by_case,
    item,
    number,
    one,
    only,
    perfect,
    run_contaminated,
    run_paired,
)

from auvtool.contamination import draw_contaminations
from auvtool.detection import auroc
from auvtool.detection_experiments import SHARES, summary
from auvtool.experiment_schema import DETECTION, DETECTION_PAIRED, DETECTION_SUMMARY
from auvtool.tables import parse_table, render

# Known answers


def test_a_perfect_method_finds_all_and_its_opposite_none():
    opposite = Told(lambda one: -perfect(one), "opposite")
    found = run_contaminated(bench_items(), Told(perfect, "perfect"), opposite)
    for row in only(found.rows, method="perfect"):
        assert (row["auroc"], row["average_precision"], row["precision_at_k"]) == (1.0, 1.0, 1.0)
        assert (row["auroc_low"], row["auroc_high"], row["auroc_draws_low"], row["auroc_draws_high"]) == (1, 1, 1, 1)
        assert row["n_without_value"] == 0
    for row in only(found.rows, method="opposite"):
        assert (row["auroc"], row["precision_at_k"]) == (0.0, 0.0)
    for row in summary(found, kinds=FACTS):
        raised = row["method"] == "perfect"
        assert (row["auroc"], row["raw"], row["raw_low"], row["raw_high"]) == (float(raised), 1.0, 1.0, 1.0)
        assert row["n_below_half"] == (0 if raised else row["n_kinds"])


def test_every_condition_has_a_row_a_method():
    found = run_contaminated(bench_items(), Told(perfect), Told(by_case, "size"))
    assert len(found.rows) == (len(USED) + 1) * 2 * len(SHARES) * 2
    assert found.resampled.shape == (len(found.rows), 50)
    assert [row["kind"] for row in found.rows[:: 2 * len(SHARES) * 2]] == [*USED, "mixed"]
    row = one(found.rows, kind="moved", level="low", share=0.2, method="size")
    assert (row["of"], row["family"], row["n_dirty"], row["n_clean"], row["share_dirty"]) == (
        "label",
        "position",
        4.0,
        16.0,
        0.2,
    )
    mixed = one(found.rows, kind="mixed", level="low", share=0.2, method="size")
    assert (mixed["of"], mixed["family"], mixed["n_draws"]) == (None, None, 20)


def test_a_shift_of_one_deviation_has_its_textbook_auroc():
    # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2) = 0.760.
    draws = np.random.default_rng(5).normal(size=(2, 400))
    method = Told(lambda one: draws[0, number(one)] if one.kind is None else draws[1, number(one)] + 1.0)
    found = run_contaminated(bench_items(400, kinds=("snow",), levels=("high",)), method, shares=(0.1,), draws=200)
    row = one(found.rows, kind="snow")
    assert row["auroc"] == pytest.approx(float(auroc(draws[1] + 1.0, draws[0])), abs=0.01)
    assert row["auroc"] == pytest.approx(0.760, abs=0.05)
    assert row["auroc_low"] < 0.760 < row["auroc_high"]
    assert row["auroc_draws_low"] < row["auroc_low"]  # 40 dirty cases of one draw vary more than all cases do


def test_a_blind_method_is_about_half_and_its_raw_mean_above():
    noise, places = np.random.default_rng(6).normal(size=1000), {}
    method = Told(lambda one: noise[places.setdefault((one.case_id, one.kind, one.level), len(places))])
    found = run_contaminated(bench_items(60), method, shares=(0.1,))
    whole = one(summary(found, kinds=FACTS), level="high", kinds="all")
    assert whole["auroc"] == pytest.approx(0.5, abs=0.1)
    assert whole["raw"] >= 0.5
    assert whole["auroc_low"] < 0.5 < whole["auroc_high"]
    assert one(found.rows, kind="snow", level="high")["average_precision"] < 0.5


def test_the_mean_over_draws_is_that_of_the_draws():
    items = bench_items(kinds=("snow",), levels=("high",))
    values = np.random.default_rng(7).normal(size=40)
    method = Told(lambda one: values[number(one) + 20 * (one.kind is not None)])
    row = one(run_contaminated(items, method, shares=(0.2,), seed=3).rows, kind="snow")
    generator = np.random.default_rng([3, zlib.crc32(b"snow high 0.2 0")])
    draws = draw_contaminations(
        {case: [20 + case] for case in range(20)}, n_cases=20, share=0.2, n_draws=20, generator=generator
    )
    areas = [float(auroc(values[sorted(draw.dirty.values())], values[list(draw.clean)])) for draw in draws]
    assert row["auroc"] == pytest.approx(np.mean(areas))
    assert (row["auroc_draws_low"], row["auroc_draws_high"]) == pytest.approx(tuple(np.quantile(areas, [0.025, 0.975])))


def test_severity_is_graded_with_its_sign():
    # The value rises with the case's number; so does severity (1 - Dice), and PSNR, which means less severe.
    by_number = Told(lambda one: number(one) if one.kind is None else 100.0 + (number(one) * 7 % 20))
    items = [item(case) for case in range(20)]
    items += [item(case, name, severity=float(case * 7 % 20)) for name in ("snow", "moved") for case in range(20)]
    rows = run_contaminated(items, by_number, shares=(0.2,)).rows
    assert one(rows, kind="moved")["severity_spearman"] == pytest.approx(1.0)
    assert one(rows, kind="snow")["severity_spearman"] == pytest.approx(-1.0)
    assert one(rows, kind="mixed")["severity_spearman"] is None  # decibels and Dice are not of one scale
    unknown = run_contaminated(bench_items(kinds=("snow",), levels=("high",)), Told(perfect), shares=(0.2,))
    assert one(unknown.rows, kind="snow")["severity_spearman"] is None  # all copies have one value


def test_an_infinite_psnr_is_the_least_severe():
    items = [item(case) for case in range(10)]
    items += [item(case, "snow", severity=math.inf if case == 0 else 50.0 - case) for case in range(10)]
    method = Told(lambda one: float(number(one)))
    items = [replace(one, features=SimpleNamespace(foreground_ml=5.0)) for one in items]
    row = one(run_contaminated(items, method, shares=(0.5,), draws=50).rows, kind="snow")
    assert row["severity_spearman"] == pytest.approx(1.0)


# Paired


def test_paired_by_hand():
    shift = {None: 0.0, "snow": 2.0, "rain": -2.0, "fog": 0.0, "gain": 0.0, "moved": 2.0, "hollow": -2.0}
    method = Told(lambda one: number(one) + shift[one.kind])
    rows = run_paired(bench_items(), method)
    assert len(rows) == len(USED) * 2
    for row in rows:
        assert row["win_rate"] == (1 + np.sign(shift[row["kind"]])) / 2
        assert row["n"] == 20
        assert row["severity"] == pytest.approx(0.095)
        # Deviations of 0..19 from 9.5: median 5.
        assert row["median_change"] == pytest.approx(shift[row["kind"]] / (5 * 1.482602218505602))
    assert one(rows, kind="snow", level="low")["win_rate_low"] > 0.8


def test_only_cases_with_a_copy_make_pairs():
    items = [*(item(case) for case in range(6)), item(1, "snow"), item(4, "snow")]
    row = one(run_paired(items, Told(perfect)), kind="snow")
    assert (row["n"], row["win_rate"], row["severity"]) == (2, 1.0, None)


def test_of_a_data_set_each_copy_stands_once_among_clean_cases():
    method = Told(perfect, of_data_set=True)
    rows = run_paired(bench_items(kinds=("snow",), levels=("high",)), method, n_groups=4)
    assert one(rows, kind="snow")["win_rate"] == 1.0
    (clean, _), *groups = method.asked
    assert [item.kind for item in clean] == [None] * 20
    assert len(groups) == 4
    dirty = [one.case_id for items, _ in groups for one in items if one.kind]
    assert sorted(dirty) == sorted(f"case_{case}" for case in range(20))
    assert all([one.case_id for one in items] == [f"case_{case}" for case in range(20)] for items, _ in groups)


# What a method is told


def test_a_method_of_cases_is_asked_once_for_each_family_held_out():
    method = Told(perfect)
    run_contaminated(bench_items(), method)
    families = [{"snow", "rain"}, {"fog"}, {"gain"}, {"moved"}, {"hollow", "never-used"}]
    parts = [{"snow", "rain", "fog"}, {"moved", "hollow", "never-used"}]
    assert sorted(map(sorted, (held_out for _, held_out in method.asked))) == sorted(map(sorted, families + parts))
    for items, held_out in method.asked:
        assert {one.kind for one in items} == {None} | (held_out - {"never-used"})


def test_a_method_of_the_data_set_is_asked_for_each_draw_and_share():
    method = Told(perfect, of_data_set=True)
    found = run_contaminated(bench_items(), method, Told(by_case, "size"), draws=4, data_set_shares=(0.1,))
    assert {row["share"] for row in only(found.rows, method="told")} == {0.1}
    assert {row["share"] for row in only(found.rows, method="size")} == set(SHARES)
    assert len(method.asked) == 4 * (len(USED) + 1) * 2
    n_mixed = 0
    for items, held_out in method.asked:
        assert [one.case_id for one in items] == [f"case_{case}" for case in range(20)]
        dirty = {one.kind for one in items if one.kind}
        assert dirty <= held_out
        assert sum(one.kind is not None for one in items) == 2
        n_mixed += len(held_out) == 3
    assert n_mixed == 2 * 4  # of each level
    halves_seen = [held_out for _, held_out in method.asked if len(held_out) == 3]
    assert halves_seen.count({"snow", "rain", "fog"}) == halves_seen.count({"moved", "hollow", "never-used"}) == 4


def test_null_tests_are_measured_but_neither_mixed_nor_in_a_mean():
    only_gain = Told(lambda one: float(one.kind == "gain"))
    method = Told(only_gain.of_item, of_data_set=True)
    found = run_contaminated(bench_items(), method)
    assert one(found.rows, kind="gain", level="low", share=0.1)["auroc"] == 1.0
    assert one(found.rows, kind="mixed", level="low", share=0.1)["auroc"] == 0.5
    rows = summary(found, kinds=FACTS)
    assert {(row["kinds"], row["n_kinds"], row["auroc"]) for row in rows} == {
        ("image", 3, 0.5),
        ("label", 2, 0.5),
        ("all", 5, 0.5),
    }


# Sameness


def test_equal_seeds_give_equal_tables_and_a_condition_is_drawn_alike_beside_others():
    noise = np.random.default_rng(8).normal(size=100)
    method = Told(lambda one: noise[number(one) + 20 * (1 + USED.index(one.kind) if one.kind else 0)])
    all_kinds = bench_items(levels=("high",), kinds=USED[:4])
    first, again = (run_contaminated(all_kinds, method, seed=1) for _ in range(2))
    assert first.rows == again.rows
    assert np.array_equal(first.resampled, again.resampled)
    assert first.rows != run_contaminated(all_kinds, method, seed=2).rows
    alone = run_contaminated(bench_items(levels=("high",), kinds=("fog",)), method, seed=1, shares=(0.2,))
    assert one(alone.rows, kind="fog") == one(first.rows, kind="fog", share=0.2)
    shuffled = [all_kinds[i] for i in np.random.default_rng(0).permutation(len(all_kinds))]
    assert (
        one(run_paired(shuffled, method), kind="fog")["win_rate"]
        == one(run_paired(all_kinds, method), kind="fog")["win_rate"]
    )


def test_tables_fit_their_schemas():
    items = bench_items(8)
    found = run_contaminated(items, Told(perfect), Told(lambda one: np.nan, "none"))
    for rows, schema in (
        (found.rows, DETECTION),
        (summary(found, kinds=FACTS), DETECTION_SUMMARY),
        (run_paired(items, Told(perfect), Told(lambda one: np.nan, "none")), DETECTION_PAIRED),
    ):
        assert all(list(row) == schema.column_names() for row in rows)
        assert parse_table(render(rows, schema, "csv").encode(), schema, "test") == list(rows)


# Edges


def test_a_method_without_values_has_no_auroc():
    found = run_contaminated(bench_items(8), Told(lambda one: np.nan))
    for row in found.rows:
        assert (row["auroc"], row["auroc_low"], row["average_precision"], row["precision_at_k"]) == (None,) * 4
        assert (row["n_draws"], row["n_without_value"]) == (0, 8.0)
    for row in summary(found, kinds=FACTS):
        assert (row["n_kinds"], row["auroc"], row["raw"], row["raw_low"], row["n_below_half"]) == (0, *(None,) * 3, 0)
    for row in run_paired(bench_items(8), Told(lambda one: np.nan)):
        assert (row["win_rate"], row["n_without_value"], row["median_change"]) == (None, 8, None)


def test_dirty_cases_without_values_are_not_found():
    found = run_contaminated(bench_items(), Told(lambda one: np.nan if one.kind else number(one)))
    row = one(found.rows, kind="snow", level="high", share=0.2)
    assert (row["auroc"], row["n_without_value"], row["severity_spearman"]) == (0.5, 4.0, None)


def test_a_kind_that_few_cases_have_is_measured_with_what_there_is():
    items = [item(case) for case in range(20)] + [item(case, "snow") for case in (2, 5)]
    row = one(run_contaminated(items, Told(perfect), shares=(0.2,)).rows, kind="snow")
    assert (row["n_dirty"], row["share_dirty"], row["share"], row["auroc"]) == (2.0, 0.1, 0.2, 1.0)
    assert one(run_contaminated(items, Told(perfect), shares=(0.2,)).rows, kind="mixed")["n_dirty"] == 2.0


def test_one_case_and_no_copies_give_no_rows():
    assert run_contaminated([item(0), item(0, "snow")], Told(perfect)).rows == ()
    assert run_contaminated([item(0), item(1)], Told(perfect)).rows == ()
    assert run_contaminated([], Told(perfect)).rows == ()
    assert run_contaminated([item(0), item(1), item(1, "snow")]).rows == ()
    assert summary(run_contaminated([], Told(perfect)), kinds=FACTS) == []
    assert run_paired([item(0)], Told(perfect)) == []
    assert one(run_paired([item(0), item(0, "snow")], Told(perfect)))["n"] == 1


@pytest.mark.parametrize(
    "items",
    [
        [item(0), item(0)],
        [item(0), item(1, "snow")],
        [item(0), item(0, "snow"), item(0, "snow")],
        [item(0), replace(item(0, "snow"), kind="unheard-of")],
        [item(0), replace(item(0, "snow"), level=None)],
    ],
    ids=["case twice", "no clean case", "copy twice", "unknown kind", "no level"],
)
def test_items_that_do_not_fit_are_refused(items):
    with pytest.raises(ValueError, match="expected"):
        run_contaminated(items, Told(perfect))


def test_methods_that_do_not_fit_are_refused():
    items = bench_items(4, kinds=("snow",))
    with pytest.raises(ValueError, match="each method once"):
        run_contaminated(items, Told(perfect), Told(by_case))
    with pytest.raises(ValueError, match="finite values or nan of told"):
        run_paired(items, Told(lambda one: math.inf))
    short = Told(perfect)
    short.values = lambda items, *, held_out: np.zeros(1)
    with pytest.raises(ValueError, match="finite values or nan of told"):
        run_paired(items, short)
