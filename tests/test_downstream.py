"""`auvtool bench downstream`: which cases each arm trains on, what is run again, and what the tables say."""

import json
import math
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import auvtool

from auvtool import command_chain
from auvtool import downstream_statistics as statistics
from auvtool.benchmark import downstream, downstream_plan, downstream_plot, downstream_report, downstream_results
from auvtool.benchmark.downstream import Experiment
from auvtool.benchmark.downstream_plan import ALL, CLEAN, DUO, ORACLE, RANDOM, VOLUME, Candidates, Plan, make_plan
from auvtool.dataset import open_dataset
from auvtool.errors import InputError, UsageError
from auvtool.experiment_schema import ANSWER_KEY, DOWNSTREAM, DOWNSTREAM_SUMMARY
from auvtool.keep_list import read_keep_list
from auvtool.schema import SCORES, Row
from auvtool.tables import read_table, write_table

CASES = tuple("abcdefghij")
KEY: list[Row] = [
    {"case": "b", "dirty": True, "kind": "noise", "dice": 1.0, "psnr": 20.0},
    {"case": "d", "dirty": True, "kind": "shift", "dice": 0.9, "psnr": None},
    {"case": "g", "dirty": True, "kind": "flip", "dice": 0.2, "psnr": None},
    {"case": "h", "dirty": True, "kind": "blur", "dice": 1.0, "psnr": 10.0},
    *({"case": case, "dirty": False, "kind": None, "dice": 1.0, "psnr": None} for case in "acefij"),
]


def score_rows(auv: dict[str, float | None], *, volumes: dict[str, float] | None = None) -> list[Row]:
    rows: list[Row] = []
    for case, value in auv.items():
        common: Row = {
            "case": case,
            "status": "ok",
            "quantifier": "auv",
            "method": "test",
            "value": value,
            "auv": value,
        }
        volume = (volumes or {}).get(case)
        common |= {"axis": "log", "volume_ml": volume}
        rows.append({**common, "class_id": 1, "class_name": "organ"})
        rows.append({**common, "class_id": None, "class_name": "all"})
    return rows


# b, d, g are above all clean cases; h, the fourth dirty one, looks the cleanest. Volumes fall from a to j.
AUV = dict(zip("abcdefghij", (0.1, 0.9, 0.2, 0.8, 0.3, 0.4, 0.7, 0.0, 0.5, 0.6), strict=True))
VOLUMES = {case: 100.0 - place for place, case in enumerate(CASES)}
SCORE = score_rows(AUV, volumes=VOLUMES)


def candidates(**scores: list[Row]) -> Candidates:
    return Candidates(CASES, tuple(downstream_plan.worst_first(KEY)), scores or {"auv": SCORE})


def plan(*arms: str, ratios=(0.7,), seeds=(0,), of: Candidates | None = None) -> Plan:
    return make_plan(of or candidates(), arms=arms, ratios=ratios, seeds=seeds)


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


# Statistics. Dice (class, seed, case); nan: not defined.


def random_dice(seed: int, *, shift: float = 0.0) -> np.ndarray:
    dice = np.clip(np.random.default_rng(seed).uniform(0.3, 0.9, (2, 3, 5)) + shift, 0, 1)
    dice[1, :, 4] = np.nan
    return dice


def plain_mean(dice: np.ndarray, drawn: list[tuple[int, int]]) -> list[float]:
    means = []
    for of_class in dice:
        values = [of_class[pair] for pair in drawn if not math.isnan(of_class[pair])]
        means.append(sum(values) / len(values) if values else math.nan)
    return [*means, sum(means) / len(means)]


PAIRS = [(seed, case) for seed in range(3) for case in range(5)]


def test_means_by_hand():
    dice = np.array([[[0.8, 0.6], [0.4, 0.2]], [[0.5, np.nan], [0.1, np.nan]]])
    assert statistics.mean_dice(dice) == pytest.approx([0.5, 0.3, 0.4])
    assert statistics.seed_means(dice).tolist() == [pytest.approx([0.7, 0.5, 0.6]), pytest.approx([0.3, 0.1, 0.2])]
    assert statistics.seed_deviation(dice) == pytest.approx([math.sqrt(0.08)] * 3)
    assert statistics.seed_deviation(dice[:, :1]) == [None] * 3
    absent = np.concatenate([dice, np.full((1, 2, 2), np.nan)])
    assert statistics.mean_dice(absent)[[0, 1, 3]] == pytest.approx([0.5, 0.3, 0.4])
    assert np.isnan(statistics.mean_dice(absent)[2])


