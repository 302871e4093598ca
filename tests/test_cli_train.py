"""`auvtool train` as a command; the training itself is in test_training."""

import json
import os
import shlex

import pytest
from command_line import auvtool
from training_phantoms import KEPT, write_balls
from typer.testing import CliRunner

from auvtool.cli.app import app
from auvtool.cli.case_ids import parse_case_ids
from auvtool.errors import CasesFailed, InputError, UsageError
from auvtool.schema import FAILURES
from auvtool.tables import read_table


@pytest.fixture
def command(trained, tmp_path):
    """The command line that asks for what the fixture has trained."""
    keep = tmp_path / "K.csv"
    rows = [f"case_{number:02d},{str(f'case_{number:02d}' in (*KEPT, 'case_05')).lower()}" for number in range(6)]
    keep.write_text("\n".join(["case,keep", *rows]) + "\n")
    options = shlex.split("--epochs 2 --iterations 2 --batch-size 2 --features 8 --patch-size 32x32x32 --seed 7")
    paths = ["--keep", keep, "-o", trained.request.run, "--workspace", trained.request.workspace]
    return ["train", str(trained.request.dataset.folder), *map(str, paths), *options]


def test_a_finished_training_is_found_again_and_the_lost_case_is_exit_4(trained, command):
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, CasesFailed)
    assert done.stdout == f"{trained.outcome.checkpoint}\n"
    assert "nothing to do" in done.stderr
    (row,) = read_table(trained.request.run.with_name("RUN.failures.csv"), FAILURES)
    assert (row["case"], row["step"]) == ("case_05", "train")
    manifest = json.loads(trained.request.run.with_name("RUN.manifest.json").read_text())
    assert manifest["counts"] == {"train": 3, "val": 1, "dropped": 1, "failed": 1}
    assert manifest["options"]["alpha"] == 0.5


def test_dry_run_says_what_would_be_done(trained, command, tmp_path):
    before = sorted(trained.folder.rglob("*"))
    done = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "NEW"), "-n"])
    assert done.exit_code == 0, done.output
    lines = {line[:13].strip(): line[13:] for line in done.stdout.splitlines()}
    assert lines["data set"] == "Dataset900_Balls, 6 labelled cases"
    assert lines["dropped"] == "1 by the keep list: case_03"
    assert lines["patch"].startswith("32 x 32 x 32, batch 2")
    assert lines["length"] == "2 epochs of 2 + 1 batches"
    assert lines["loss"] == "duo, weights with alpha 0.5, with noise head, beta 0.5"
    assert sorted(trained.folder.rglob("*")) == before
    assert not (tmp_path / "NEW").exists()


def test_the_base_of_duo_has_a_name(command, tmp_path):
    dry = [*command, "-o", str(tmp_path / "NEW"), "-n"]
    named, spelt = (
        CliRunner().invoke(app, [*dry, *options])
        for options in (["--loss", "classwise"], ["--loss", "duo", "--no-reweight", "--no-denoise"])
    )
    assert named.exit_code == 0, named.output
    assert "duo, no weights, without noise head" in named.stdout
    assert named.stdout == spelt.stdout
    static = CliRunner().invoke(app, [*dry, "--loss", "classwise", "--scale-grad"])
    assert isinstance(static.exception, UsageError)


def test_folds_are_trained_one_after_the_other_and_found_again(trained, command, tmp_path):
    """Two folds of a run of one batch each; the second call has nothing to do."""
    run = tmp_path / "FOLDS"
    options = [*command, "-o", str(run), "--epochs", "1", "--iterations", "1", "--folds", "1,3", "--features", "4"]
    (tmp_path / "w.json").write_text('{"lesion": 2}')
    options += ["--class-weights", str(tmp_path / "w.json"), "--amp", "bf16", "--no-compile"]
    done = CliRunner().invoke(app, options)
    assert isinstance(done.exception, CasesFailed)
    checkpoints = done.stdout.splitlines()
    assert len(checkpoints) == 2
    record = json.loads((run / "auvtool_run.json").read_text())
    assert [f"fold_{number}" for number in record["folds"]] == [path.split("/")[-2] for path in checkpoints]
    assert record["recipe"]["class_weights"]["values"] == {"organ": 1.0, "lesion": 2.0}
    vals = [set(split["val"]) for split in record["folds"].values()]
    assert not vals[0] & vals[1]
    again = CliRunner().invoke(app, options)
    assert again.stdout == done.stdout
    assert again.stderr.count("nothing to do") == 2
    manifest = json.loads((tmp_path / "FOLDS.manifest.json").read_text())
    assert len(manifest["options"]["fold"]) == 2
    assert len(manifest["model_sha256"].split()) == 2


def test_static_weights_are_read_from_a_table_of_scores(command, tmp_path):
    from test_class_table import SOME, scores

    table = scores(tmp_path / "S.csv", SOME)
    done = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "NEW"), "-n", "--static-weights", str(table)])
    assert done.exit_code == 0, done.output
    assert "weights with alpha 0.5, of a table" in done.stdout


def test_other_options_are_refused(command):
    done = CliRunner().invoke(app, [*command, "--no-denoise"])
    assert isinstance(done.exception, UsageError)
    assert "denoise True (now False)" in str(done.exception)


