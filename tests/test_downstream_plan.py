"""Which cases each arm of `auvtool bench downstream` trains on, and what cannot be planned."""

import pytest
from downstream_arms import AUV, CASES, KEY, SCORE, VOLUMES, candidates, plan, score_rows

from auvtool.benchmark import downstream, downstream_plan
from auvtool.benchmark.downstream_plan import ALL, CLEAN, DUO, ORACLE, RANDOM, VOLUME, Candidates, Plan
from auvtool.errors import InputError, UsageError
from auvtool.training.loss_options import without_idle


def dropped(result: Plan) -> list[str]:
    return ["".join(sorted(set(CASES) - set(run.training.kept))) for run in result.runs]


def test_the_worst_dirty_case_has_the_lowest_dice_then_the_lowest_psnr():
    assert downstream_plan.worst_first(KEY) == ["g", "d", "h", "b"]
    with pytest.raises(InputError, match="the answer key: b: expected one row, got two"):
        downstream_plan.worst_first([*KEY, KEY[0]])


def test_each_arm_by_hand():
    assert dropped(plan(ALL, "auv", VOLUME, ORACLE, CLEAN, DUO)) == ["", "bdg", "hij", "dgh", "bdgh", ""]
    runs = {run.arm: run for run in plan(ALL, "auv", VOLUME, ORACLE, CLEAN, DUO).runs}
    assert {arm: run.n_dirty_left for arm, run in runs.items()} == {
        ALL: 4, "auv": 1, VOLUME: 3, ORACLE: 1, CLEAN: 0, DUO: 4,
    }  # fmt: skip
    assert {arm for arm, run in runs.items() if run.training.loss == "duo"} == {DUO}
    assert [arm for arm, run in runs.items() if run.ratio is None] == [ALL, CLEAN, DUO]


def test_the_parts_of_duo_are_trained_when_named():
    parts = plan(*downstream_plan.ABLATIONS)
    assert dropped(parts) == ["", "", ""]
    assert [run.training.name for run in parts.runs] == ["duo-rw_seed0", "duo-en_seed0", "duo-base_seed0"]
    options = [" ".join(downstream_plan.LOSS_OPTIONS[run.training.loss]) for run in parts.runs]
    assert options == ["--loss duo --no-denoise", "--loss duo --no-reweight", "--loss classwise"]
    assert set(candidates().arms()) - set(candidates().usual_arms()) == set(downstream_plan.ABLATIONS)


@pytest.mark.parametrize(
    ("loss", "left"),
    [
        ("plain", "--lr 0.1 --epochs=2"),
        ("duo", "--lr 0.1 --alpha 1 --scale-grad --denoise-form=paper --beta 0.3 --class-weights w.json --epochs=2"),
        ("duo-rw", "--lr 0.1 --alpha 1 --scale-grad --beta 0.3 --class-weights w.json --epochs=2"),
        ("duo-en", "--lr 0.1 --denoise-form=paper --beta 0.3 --class-weights w.json --epochs=2"),
        ("duo-base", "--lr 0.1 --beta 0.3 --class-weights w.json --epochs=2"),
    ],
)
def test_each_arm_is_told_the_options_of_its_own_loss_alone(loss, left):
    line = "--lr 0.1 --alpha 1 --scale-grad --denoise-form=paper --beta 0.3 --class-weights w.json --epochs=2"
    assert list(without_idle(line.split(), downstream_plan.LOSS_PARTS[loss])) == left.split()


def test_by_default_as_many_are_dropped_as_are_dirty():
    assert candidates().share_clean == 0.6
    assert dropped(plan(ORACLE, "auv", CLEAN, ratios=[candidates().share_clean])) == ["bdgh", "bdgj", "bdgh"]


def test_the_share_of_clean_cases_drops_exactly_the_dirty_number_whatever_the_rounding():
    for n in range(2, 120):
        for n_dirty in range(1, n):
            names = tuple(map(str, range(n)))
            ratio = Candidates(names, names[:n_dirty], {}).share_clean
            assert downstream_plan.n_dropped(n, ratio) == n_dirty
            assert ratio == pytest.approx((n - n_dirty) / n)


