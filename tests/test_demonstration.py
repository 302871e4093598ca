import errno
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from auvtool import command_chain
from auvtool.command_chain import Step
from auvtool.corruption.kinds import KINDS
from auvtool.dataset import open_dataset
from auvtool.demonstration import commands, findings, phantom_data, session
from auvtool.demonstration.commands import DemoPlan
from auvtool.demonstration.phantom_data import DataPlan
from auvtool.errors import UsageError
from auvtool.experiment_schema import ANSWER_KEY
from auvtool.filtering import filter_cases
from auvtool.schema import Row
from auvtool.tables import read_table
from auvtool.volume import read_image, read_label

PLAN = DataPlan(n_training=9, n_validation=1, n_test=1, shape=(4, 48, 64), seed=3)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    seen: list[str] = []
    phantom_data.write_phantom_dataset(folder, plan=PLAN, on_case=seen.append)
    assert seen == [f"phantom_{number:03d}" for number in range(1, 11)]
    return folder


def key_of(folder: Path) -> dict[str, Row]:
    return {str(row["case"]): row for row in read_table(folder / phantom_data.ANSWER_KEY_NAME, ANSWER_KEY)}


def test_the_data_set_is_a_raw_nnunet_one(written: Path) -> None:
    dataset = open_dataset(written / phantom_data.DATASET_NAME)
    assert [case.case_id for case in dataset.cases] == list(key_of(written))
    assert [item.name for item in dataset.classes] == list(phantom_data.phantoms.CLASS_NAMES)
    assert dataset.channel_names == ("CT",)
    assert {file.name for file in (written / phantom_data.DATASET_NAME / "labelsTs").iterdir()} == {
        "phantom_010.nii.gz"
    }
    assert [item.name for item in written.iterdir() if item.name.startswith(".")] == []


def test_each_fault_once_and_never_in_validation(written: Path) -> None:
    key = key_of(written)
    assert sorted(str(row["kind"]) for row in key.values() if row["dirty"]) == sorted(
        f.kind for f in phantom_data.FAULTS
    )
    assert not key["phantom_009"]["dirty"]
    assert all(row["kind"] is None and row["dice"] == 1.0 for row in key.values() if not row["dirty"])


def test_a_fault_spoils_the_image_or_the_label_and_the_key_grades_it(written: Path) -> None:
    dataset = open_dataset(written / phantom_data.DATASET_NAME)
    key = key_of(written)
    for position, case in enumerate(dataset.cases):
        assert case.label is not None
        clean = phantom_data._draw(PLAN, position)
        (image, geometry), (label, _) = read_image(case.images), read_label(case.label)
        assert geometry.spacing_mm == pytest.approx(clean.spacing_mm)
        kind = key[case.case_id]["kind"]
        spoilt = None if kind is None else KINDS[str(kind)].of
        assert np.array_equal(image[0], clean.image) == (spoilt != "image")
        assert (key[case.case_id]["psnr"] is None) == (spoilt != "image")
        same_label = np.array_equal(label, clean.label)
        assert same_label == (spoilt != "label")
        dice = key[case.case_id]["dice"]
        assert isinstance(dice, float)
        assert (dice == 1.0) == same_label


def test_another_seed_spoils_other_cases() -> None:
    assert set(phantom_data.dirty_positions(DataPlan(seed=0))) != set(phantom_data.dirty_positions(DataPlan(seed=1)))


def test_too_few_cases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        phantom_data.write_phantom_dataset(tmp_path, plan=DataPlan(n_training=7), on_case=print)


KEY: list[Row] = [
    {"case": "a", "dirty": True, "kind": "mirrored-label", "level": "high", "dice": 0.1},
    {"case": "b", "dirty": True, "kind": "blur", "level": "high", "dice": 1.0},
    {"case": "c", "dirty": False, "kind": None, "level": None, "dice": 1.0},
    {"case": "d", "dirty": False, "kind": None, "level": None, "dice": 1.0},
]


def scores_of(**auv: float | None) -> list[Row]:
    rows: list[Row] = [{"case": case, "class_id": 1, "auv": 0.5} for case in auv]
    return rows + [{"case": case, "class_id": None, "auv": value} for case, value in auv.items()]


def keep_list_of(**keep: bool) -> list[Row]:
    return [{"case": case, "keep": value} for case, value in keep.items()]


def test_a_ranking_takes_whole_cases_that_have_a_value() -> None:
    item = findings.ranking(
        "auv", scores_of(a=1.0, b=0.2, c=0.2, d=None), keep_list_of(a=False, b=True, c=True, d=True)
    )
    assert item.value == {"a": 1.0, "b": 0.2, "c": 0.2}
    assert (item.rank("a"), item.rank("b"), item.rank("c"), item.rank("d")) == (1, 2, 2, None)
    assert item.dropped == {"a"}


def test_auroc_by_hand() -> None:
    # dirty 0.9 and 0.2 against clean 0.5 and 0.2: one win, one win, one loss, one tie
    item = findings.ranking("auv", scores_of(a=0.9, b=0.2, c=0.5, d=0.2), [])
    assert findings.auroc(KEY, item) == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert findings.auroc(KEY[:2], item) is None