def test_differences_and_fractions_are_those_of_a_plain_bootstrap():
    arm, random, oracle = random_dice(1), random_dice(2, shift=-0.2), random_dice(3, shift=0.2)
    counts = statistics.draw_pairs(3, 5, resamples=400, seed=5)
    assert (counts.sum(axis=1) == 15).all()
    differences, fractions = [], []
    for row in counts:
        drawn = [pair for pair, number in zip(PAIRS, row, strict=True) for _ in range(number)]
        of_arm, of_random, of_oracle = (np.array(plain_mean(dice, drawn)) for dice in (arm, random, oracle))
        differences.append(of_arm - of_random)
        fractions.append((of_arm - of_random) / (of_oracle - of_random))
    for found, plain in (
        (statistics.differences(arm, random, counts), differences),
        (statistics.recovered_fractions(arm, random, oracle, counts), fractions),
    ):
        for place, estimate in enumerate(found):
            low, high = np.nanquantile(np.array(plain)[:, place], [0.025, 0.975])
            assert (estimate.low, estimate.high) == pytest.approx((low, high))
    means = [np.array(plain_mean(dice, PAIRS)) for dice in (arm, random, oracle)]
    values = [estimate.value for estimate in statistics.recovered_fractions(arm, random, oracle, counts)]
    assert values == pytest.approx(list((means[0] - means[1]) / (means[2] - means[1])))


def test_paired_arms_have_a_narrow_interval_however_much_cases_differ():
    dice = random_dice(4)
    counts = statistics.draw_pairs(3, 5)
    for estimate in statistics.differences(dice + 0.01, dice, counts):
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.01, 0.01, 0.01))
    zero = statistics.differences(dice, dice, counts)[0]
    assert (zero.value, zero.is_above_zero, zero.is_below_zero) == (0.0, False, False)


def test_a_fraction_of_no_gain_is_not_defined():
    dice = random_dice(4)
    counts = statistics.draw_pairs(3, 5)
    for oracle in (dice, dice - 0.1, random_dice(8)):  # equal; worse for certain; not told apart
        assert [item.value for item in statistics.recovered_fractions(dice + 0.05, dice, oracle, counts)] == [None] * 3
    found = statistics.recovered_fractions(dice + 0.05, dice, dice + 0.1, counts)
    assert [item.value for item in found] == pytest.approx([0.5] * 3)


def test_too_few_pairs_give_no_interval():
    dice = random_dice(4)[:, :1, :3]
    counts = statistics.draw_pairs(1, 3)
    estimate = statistics.differences(dice, dice - 0.1, counts)[0]
    assert (estimate.value, estimate.low, estimate.high) == (pytest.approx(0.1), None, None)
    with pytest.raises(ValueError, match="same classes, seeds and cases"):
        statistics.differences(dice, dice[:, :, :2], counts)


# The run, with a stub in place of auvtool: it notes its arguments, and eval gives each training a Dice of its own.

STUB = """
import json, sys
from pathlib import Path
words = sys.argv[1:]
note, command, output = Path(NOTE), words[0], Path(words[words.index("-o") + 1])
with note.open("a") as file:
    file.write(json.dumps(words) + "\\n")
if command == words_that_fail():
    sys.exit(3)
if command == "eval":
    keep = Path(output.parent.parent / "keep" / output.name).read_text().splitlines()[1:]
    n_kept = sum(line.split(",")[1] == "true" for line in keep)
    header = "case,class_id,class_name,status,dice,iou,tp,fp,fn,n_reference,n_prediction"
    rows = [f"t{i},1,organ,ok,{n_kept / 20 + i / 100},,,,,," for i in range(4)]
    output.write_text("\\n".join([header, *rows]) + "\\n")
else:
    output.mkdir()
    keep = words[words.index("--keep") + 1] if command == "train" else None
    n = sum(",true," in line for line in Path(keep).read_text().splitlines()) - 2 if keep else 0
    output.with_name(output.name + ".manifest.json").write_text(json.dumps({"counts": {"train": n}}))
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Calls of the stub so far; `fail.txt` names a command that fails."""
    note, program = tmp_path / "calls.jsonl", tmp_path / "stub.py"
    failing = f"def words_that_fail():\n    p = Path({str(tmp_path / 'fail.txt')!r})\n"
    failing += "    return p.read_text() if p.exists() else None\n"
    program.write_text(f"from pathlib import Path\nNOTE = {str(note)!r}\n{failing}{STUB}")
    monkeypatch.setattr(command_chain, "PROGRAM", (sys.executable, str(program)))
    note.touch()
    return lambda: [json.loads(line) for line in note.read_text().splitlines()]


