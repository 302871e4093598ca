"""`auvtool bench detect` from the command line; with the identity, which is fast."""

import shutil
from pathlib import Path

import pytest
from training_phantoms import write_balls
from typer.testing import CliRunner

from auvtool import console
from auvtool.benchmark import detect
from auvtool.cli.app import app
from auvtool.corruption.kinds import KINDS
from auvtool.errors import AuvtoolError, ExitCode
from auvtool.experiment_schema import ANSWER_KEY, DETECTION, DETECTION_PAIRED, DETECTION_SUMMARY
from auvtool.feature_store import FeatureFile
from auvtool.tables import read_table

CHOSEN = ("blur", "gaussian-noise", "dilated", "holes")
SMALL = ("--extractor", "identity", "--cases", 8, "--copies", 3, "--draws", 2, "--shares", "0.25")


def run(*words):
    return CliRunner().invoke(app, ["bench", "detect", *map(str, words)], catch_exceptions=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set of 8 balls, and the folder B that the command filled."""
    folder = tmp_path_factory.mktemp("detect")
    (folder / "Dataset900_Balls").mkdir()
    write_balls(folder / "Dataset900_Balls", n_cases=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "_verbosity", console.Verbosity())
        patch.chdir(folder)
        done = run("Dataset900_Balls", "-o", "B", "--kinds", ",".join(CHOSEN), *SMALL)
    assert done.exit_code == 0, done.exception
    return folder, done


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """The same in a folder of one's own."""
    monkeypatch.setattr(console, "_verbosity", console.Verbosity())
    shutil.copytree(made[0], tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def contents():
    return {path.name: path.read_bytes() for path in Path("B").iterdir()}


def test_the_folder_is_filled(made):
    folder, done = made
    names = {path.name for path in (folder / "B").iterdir()}
    assert names == {
        "answer_key.csv",
        "bench_detect.json",
        "features.identity.raw.h5",
        "features.identity.raw.h5.manifest.json",
        *(f"{table}.identity.raw.csv" for table in ("paired", "detection", "summary")),
        "detection.identity.raw.md",
        *(f"detection_{level}.identity.raw.svg" for level in ("low", "medium", "high")),
    }
    assert done.stdout == (folder / "B/detection.identity.raw.md").read_text()
    assert "8 cases and 24 copies through identity, input raw" in done.stderr


def test_the_key_and_the_features_are_of_the_same_cases(made):
    folder, _ = made
    key = read_table(folder / "B/answer_key.csv", ANSWER_KEY)
    assert [row["case"] for row in key if not row["dirty"]] == [f"case_{n:02d}" for n in range(8)]
    with FeatureFile(folder / "B/features.identity.raw.h5") as file:
        assert set(file.case_ids) == {row["case"] for row in key}
    for row in key:
        if row["dirty"]:
            assert row["kind"] in CHOSEN
            assert row["case"].endswith(f"~{row['kind']}~{row['level']}")
            of_label = KINDS[row["kind"]].of == "label"
            assert (row["psnr"] is None) == of_label
            assert (row["dice"] < 1.0) == of_label
        else:
            assert (row["kind"], row["level"], row["dice"], row["psnr"]) == (None, None, 1.0, None)


def test_the_tables_have_every_score(made):
    folder, _ = made
    expected = {
        "calibrated",
        "deviation",
        "plain-deviation",
        "deviation of model",
        "auv paper",
        "auv official",
        "volume",
        "random",
    }
    for name, schema in (("paired", DETECTION_PAIRED), ("detection", DETECTION), ("summary", DETECTION_SUMMARY)):
        rows = read_table(folder / f"B/{name}.identity.raw.csv", schema)
        assert {row["method"] for row in rows} >= expected
    rows = read_table(folder / "B/detection.identity.raw.csv", DETECTION)
    assert {row["share"] for row in rows} == {0.25}
    assert {row["kind"] for row in rows} == {*CHOSEN, "mixed"}


def test_the_same_again_extracts_nothing_and_gives_the_same_bytes(folder, monkeypatch):
    before = contents()

    def never(*_, **__):
        pytest.fail("extracted again")

    monkeypatch.setattr(detect, "run_extraction", never)
    done = run("Dataset900_Balls", "-o", "B", "--kinds", ",".join(CHOSEN), *SMALL)
    assert done.exit_code == 0, done.exception
    assert contents() == before


def test_another_input_shares_the_folder_and_the_key(folder):
    before = contents()
    done = run("Dataset900_Balls", "-o", "B", "--kinds", ",".join(CHOSEN), "--input", "mask", *SMALL)
    assert done.exit_code == 0, done.exception
    after = contents()
    assert {name: after[name] for name in before} == before
    assert {name.replace("mask", "raw") for name in after} == set(before)


def test_without_prompts_only_faults_of_images_are_measured(folder):
    done = run("Dataset900_Balls", "-o", "B", "--kinds", ",".join(CHOSEN), "--prompt", "none", *SMALL)
    assert done.exit_code == 0, done.exception
    rows = read_table(Path("B/detection.identity.raw.none.csv"), DETECTION)
    assert {row["kind"] for row in rows} == {"blur", "gaussian-noise", "mixed"}
    assert not {row["method"] for row in rows} & {"deviation", "calibrated", "agreement"}


def test_every_form_of_the_scale_is_searched_when_asked(folder):
    done = run("Dataset900_Balls", "-o", "B", "--kinds", ",".join(CHOSEN), "--search", *SMALL)
    assert done.exit_code == 0, done.exception
    forms = {row["method"] for row in read_table(Path("B/search.identity.raw.csv"), DETECTION_SUMMARY)}
    assert len(forms) == 128 + 16
    assert "linear centred channels, two-sided" in forms
    assert "squared uncentred logits volume d_hw" in forms


def test_a_data_set_is_no_folder_to_fill(folder):
    done = run("Dataset900_Balls", "-o", "Dataset900_Balls", *SMALL)
    assert isinstance(done.exception, AuvtoolError), done.exception
    assert done.exception.exit_code == ExitCode.USAGE
    assert "got one that bench detect did not make" in str(done.exception)


@pytest.mark.parametrize("other", [["--copies", "1"], ["--seed", "1"]])
def test_a_folder_of_other_copies_is_left_as_it_is(folder, other):
    before = contents()
    done = run("Dataset900_Balls", "-o", "B", "--kinds", ",".join(CHOSEN), *SMALL, *other)
    assert isinstance(done.exception, AuvtoolError), done.exception
    assert done.exception.exit_code == ExitCode.USAGE
    assert "expected the folder of these cases and copies, got one with other" in str(done.exception)
    assert contents() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kinds", "nonsense"], "--kinds: expected some of"),
        (["--shares", "a"], "--shares: expected numbers"),
        (["--shares", "0.1,1.5"], "--shares: expected shares between 0 and 1"),
        (["--only", "nobody"], "--only: expected case ids"),
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(folder, words, message):
    done = run("Dataset900_Balls", "-o", "C", *words)
    assert isinstance(done.exception, AuvtoolError), done.exception
    assert done.exception.exit_code == ExitCode.USAGE
    assert str(done.exception).startswith(message)
    assert "\n" not in str(done.exception)
    assert not Path("C").exists()


def test_too_few_cases_are_refused(folder):
    done = run("Dataset900_Balls", "-o", "C", "--extractor", "identity", "--only", "case_00,case_01,case_02")
    assert isinstance(done.exception, AuvtoolError), done.exception
    assert done.exception.exit_code == ExitCode.INVALID_INPUT
    assert "expected at least 4 labelled cases, got 3" in str(done.exception)