def test_dirty_rows_show_each_quantifier_side_by_side() -> None:
    rankings = [
        findings.ranking("auv", scores_of(a=0.9, b=0.2, c=0.5, d=0.3), keep_list_of(a=False, b=True, c=True, d=True)),
        findings.ranking("agreement", scores_of(a=0.1, b=0.9, c=0.5, d=None), keep_list_of(b=False)),
    ]
    assert findings.dirty_rows(KEY, rankings) == [
        {
            "case": "a", "fault": "mirrored-label (high)", "label Dice": 0.1,
            "auv": 0.9, "auv rank": "1 of 4", "auv drops": "yes",
            "agreement": 0.1, "agreement rank": "3 of 3", "agreement drops": "no",
        },
        {
            "case": "b", "fault": "blur (high)", "label Dice": 1.0,
            "auv": 0.2, "auv rank": "4 of 4", "auv drops": "no",
            "agreement": 0.9, "agreement rank": "1 of 3", "agreement drops": "yes",
        },
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("dropped", "words"),
    [
        ("", "missed most of the dirty cases here and dropped 0 clean ones"),
        ("c", "missed most of the dirty cases here and dropped 1 clean one."),
        ("a", "missed 1 and dropped 0 clean cases"),
        ("abc", "found all of them and dropped 1 clean case."),
    ],
)
def test_a_bad_result_is_said_as_plainly_as_a_good_one(dropped: str, words: str) -> None:
    keep = {case: case not in dropped for case in "abcd"}
    text = findings.detection_text(KEY, [findings.ranking("auv", scores_of(a=0.9, b=0.2), keep_list_of(**keep))])
    assert words in text[1]
    assert f"{len(dropped) * 2 / 4:.1f}" in text[0]


def metrics_of(*dice: tuple[str, float | None]) -> list[Row]:
    return [{"case": "x", "class_id": 1, "class_name": name, "dice": value} for name, value in dice]


def dice_words(metrics: dict[str, list[Row]], dropped: str) -> list[str]:
    item = findings.Ranking("auv", {"a": 1.0}, frozenset(dropped))
    rows = findings.dice_rows(metrics)
    return findings.dice_text(rows, KEY, item, base="all", random="random", clean="clean", n_test=4)


def test_dice_of_each_training_by_class_and_their_mean() -> None:
    before = metrics_of(("liver", 0.8), ("liver", 0.6), ("lesion", None), ("lesion", 0.1))
    before.append({"case": "x", "class_id": None, "class_name": "all", "dice": 0.99})
    metrics = {"all": before, "auv": metrics_of(("liver", 0.9), ("lesion", 0.1)), "random": before, "clean": before}
    rows = findings.dice_rows(metrics)
    assert [row["class"] for row in rows] == ["liver", "lesion", "all"]
    assert rows[0]["all"] == pytest.approx(0.7)
    assert rows[0]["auv"] == 0.9
    assert rows[2]["all"] == pytest.approx(0.4)  # the mean of the classes, not the whole-case row
    text = dice_words(metrics, "ab")
    assert text[0].endswith("mean Dice 0.400 -> 0.500 (+0.100)")
    assert text[1].endswith("mean Dice 0.400 -> 0.400 (+0.000)")


def test_a_better_dice_is_not_called_a_find_when_nothing_was_found() -> None:
    better = metrics_of(("liver", 0.9))
    metrics = {"all": metrics_of(("liver", 0.3)), "auv": better, "random": better, "clean": better}
    # 2 of 4 cases are dirty: one of two dropped is chance, both are not.
    assert any("not because dirty cases were found" in line for line in dice_words(metrics, "ac"))
    assert not any("not because dirty cases were found" in line for line in dice_words(metrics, "ab"))


def test_a_class_that_no_case_has_is_null_and_left_out_of_the_mean() -> None:
    nothing = metrics_of(("liver", None), ("lesion", None))
    first = metrics_of(("liver", 0.5), ("lesion", None))
    metrics = {"all": first, "auv": metrics_of(("liver", 0.4)), "random": first, "clean": nothing}
    assert findings.dice_rows(metrics)[1] == {
        "class": "lesion",
        "all": None,
        "auv": None,
        "random": None,
        "clean": None,
    }
    text = dice_words(metrics, "a")
    assert text[0].endswith("(-0.100)")
    assert text[2].endswith("mean Dice not defined")


def test_steps_run_print_their_command_and_are_skipped_when_done(tmp_path: Path) -> None:
    said: list[str] = []
    steps = [Step(name, ("--version",), tmp_path / name) for name in ("first", "second")]
    command_chain.run_together(steps, logs=tmp_path, at_once=2, show=False, say=said.append)
    assert said[:2] == ["$ auvtool --version"] * 2
    assert (tmp_path / "first.log").read_text() == (tmp_path / "second.log").read_text()
    assert (tmp_path / "first.log").read_text().startswith("auvtool ")
    (tmp_path / "first").touch()
    (tmp_path / "second").touch()
    said.clear()
    command_chain.run_together(steps, logs=tmp_path, at_once=2, show=False, say=said.append)
    assert said == ["  (done before) auvtool --version"] * 2