@pytest.fixture
def experiment(tmp_path) -> Experiment:
    from phantoms import box_image, box_label, write_volume

    data = tmp_path / "Dataset901_Boxes"
    for case in (*CASES, "y", "z"):
        write_volume(data / "imagesTr" / f"{case}_0000.nii.gz", box_image(box_label()))
        write_volume(data / "labelsTr" / f"{case}.nii.gz", box_label())
    for folder in ("imagesTs", "labelsTs"):
        (data / folder).mkdir()
    record = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1, "other": 2}}
    (data / "dataset.json").write_text(json.dumps({**record, "numTraining": 12, "file_ending": ".nii.gz"}))
    return Experiment(
        folder=tmp_path / "D",
        dataset=open_dataset(data),
        test_images=data / "imagesTs",
        test_labels=data / "labelsTs",
        validation=("y", "z"),
        plan=plan(ALL, RANDOM, "auv", ORACLE, seeds=(0, 1, 2)),
        train_options=("-c", "2d"),
    )


def run(experiment: Experiment) -> list[str]:
    said: list[str] = []
    downstream.open_folder(experiment, force=False)
    downstream.run(experiment, show=False, say=said.append)
    return said


def test_every_training_is_a_chain_with_the_same_options(experiment, stub):
    run(experiment)
    calls = stub()
    trainings = [words for words in calls if words[0] == "train"]
    assert len(calls) == 3 * len(experiment.plan.trainings) == 3 * 12
    assert calls[:3] == [list(step.arguments) for step in downstream.chain(experiment, experiment.plan.trainings[0])]
    own = ("--keep", "-o", "--seed")
    rest = {tuple(w for i, w in enumerate(words) if w not in own and words[i - 1] not in own) for words in trainings}
    assert len(rest) == 1
    assert rest.pop()[-3:] == ("--no-validate", "-c", "2d")
    assert (experiment.folder / "val_cases.txt").read_text() == "y\nz\n"
    for training in experiment.plan.trainings:
        keep = read_keep_list(experiment.keep_list(training))
        assert keep.kept == {*training.kept, "y", "z"}
        assert keep.dropped == set(CASES) - set(training.kept)


def test_the_same_experiment_goes_on_and_another_is_refused(experiment, stub, tmp_path):
    (tmp_path / "fail.txt").write_text("predict")
    with pytest.raises(command_chain.StepFailed, match="expected to finish, got exit code 3") as error:
        run(experiment)
    assert error.value.exit_code == 3
    assert [words[0] for words in stub()] == ["train", "predict"]
    (tmp_path / "fail.txt").unlink()
    together = replace(experiment, jobs=3)
    run(together)
    calls = stub()
    assert sorted(words[0] for words in calls[2:]) == ["eval"] * 12 + ["predict"] * 12 + ["train"] * 11
    assert run(together)[0].startswith("  (done before) auvtool train")
    assert stub() == calls
    other = replace(experiment, train_options=("-c", "3d_fullres"), plan=plan(ALL, seeds=(0, 1, 2)))
    message = "expected an experiment with the same plan, got one with other training options, arms, training cases"
    with pytest.raises(UsageError, match=message):
        downstream.open_folder(other, force=False)
    assert experiment.metrics(experiment.plan.trainings[0]).exists()
    downstream.open_folder(other, force=True)
    assert not experiment.metrics(experiment.plan.trainings[0]).exists()


