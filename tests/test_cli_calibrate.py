"""`auvtool calibrate` from the command line, between extract and filter; with the identity, which is fast."""

import json
import shutil
from pathlib import Path

import pytest
from training_phantoms import write_balls
from typer.testing import CliRunner

from auvtool import console
from auvtool.cli.app import app
from auvtool.errors import AuvtoolError, ExitCode
from auvtool.faults import split_copy_id
from auvtool.feature_store import FeatureFile
from auvtool.schema import KEEP_LIST, SCORES
from auvtool.tables import read_table

SMALL = ("--cases", 8, "--per-case", 3)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set of 8 balls, its features, and what calibrate made of them."""
    folder = tmp_path_factory.mktemp("calibrate")
    (folder / "Dataset900_Balls").mkdir()
    write_balls(folder / "Dataset900_Balls", n_cases=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "_verbosity", console.Verbosity())
        patch.chdir(folder)
        extract("Dataset900_Balls", "-o", "F.h5")
        done = run("calibrate", "Dataset900_Balls", "F.h5", "-o", "S.csv", *SMALL)
    assert done.exit_code == 0, done.exception
    return folder, done


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """The same in a folder of one's own."""
    monkeypatch.setattr(console, "_verbosity", console.Verbosity())
    shutil.copytree(made[0], tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def run(*words):
    return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=True)


def extract(*words):
    done = run("extract", *words, "--extractor", "identity", "--input", "raw", "--max-slices", 4)
    assert done.exit_code == 0, done.exception


def refused(*words):
    """The message of the error that a command ends with, and the exit code that goes with it."""
    done = run("calibrate", *words)
    assert isinstance(done.exception, AuvtoolError), done.exception
    assert "\n" not in str(done.exception)
    assert done.stdout == ""
    return str(done.exception), done.exception.exit_code


def test_scores_say_how_likely_each_case_is_dirty_and_why(made):
    folder, done = made
    assert done.stdout == ""
    assert "mean AUROC" in done.stderr
    rows = read_table(folder / "S.csv", SCORES)
    whole = [row for row in rows if row["class_id"] is None]
    assert [row["case"] for row in whole] == [f"case_{n:02d}" for n in range(8)]
    assert {row["quantifier"] for row in rows} == {"calibrated"}
    assert all(0.0 < row["value"] < 1.0 for row in whole)
    assert all(row["value"] is None for row in rows if row["class_id"] is not None)
    assert {0.0, 1.0} <= {row["auv"] for row in whole}
    manifest = json.loads((folder / "S.csv.manifest.json").read_text())
    assert manifest["command"] == "calibrate"
    assert manifest["counts"]["cases"] == 8
    with FeatureFile(folder / "F.copies.h5") as file:
        assert manifest["counts"]["copies"] == len(file.case_ids) <= 24
        assert all(split_copy_id(case_id) for case_id in file.case_ids)


def test_filter_takes_what_calibrate_writes(folder):
    done = run("filter", "S.csv", "--quantile", 0.75, "-o", "K.csv")
    assert done.exit_code == 0, done.exception
    kept = read_table(Path("K.csv"), KEEP_LIST)
    assert sum(row["keep"] for row in kept) == 6
    values = {row["case"]: row["value"] for row in read_table(Path("S.csv"), SCORES) if row["class_id"] is None}
    dropped = {row["case"] for row in kept if not row["keep"]}
    assert dropped == set(sorted(values, key=values.get)[-2:])


def test_the_same_again_reuses_the_copies_and_gives_the_same_bytes(folder):
    before = Path("F.copies.h5").stat()
    done = run("calibrate", "Dataset900_Balls", "F.h5", "-o", "again.csv", *SMALL)
    assert done.exit_code == 0, done.exception
    assert "F.copies.h5 holds the copies" in done.stderr
    assert Path("again.csv").read_bytes() == Path("S.csv").read_bytes()
    assert Path("F.copies.h5").stat().st_mtime_ns == before.st_mtime_ns


def test_copies_of_a_label_that_was_corrected_since_are_made_anew_when_asked(folder):
    label = next(Path("Dataset900_Balls/labelsTr").iterdir())
    shutil.copyfile(next(path for path in label.parent.iterdir() if path != label), label)
    said, code = refused("Dataset900_Balls", "F.h5", "-o", "again.csv", *SMALL)
    assert code == ExitCode.USAGE
    assert "F.copies.h5: expected the copies that these options and cases ask for, got others" in said
    done = run("calibrate", "Dataset900_Balls", "F.h5", "-o", "again.csv", "--force", *SMALL)
    assert done.exit_code == 0, done.exception
    assert "holds the copies" not in done.stderr


def test_labels_of_another_folder_are_those_that_copies_are_made_of(folder):
    shutil.copytree("Dataset900_Balls/labelsTr", "labels")
    words = ("Dataset900_Balls", "F.h5", "-o", "again.csv", "--labels", "labels", *SMALL)
    said, code = refused(*words)
    assert code == ExitCode.USAGE
    assert "F.copies.h5: expected the copies that these options and cases ask for, got others" in said
    done = run("calibrate", *words, "--copies", "L.h5")
    assert done.exit_code == 0, done.exception
    assert Path("again.csv").read_bytes() == Path("S.csv").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--weights", "w.pth"), "got those of another version, checkpoint"),
        (("--device", "cuda:77"), "--device: expected"),
    ],
)
def test_what_the_extractor_cannot_take_is_one_line(folder, words, message):
    Path("w.pth").touch()
    said, code = refused("Dataset900_Balls", "F.h5", "-o", "T.csv", "--copies", "C.h5", *words, *SMALL)
    assert code == ExitCode.USAGE
    assert message in said
    assert not Path("T.csv").exists()


