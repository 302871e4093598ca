"""The chain of an experiment, with a stub in place of auvtool: what is run again, and what the tables and words say."""

import json
import sys
from dataclasses import replace

import pytest
from downstream_arms import CASES, plan

from auvtool import command_chain
from auvtool.benchmark import downstream, downstream_plot, downstream_report, downstream_results
from auvtool.benchmark.downstream import Experiment
from auvtool.benchmark.downstream_plan import ALL, ORACLE, RANDOM, VOLUME
from auvtool.dataset import open_dataset
from auvtool.errors import InputError, UsageError
from auvtool.experiment_schema import DOWNSTREAM, DOWNSTREAM_SUMMARY
from auvtool.keep_list import read_keep_list
from auvtool.schema import Row
from auvtool.tables import read_table

# It notes its arguments, and eval gives each training a Dice of its own.
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