def test_a_folder_that_no_experiment_made_is_never_touched(experiment, tmp_path):
    (tmp_path / "D").mkdir()
    (tmp_path / "D" / "scan.nii").touch()
    for force in (False, True):
        with pytest.raises(UsageError, match="no experiment made"):
            downstream.open_folder(experiment, force=force)
    with pytest.raises(UsageError, match="create it first"):
        downstream.open_folder(replace(experiment, folder=tmp_path / "no" / "D"), force=False)


def test_the_tables_and_the_words_of_a_finished_experiment(experiment, stub):
    run(experiment)
    results = downstream_results.read_results(experiment)
    downstream_results.write_results(experiment, results, inputs=[])
    rows = read_table(experiment.folder / "downstream.csv", DOWNSTREAM)
    assert rows == results.rows
    assert [(row["arm"], row["ratio"], row["seed"], row["n_training"], row["n_dirty_left"]) for row in rows[::2]] == [
        ("all", None, 0, 10, 4), ("all", None, 1, 10, 4), ("all", None, 2, 10, 4),
        *((run.arm, 0.7, run.seed, 7, run.n_dirty_left) for run in experiment.plan.runs[3:]),
    ]  # fmt: skip
    # The stub's Dice is kept / 20 + case / 100, kept with the two validation cases.
    assert rows[0]["dice"] == pytest.approx(12 / 20 + 0.015)
    assert {row["n_test"] for row in rows} == {4}
    summary = read_table(experiment.folder / "downstream_summary.csv", DOWNSTREAM_SUMMARY)
    by_arm = {row["arm"]: row for row in summary if row["class_name"] == "all"}
    assert by_arm["auv"]["difference_all"] == pytest.approx(-0.15)
    assert by_arm["auv"]["difference_all_high"] == pytest.approx(-0.15)
    assert by_arm["all"]["difference_all"] is None
    assert by_arm["all"]["difference_random"] == pytest.approx(0.15)  # there is one ratio
    assert by_arm["auv"]["recovered"] is None
    text = (experiment.folder / "downstream.md").read_text()
    assert "| auv | 0.7 | 7 | 1 | 0.465 (sd 0.000) | -0.150 [-0.150, -0.150] |" in text
    assert "a loss is shown" in text
    assert "the answer key itself is not shown to beat a blind drop" in text
    svg = (experiment.folder / "downstream.svg").read_bytes()
    assert b"<svg" in svg
    downstream_plot.write_plot(experiment.folder / "downstream.svg", results.rows)
    assert (experiment.folder / "downstream.svg").read_bytes() == svg
    assert json.loads((experiment.folder / "downstream.csv.manifest.json").read_text())["counts"]["trainings"] == 12


def test_a_training_that_lost_a_case_is_an_error(experiment, stub):
    run(experiment)
    path = experiment.run_folder(experiment.plan.trainings[0]).with_name("all_seed0.manifest.json")
    path.write_text(json.dumps({"counts": {"train": 9}}))
    with pytest.raises(InputError, match="expected a training on 10 cases, got 9"):
        downstream.read_metrics(experiment)


SETTING = downstream_report.Setting("D", 10, 4, 2, 4, "-c 2d", "cpu")


def words_of(dice: dict[str, float], *, n_dirty_left: int = 2, spread: float = 0.01, n_seeds: int = 3) -> str:
    rows: list[Row] = []
    summary: list[Row] = []

    def change_of(arm: str, seed: int) -> float:
        return 0.0 if arm in {ALL, RANDOM} else spread * (seed - 1)

    for arm, value in dice.items():
        ratio = None if arm == ALL else 0.7
        for seed in range(n_seeds):
            row: Row = {"arm": arm, "ratio": ratio, "seed": seed, "class_name": "all", "n_training": 7}
            rows.append(row | {"n_dirty_left": n_dirty_left, "dice": value + change_of(arm, seed), "n_test": 4})
        entry: Row = {"arm": arm, "ratio": ratio, "class_name": "all", "n_seeds": n_seeds, "dice": value}
        entry["dice_sd"] = 0.1
        for rival in (ALL, RANDOM):
            change = value - dice[rival]
            entry |= {f"difference_{rival}": change, f"difference_{rival}_low": change - 0.01}
            entry |= {f"difference_{rival}_high": change + 0.01}
        summary.append(entry | {"recovered": None, "recovered_low": None, "recovered_high": None})
    return "\n".join(downstream_report.findings(rows, summary, SETTING))