def test_a_failed_command_gives_its_exit_code_and_its_log(tmp_path: Path) -> None:
    step = Step("bad", ("no-such-command", "a b"), tmp_path / "output")
    message = r"auvtool no-such-command 'a b': expected to finish.*bad\.log"
    with pytest.raises(command_chain.StepFailed, match=message) as error:
        command_chain.run_together([step], logs=tmp_path, at_once=1, show=False, say=lambda _: None)
    assert error.value.exit_code == 2
    assert "no-such-command" in (tmp_path / "bad.log").read_text()


def test_a_command_ends_with_the_process_that_runs_the_chain_however_that_ends(tmp_path: Path) -> None:
    scores = tmp_path / "S.csv"
    os.mkfifo(scores)  # the command waits for its rows, and for as long as it reads there can be a writer
    program = (
        "from pathlib import Path\nfrom auvtool.command_chain import Step, run_together\n"
        f"step = Step('filter', ('filter', {str(scores)!r}, '--ids'), Path({str(tmp_path / 'K.csv')!r}))\n"
        f"run_together([step], logs=Path({str(tmp_path)!r}), at_once=1, show=False, say=print)"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as chain:
        writer = open_once_it_is_read(scores)
        chain.kill()
        chain.wait()
    gone = select.poll()
    gone.register(writer, 0)
    assert [event for _, event in gone.poll(30_000)] == [select.POLLERR]
    os.close(writer)


def open_once_it_is_read(fifo: Path, *, seconds: float = 60.0) -> int:
    end = time.monotonic() + seconds
    while True:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > end:  # nobody reads yet
                raise
            time.sleep(0.05)


def plan_in(folder: Path, *, seed: int = 0) -> DemoPlan:
    return DemoPlan(folder, DataPlan(seed=seed), jobs=2)


def test_as_many_cases_are_dropped_as_are_dirty() -> None:
    plan = plan_in(Path("demo"))
    arguments = {step.name: step.arguments for _, steps in commands.step_groups(plan) for step in steps}
    quantile = float(arguments["filter_auv"][arguments["filter_auv"].index("--quantile") + 1])
    kept = filter_cases(np.random.default_rng(0).permutation(plan.data.n_training) / plan.data.n_training, quantile)
    assert plan.data.n_training - kept.sum() == len(phantom_data.FAULTS)


def test_the_report_is_about_the_default_score() -> None:
    plan = plan_in(Path("demo"))
    _, (step,) = commands.step_groups(plan)[-1]
    assert step.output == Path("demo/report.html")
    assert step.arguments[:2] == ("report", "demo/scores_deviation.csv")
    assert step.arguments[step.arguments.index("--keep") + 1] == "demo/keep_deviation.csv"
    assert DemoPlan(Path("demo"), DataPlan(), jobs=2, quantifiers=("auv", "random")).reported == "auv"


def test_the_trainings_differ_in_the_keep_list_alone() -> None:
    plan = plan_in(Path("demo"))
    steps = {step.name: step.arguments for _, group in commands.step_groups(plan) for step in group}
    rest = set()
    for arm in plan.arms:
        arguments = list(steps[f"train_{arm}"])
        if arm != "all":
            place = arguments.index("--keep")
            assert arguments[place + 1] == str(plan.keep_list(arm))
            del arguments[place : place + 2]
        arguments.remove(f"demo/run_{arm}")
        rest.add(tuple(arguments))
    assert len(plan.arms) == 4
    assert len(rest) == 1


def test_the_folder_of_a_demo_is_found_again_and_no_other_is_touched(tmp_path: Path) -> None:
    plan = plan_in(tmp_path / "demo")
    session.open_folder(plan, force=False)
    (tmp_path / "demo" / "features.h5").touch()
    session.open_folder(plan, force=False)
    assert (tmp_path / "demo" / "features.h5").exists()
    with pytest.raises(UsageError, match="same options"):
        session.open_folder(plan_in(tmp_path / "demo", seed=1), force=False)
    session.open_folder(plan_in(tmp_path / "demo", seed=1), force=True)
    assert not (tmp_path / "demo" / "features.h5").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "scan.nii").touch()
    for force in (False, True):
        with pytest.raises(UsageError, match="no demo made"):
            session.open_folder(plan_in(tmp_path / "mine"), force=force)
    assert (tmp_path / "mine" / "scan.nii").exists()
    with pytest.raises(UsageError, match="create it first"):
        session.open_folder(plan_in(tmp_path / "no" / "where"), force=False)


@pytest.mark.slow
def test_the_whole_chain_with_the_control_extractor(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "auvtool", "demo", "--quick", "-o", "demo"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "$ auvtool extract demo/Dataset900_Phantoms" in done.stderr
    dirty = [row for row in key_of(tmp_path / "demo").values() if row["dirty"]]
    for row in dirty:
        assert f"{row['case']}  {row['kind']}" in done.stdout
    assert "dirty cases are among the 7 dropped" in done.stdout
    assert "auvtool extract Dataset123_Name" in done.stdout
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    assert "\n$ " not in again.stderr