def test_the_oracle_drops_as_many_as_the_others_with_clean_cases_after_the_dirty_ones():
    result = plan(ORACLE, ratios=[0.4], seeds=range(8))
    assert {len(cases) for cases in dropped(result)} == {6}
    assert all(set("bdgh") <= set(cases) for cases in dropped(result))
    assert len(set(dropped(result))) > 1


def test_a_random_drop_has_the_filters_number_and_a_draw_of_its_own_at_every_seed():
    result = plan(RANDOM, ratios=(0.9, 0.5), seeds=range(20))
    large, small = dropped(result)[20:], dropped(result)[:20]
    assert {len(cases) for cases in small} == {1}
    assert {len(cases) for cases in large} == {5}
    assert all(set(few) < set(many) for few, many in zip(small, large, strict=True))
    assert len(set(large)) > 15
    assert dropped(plan(RANDOM, ratios=(0.9, 0.5), seeds=range(20))) == small + large


def test_controls_drop_what_the_first_filter_drops_when_cases_are_tied_or_not_judged():
    tied = score_rows({**AUV, "d": 0.9, "g": None}, volumes=VOLUMES)
    result = plan("tied", RANDOM, ORACLE, VOLUME, of=candidates(tied=tied), ratios=[0.7])
    assert dropped(result)[0] == "bd"  # 7 of the 9 that are judged stay, and g, which is not
    assert "tied drops 2 cases and not 3" in result.notes[0]
    assert {len(cases) for cases in dropped(result)} == {2}
    all_equal = score_rows(dict.fromkeys(CASES, 0.5), volumes=VOLUMES)
    both = plan("auv", "equal", RANDOM, of=candidates(auv=SCORE, equal=all_equal))
    assert [len(cases) for cases in dropped(both)] == [3, 0, 3]
    assert "equal drops 0 cases, auv and the controls 3" in both.notes[0]
    turned = plan("equal", RANDOM, of=candidates(equal=all_equal))
    assert dropped(turned) == ["", ""]
    assert "drops no case" in turned.notes[0]


def test_arms_that_keep_the_same_cases_share_a_training():
    result = plan(ALL, RANDOM, ORACLE, CLEAN, DUO, ratios=[0.6], seeds=(0, 1))
    assert [training.name for training in result.trainings] == [
        "all_seed0", "all_seed1", "random_0.6_seed0", "random_0.6_seed1",
        "oracle_0.6_seed0", "oracle_0.6_seed1", "duo_seed0", "duo_seed1",
    ]  # fmt: skip
    assert {run.training.name for run in result.runs if run.arm == CLEAN} == {"oracle_0.6_seed0", "oracle_0.6_seed1"}


def test_what_cannot_be_planned_is_one_line():
    with pytest.raises(
        UsageError,
        match="--arms: expected arms among all, random, auv, volume, oracle, clean, duo, duo-rw, duo-en, duo-base, got",
    ):
        plan("auv2")
    with pytest.raises(InputError, match="arm volume: expected volume_ml of at least 3 whole cases"):
        plan(VOLUME, of=candidates(auv=score_rows(AUV)))
    rare = [{**row, "status": "absent"} if row["class_id"] == 1 and row["case"] not in "bg" else row for row in SCORE]
    with pytest.raises(InputError, match=r"arm auv at ratio 0\.7: expected a training case left .* got none for organ"):
        plan("auv", of=candidates(auv=rare))


def test_options_that_would_make_the_arms_differ_are_refused():
    assert downstream.parse_train_options("-c 2d --lr 0.1 --patch-size '40,64'") == (
        "-c", "2d", "--lr", "0.1", "--patch-size", "40,64",
    )  # fmt: skip
    for text in ("--keep K.csv", "--loss=duo", "-oRUN", "--seed 3", "-f", "--fold 1"):
        with pytest.raises(UsageError, match="--train: expected options that are the same for every arm"):
            downstream.parse_train_options(text)
    with pytest.raises(UsageError, match="--train: expected options of auvtool train in quotes"):
        downstream.parse_train_options("'-c 2d")