def test_a_keep_list_of_another_data_set_is_refused(command, tmp_path):
    (tmp_path / "other.txt").write_text("case_00\nliver_7\n")
    done = CliRunner().invoke(app, [*command, "--keep", str(tmp_path / "other.txt")])
    assert isinstance(done.exception, InputError)
    assert "liver_7" in str(done.exception)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--patch-size", "32;32"], "--patch-size"),
        (["--lr", "0"], "--lr"),
        (["--val-cases", "nobody"], "nobody"),
        (["--fold", "17"], "--fold"),
        (["--folds", "all", "--fold", "0"], "--folds"),
        (["--folds", "0,0"], "--folds"),
        (["--folds", "some"], "--folds"),
        (["--amp", "fp16"], "--amp"),
        (["--denoise-form", "official", "--no-denoise"], "--denoise-form"),
        (["--gpus", "3"], "--gpus"),
        (["--fold", "1", "--val-cases", "case_00"], "--val-cases: expected no --fold"),
        (["--loss", "plain", "--alpha", "1"], "--alpha: expected --loss duo with its weights, got --loss plain"),
        (["--loss", "plain", "--beta", "0.5"], "--beta: expected --loss duo or classwise, got --loss plain"),
        (["--loss", "plain", "--denoise"], "--denoise: expected --loss duo, got --loss plain"),
        (["--loss", "plain", "--denoise-form", "paper"], "--denoise-form: expected --loss duo with its noise head"),
        (["--loss", "plain", "--static-weights", "S.csv"], "--static-weights: expected --loss duo with its weights"),
        (["--loss", "plain", "--class-weights", "w.json"], "--class-weights: expected --loss duo or classwise"),
        (["--loss", "classwise", "--reweight"], "--reweight: expected --loss duo, got --loss classwise"),
        (
            ["--loss", "classwise", "--alpha", "1"],
            "--alpha: expected --loss duo with its weights, got --loss classwise",
        ),
        (["--no-reweight", "--alpha", "1"], "got --loss duo --no-reweight; leave it out"),
        (["--no-denoise", "--denoise-form", "paper"], "got --loss duo --no-denoise; leave it out"),
    ],
)
def test_wrong_usage_is_one_line(command, tmp_path, options, message):
    done = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "NEW"), "-n", *options])
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)


@pytest.mark.parametrize(
    "options",
    [
        ["--loss", "plain", "--no-denoise", "--no-reweight", "--no-scale-grad"],
        ["--loss", "classwise", "--beta", "0.3", "--no-denoise"],
        ["--no-denoise", "--alpha", "1", "--scale-grad"],
        ["--no-reweight", "--denoise-form", "official"],
    ],
)
def test_options_that_say_what_is_so_or_change_something_are_taken(command, tmp_path, options):
    done = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "NEW"), "-n", *options])
    assert done.exit_code == 0, done.output


def test_a_default_of_the_environment_is_for_the_losses_that_have_it(command, tmp_path, monkeypatch):
    monkeypatch.setenv("AUVTOOL_TRAIN_ALPHA", "1")
    done = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "NEW"), "-n", "--loss", "plain"])
    assert done.exit_code == 0, done.output


def test_a_fold_that_there_is_not_is_refused_before_the_first_is_trained(command, tmp_path):
    done = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "NEW"), "--folds", "0,17"])
    assert isinstance(done.exception, UsageError)
    assert "got 17" in str(done.exception)
    assert not (tmp_path / "NEW").exists()


def test_a_device_that_is_not_there_is_refused(command, tmp_path):
    done = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "NEW"), "--device", "cuda:99"])
    assert isinstance(done.exception, UsageError)
    assert "--device" in str(done.exception)
    assert not (tmp_path / "NEW").exists()


def test_ids_are_named_with_commas_or_in_a_file(tmp_path):
    (tmp_path / "ids.txt").write_text("a\n\n b.c \n")
    assert parse_case_ids(str(tmp_path / "ids.txt"), "--cases") == ["a", "b.c"]
    assert parse_case_ids("a, b.c", "--cases") == ["a", "b.c"]
    assert parse_case_ids(",".join(["case"] * 5000), "--cases") == ["case"] * 5000  # no file has so long a name
    assert parse_case_ids(None, "--cases") is None
    with pytest.raises(UsageError, match="--cases"):
        parse_case_ids(" , ", "--cases")
    (tmp_path / "S.csv").write_text("case,class_id\na,1\n")
    with pytest.raises(
        UsageError, match=r"--cases: expected ids one a line in .*S\.csv, got a table; give a file of ids"
    ):
        parse_case_ids(str(tmp_path / "S.csv"), "--cases")


def test_a_data_set_in_nnunet_raw_is_prepared_where_the_variables_say(tmp_path):
    folders = {name: tmp_path / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    dataset = write_balls(folders["nnUNet_raw"] / "Dataset900_Balls", n_cases=5)
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    run = tmp_path / "out" / "RUN"
    run.parent.mkdir()
    size = shlex.split("--epochs 1 --iterations 1 --batch-size 2 --features 4 --patch-size 32,32")
    options = ["-o", run, "--loss", "plain", "-c", "2d", "--validate", "-j", "2"]
    variables = {name: str(folder) for name, folder in folders.items()}
    done = auvtool("train", dataset, *size, *options, env={**os.environ, **variables})
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{run / 'fold_0' / 'checkpoint_final.pth'}\n"
    prepared = folders["nnUNet_preprocessed"] / "Dataset900_Balls"
    assert len(json.loads((prepared / "splits_final.json").read_text())) == 5
    assert len(list((prepared / "nnUNetPlans_2d").glob("*.pkl"))) == 5
    assert (run / "fold_0" / "validation" / "summary.json").is_file()
    assert [path.name for path in run.parent.iterdir() if path.name.startswith("nnUNet")] == []
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before