def test_the_words_say_a_gain_only_where_one_is_shown():
    gain = words_of({ALL: 0.5, RANDOM: 0.5, "auv": 0.6, ORACLE: 0.7, VOLUME: 0.55})
    assert "Dropping by auv at ratio 0.7, against dropping as many blindly: Dice +0.100" in gain
    assert "(by seed +0.090 to +0.110), better at 3 of 3 seeds: a gain is shown" in gain
    assert "not shown to beat a blind drop" not in gain
    assert "did as well as" not in gain
    assert "a gain is shown" not in words_of({ALL: 0.5, RANDOM: 0.5, "auv": 0.6, ORACLE: 0.7}, n_seeds=2)
    assert "a loss is shown" in words_of({ALL: 0.5, RANDOM: 0.5, "auv": 0.4, ORACLE: 0.7})
    none = words_of({ALL: 0.5, RANDOM: 0.5, "auv": 0.505, ORACLE: 0.5, VOLUME: 0.55}, n_dirty_left=3, spread=0.015)
    change = "Dice +0.005 [-0.005, +0.015] (by seed -0.010 to +0.020), better at 2 of 3"
    assert f"auv at ratio 0.7, against training on all cases: {change}" in none
    assert "neither a gain nor a loss is shown" in none
    assert "the answer key itself is not shown to beat a blind drop" in none
    assert "auv dropped 1 dirty cases among 3, a blind drop 1.2 on average" in none
    assert "Dropping the smallest cases did as well as auv or better: 0.550 to 0.505." in none


# The command.


@pytest.mark.parametrize("arguments", [("bench", "--help"), ("bench", "downstream", "--help")])
def test_help_has_the_common_options_and_imports_nothing_heavy(arguments):
    code = f"import sys; from auvtool.cli.app import main; sys.argv = ['auvtool', *{arguments!r}]\ntry:\n    main()\n"
    code += "finally:\n    assert not {'torch', 'numpy', 'scipy', 'nnunetv2', 'rich', 'h5py'} & sys.modules.keys()\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "downstream" in done.stdout
    if "downstream" in arguments:
        assert all(option in done.stdout for option in ("-q, --quiet", "-v, --verbose", "--config", "-n, --dry-run"))


@pytest.fixture(scope="module")
def phantoms_once(tmp_path_factory):
    from auvtool.demonstration.phantom_data import DataPlan, write_phantom_dataset

    tmp_path, shape = tmp_path_factory.mktemp("phantoms"), (4, 48, 64)
    write_phantom_dataset(tmp_path, plan=DataPlan(14, 2, 2, shape, seed=1), on_case=lambda _: None)
    key = read_table(tmp_path / "answer_key.csv", ANSWER_KEY)
    dirty = [str(row["case"]) for row in key if row["dirty"]]
    cases = [str(row["case"]) for row in key]
    volumes = {case: 100.0 - place for place, case in enumerate(cases)}
    # Five of the seven dirty cases look the dirtiest, the other two the cleanest.
    good = {
        case: place / 100 + (1 if case in dirty[:5] else -1 if case in dirty else 0) for place, case in enumerate(cases)
    }
    write_table(score_rows(good, volumes=volumes), SCORES, tmp_path / "good.csv")
    write_table(score_rows({case: -value for case, value in good.items()}), SCORES, tmp_path / "bad.csv")
    return tmp_path


@pytest.fixture
def phantoms_with_faults(phantoms_once, tmp_path):
    """A data set of the demo's kind, 12 cases to train on of which 7 are dirty, and two tables of scores."""
    return Path(shutil.copytree(phantoms_once, tmp_path / "work"))