def test_nothing_is_left_beside_the_copies(made):
    assert not list(made[0].glob("*.parts"))


def test_features_without_spectra_are_refused(folder):
    extract("Dataset900_Balls", "-o", "M.h5", "--store", "maps")
    said, code = refused("Dataset900_Balls", "M.h5", "-o", "T.csv", *SMALL)
    assert code == ExitCode.USAGE
    assert "got maps only" in said


def test_copies_made_again_are_the_same(folder):
    done = run("calibrate", "Dataset900_Balls", "F.h5", "-o", "again.csv", "--copies", "C.h5", *SMALL)
    assert done.exit_code == 0, done.exception
    assert "holds the copies" not in done.stderr
    assert Path("C.h5").read_bytes() == Path("F.copies.h5").read_bytes()
    assert Path("again.csv").read_bytes() == Path("S.csv").read_bytes()


def test_without_an_output_scores_go_to_a_pipe(folder):
    done = run("calibrate", "Dataset900_Balls", "F.h5", *SMALL)
    assert done.exit_code == 0, done.exception
    assert done.stdout == Path("S.csv").read_text()


def test_another_data_set_is_refused(folder):
    Path("Dataset901_Fewer").mkdir()
    write_balls(Path("Dataset901_Fewer"), n_cases=5)
    said, code = refused("Dataset901_Fewer", "F.h5", "-o", "T.csv", *SMALL)
    assert code == ExitCode.INVALID_INPUT
    assert said.startswith("Dataset901_Fewer: expected the data set that the features were extracted from")
    assert "no usable case case_05 and 2 more" in said
    assert not Path("T.csv").exists()


def test_too_few_copies_are_said_before_they_are_made(folder):
    said, code = refused("Dataset900_Balls", "F.h5", "-o", "T.csv", "--cases", 4, "--per-case", 1, "--copies", "T.h5")
    assert code == ExitCode.INVALID_INPUT
    assert said.startswith("calibrate: expected at least 6 cases and 12 copies to learn from, got 8 and 4; raise")
    assert not list(folder.glob("T.*"))


def test_other_classes_are_refused(folder):
    record = json.loads(Path("Dataset900_Balls/dataset.json").read_text())
    record["labels"] = {"background": 0, "organ": 1, "another": 2}
    Path("Dataset900_Balls/dataset.json").write_text(json.dumps(record))
    said, code = refused("Dataset900_Balls", "F.h5", "-o", "T.csv", *SMALL)
    assert code == ExitCode.USAGE
    assert "list of classes" in said


@pytest.mark.parametrize("prior", [2, 0, 1, -0.5, "nan"])
def test_a_prior_that_is_no_share_is_refused(folder, prior):
    said, code = refused("Dataset900_Balls", "F.h5", "--prior", prior)
    assert code == ExitCode.USAGE
    assert said.startswith("--prior: expected a share between 0 and 1")


def test_features_without_prompts_are_refused(folder):
    extract("Dataset900_Balls", "-o", "N.h5", "--prompt", "none")
    said, code = refused("Dataset900_Balls", "N.h5", "-o", "T.csv", *SMALL)
    assert code == ExitCode.USAGE
    assert "got --prompt none; extract with --prompt mask-box" in said
    assert not Path("N.copies.h5").exists()


def test_an_output_that_exists_is_refused_before_any_work(folder):
    Path("F.copies.h5").unlink()
    said, code = refused("Dataset900_Balls", "F.h5", "-o", "S.csv", *SMALL)
    assert code == ExitCode.USAGE
    assert "--force" in said
    assert not Path("F.copies.h5").exists()


def test_a_file_of_something_else_in_the_place_of_the_copies_is_kept(folder):
    Path("mine.h5").write_text("mine")
    said, code = refused("Dataset900_Balls", "F.h5", "-o", "T.csv", "--copies", "mine.h5", *SMALL)
    assert code == ExitCode.INVALID_INPUT
    assert "mine.h5: expected a feature file (HDF5)" in said
    assert Path("mine.h5").read_text() == "mine"


def test_the_features_themselves_are_not_overwritten_by_copies(folder):
    before = Path("F.h5").read_bytes()
    _, code = refused("Dataset900_Balls", "F.h5", "-o", "T.csv", "--copies", "F.h5", *SMALL)
    assert code == ExitCode.USAGE
    assert Path("F.h5").read_bytes() == before


@pytest.mark.parametrize("output", ["F.h5", "F.copies.h5"])
def test_neither_features_nor_copies_are_replaced_by_the_scores(folder, output):
    before = Path(output).read_bytes()
    for words, expected in (((), "a file that ends in .csv"), (("--format", "csv"), "another file than those")):
        said, code = refused("Dataset900_Balls", "F.h5", "-o", output, "--force", *words, *SMALL)
        assert code == ExitCode.USAGE
        assert f"-o: expected {expected}" in said
        assert output in said
    assert Path(output).read_bytes() == before
