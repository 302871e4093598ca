"""The Makefile of the README: every rule is a chain of commands that exist, and a tiny run of it gives its tables."""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from training_phantoms import write_balls

from auvtool.schema import CORRELATIONS, KEEP_LIST, METRICS
from auvtool.tables import read_table

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
TARGETS = ("table1", "table2", "table3", "table4", "table5", "table6", "ratios")
TINY = "--epochs 1 --iterations 1 --features 8 --batch-size 2 --patch-size 32x32x32"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    found = re.search(r"<!-- examples -->\n```make\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    assert found
    (folder / "Makefile").write_text(found.group(1))
    return folder


def make(folder, *arguments, **variables):
    settings = [f"{name}={value}" for name, value in variables.items()]
    # The program of these tests stands first on the path.
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["make", "--no-print-directory", *arguments, *settings]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def recipes(folder, target, **variables):
    return [shlex.split(line) for line in make(folder, "-n", target, **variables).splitlines()]


@pytest.mark.parametrize("target", [*TARGETS, "all"])
def test_every_recipe_is_a_command_of_ours(folder, target):
    programs = {(words[0], words[1] if words[0] == "auvtool" else "") for words in recipes(folder, target)}
    commands = {command for program, command in programs if program == "auvtool"}
    assert programs - {("auvtool", command) for command in commands} == {("mkdir", "")}
    last = "correlate" if target == "table4" else "info"
    assert commands >= {"train", "predict", "eval", last} - ({"predict"} if target == "table4" else set())
    assert (target == "table2") != (commands >= {"extract", "score"})  # which compares networks on all cases


@pytest.mark.parametrize(
    ("target", "rows"),
    [
        (
            "table1",
            [
                "all",
                "variance@95",
                "variance@90",
                "auv-litemedsam@95",
                "auv-litemedsam@90",
                *("auv-nnunet@95", "auv-nnunet@90"),
            ],
        ),
        ("table2", [f"net-{net}{loss}" for net in ("nnunet", "swin-unetr", "umamba") for loss in ("", "+duo")]),
        ("table3", ["all", "fisher@90", "mahalanobis@90", "eaoa@90", "auv-litemedsam@90", "all+duo"]),
        ("table5", ["all", *(f"mechanism-{letter}@90" for letter in "abcd")]),
        ("table6", ["all", "all+rw", "all+en", "all+duo", "all+static"]),
        ("ratios", ["all", *(f"auv-litemedsam@{ratio}" for ratio in (99, 95, 90, 80, 70))]),
    ],
)
def test_the_rows_of_a_table(folder, target, rows):
    found = recipes(folder, target)
    assert found[-1][:2] == ["auvtool", "info"]
    assert [Path(word).name.removeprefix("M.").removesuffix(".csv") for word in found[-1][2:-2]] == rows
    trained = [words for words in found if words[1] == "train"]
    assert len(trained) == len(rows)
    assert all(("--keep" in words) == ("@" in words[words.index("-o") + 1]) for words in trained)


def test_an_extractor_takes_the_checkpoint_named_for_it(folder):
    found = recipes(folder, "table1", **{"EXTRACTORS": "litemedsam medsam2 nnunet", "WEIGHTS.medsam2": "M.pt"})
    given = {words[words.index("--extractor") + 1]: words for words in found if words[1] == "extract"}
    assert given.keys() == {"litemedsam", "medsam2", "nnunet"}
    assert "--weights" not in given["litemedsam"]
    assert given["medsam2"][given["medsam2"].index("--weights") + 1] == "M.pt"
    assert sum("M.auv-medsam2@90.csv" in word for word in found[-1]) == 1


def test_options_of_the_recipes_exist(folder):
    from test_docs import help_of

    for words in recipes(folder, "all"):
        if words[0] == "auvtool":
            for word in words[2:]:
                if word.startswith("-"):
                    assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", help_of(words[1])), " ".join(words)


def test_a_tiny_run(folder):
    """One arm, the keep lists of every other row, and table 4 from two folds, on phantoms and without a GPU."""
    dataset = write_balls(folder / "Dataset900_Balls", n_cases=10)
    for source, copy in (("imagesTr/case_00_0000", "imagesTs/test_0_0000"), ("labelsTr/case_00", "labelsTs/test_0")):
        (dataset / copy).parent.mkdir()
        shutil.copy(dataset / f"{source}.nii.gz", dataset / f"{copy}.nii.gz")
    tiny = {
        "DATASET": dataset.name,
        "CLASSES": "lesion",
        "EXTRACTORS": "identity",
        "EXTRACT": "",
        "TRAIN": TINY,
        "FOLDS": "0 1",
        "RIVALS": "fisher mahalanobis",
    }
    lists = [f"tables/K.{name}.csv" for name in ("variance@95", "eaoa@90", "fisher@80", "mahalanobis@70")]
    lists += ["tables/K.auv-nnunet@90.csv"]  # of the first arm
    lists += [f"tables/K.mechanism-{letter}@90.csv" for letter in "abcd"]
    make(folder, "tables/K.auv-nnunet@90.csv", **tiny)  # a training of its own: in a time limit of its own
    make(folder, *lists, "tables/M.auv-identity@80.csv", "table4", "tables/S.predicted-dice.csv", **tiny)
    for path in lists:
        kept = [row["keep"] for row in read_table(folder / path, KEEP_LIST)]
        assert len(kept) == 10
        assert 7 <= sum(map(bool, kept)) <= 9 or "@95" in path
    rows = read_table(folder / "tables" / "M.auv-identity@80.csv", METRICS)
    assert {row["case"] for row in rows} == {"test_0"}
    assert {row["class_name"] for row in rows} >= {"organ", "lesion"}
    table = read_table(folder / "tables" / "table4.csv", CORRELATIONS)
    assert {row["quantifier"] for row in table} == {"auv", "fisher", "mahalanobis"}
    assert {(row["level"], row["class_name"]) for row in table} == {
        ("classes", "all"),
        ("cases", "all"),
        ("cases", "organ"),
        ("cases", "lesion"),
    }
    with (folder / "tables" / "S.predicted-dice.csv").open(newline="") as file:
        measured = {row["case"] for row in csv.DictReader(file) if row["class_name"] == "all" and row["value"]}
    validated = {row["case"] for row in read_table(folder / "tables" / "M.cross-validated.csv", METRICS)}
    assert measured == validated
    assert len(validated) == 4
    again = make(folder, "tables/M.auv-identity@80.csv", **tiny)
    assert "up to date" in again