def bench(folder: Path, *options: str):
    fixed = ("--key", "answer_key.csv", "--scores", "good.csv", "--scores", "bad.csv", "-o", "D")
    return auvtool("bench", "downstream", "Dataset900_Phantoms", *fixed, *options, cwd=folder)


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(phantoms_with_faults):
    before = sorted(phantoms_with_faults.rglob("*"))
    done = bench(phantoms_with_faults, "-n", "--seeds", "4", "--ratios", "0.75,0.5")
    assert done.returncode == 0, done.stderr
    assert "12 cases to train on, 7 of them dirty" in done.stdout
    assert "validation   2 clean cases: phantom_013, phantom_014" in done.stdout
    assert "trainings    13, of which 0 are done" in done.stdout
    assert "auvtool train Dataset900_Phantoms --keep D/keep/all_seed4.csv -o D/runs/all_seed4" in done.stdout
    assert sorted(phantoms_with_faults.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ratios", "1.5"], "--ratios: expected different numbers between 0 and 1, got 1.5"),
        (["--ratios", "many"], "--ratios: expected numbers like 0.9,0.8, got many"),
        (["--seeds", "0,0"], "--seeds: expected different numbers"),
        (
            ["--arms", "best"],
            "expected arms among all, random, good, bad, volume, oracle, clean, duo, duo-rw, duo-en, duo-base, got",
        ),
        (["--train", "--seed 1"], "--train: expected options that are the same for every arm, got --seed"),
        (["--scores", "good.csv"], "expected a file name that no other arm has"),
        (["--val-cases", "phantom_013,nobody"], "--val-cases: expected clean cases of Dataset900_Phantoms, got nobody"),
        (["--test", "imagesTs", "labelsTs"], "imagesTs: expected a folder of clean test cases, got none"),
    ],
)
def test_wrong_usage_is_one_line(phantoms_with_faults, options, message):
    done = bench(phantoms_with_faults, "-n", *options)
    assert done.returncode in {2, 3}
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_key_of_another_data_set_is_refused(phantoms_with_faults):
    path = phantoms_with_faults / "answer_key.csv"
    path.write_text(path.read_text().replace("phantom_003", "liver_3"))
    done = bench(phantoms_with_faults, "-n")
    assert done.returncode == 3
    assert "the answer key: expected the cases of Dataset900_Phantoms, got no row of phantom_003" in done.stderr


@pytest.mark.slow
def test_the_whole_experiment_with_tiny_trainings(phantoms_with_faults):
    size = "-c 2d --patch-size 40,64 --batch-size 2 --features 4 --epochs 1 --iterations 2 --val-iterations 1 --lr 0.1"
    options = ("--train", size, "--seeds", "0,1", "--arms", "all,random,good,oracle,clean,duo", "-j", "2")
    done = bench(phantoms_with_faults, *options)
    assert done.returncode == 0, done.stderr
    folder = phantoms_with_faults / "D"
    rows = read_table(folder / "downstream.csv", DOWNSTREAM)
    names = {row["class_name"] for row in rows}
    assert len(rows) == 6 * 2 * len(names)
    n_dirty_left = {row["arm"]: row["n_dirty_left"] for row in rows}
    assert (n_dirty_left["all"], n_dirty_left["good"], n_dirty_left["oracle"], n_dirty_left["clean"]) == (7, 2, 0, 0)
    assert {row["arm"]: row["n_training"] for row in rows} == {
        "all": 12, "random": 5, "good": 5, "oracle": 5, "clean": 5, "duo": 12,
    }  # fmt: skip
    assert all(row["dice"] is None or 0 <= float(str(row["dice"])) <= 1 for row in rows)
    dice = {(row["arm"], row["seed"], row["class_name"]): row["dice"] for row in rows}
    assert all(dice["oracle", seed, "all"] == dice["clean", seed, "all"] for seed in (0, 1))
    assert len(list((folder / "runs").glob("*.manifest.json"))) == 10  # clean is oracle's training
    assert sum("nnU-Net: fingerprint" in log.read_text() for log in (folder / "logs").glob("train_*.log")) <= 1
    record = json.loads((folder / "runs" / "duo_seed0" / "auvtool_run.json").read_text())
    assert record["recipe"]["loss"] == "duo"
    assert record["val_cases"] == ["phantom_013", "phantom_014"]
    summary = read_table(folder / "downstream_summary.csv", DOWNSTREAM_SUMMARY)
    assert len(summary) == 6 * len(names)
    assert (folder / "downstream.svg").is_file()
    assert "2 seeds, 2 test cases, one data set" in (folder / "downstream.md").read_text()
    again = bench(phantoms_with_faults, *options)
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    assert "\n$ " not in again.stderr
    refused = bench(phantoms_with_faults, *shlex.split("--seeds 0"))
    assert refused.returncode == 2
    assert "expected an experiment with the same plan" in refused.stderr
