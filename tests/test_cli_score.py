import csv
import io
import json

import h5py
import pytest
from command_line import auvtool, auvtool_before_head, auvtool_on_terminal
from features import case_features, random_maps, write_features

from auvtool.errors import ExitCode
from auvtool.schema import EXPLANATION, SCORES
from auvtool.tables import read_table


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    cases = [case_features(f"case_{seed}", random_maps(seed)) for seed in range(4)]
    return write_features(tmp_path_factory.mktemp("score") / "F.h5", cases)


def test_stdout_is_the_table_and_the_note_says_what_was_seen(path):
    done = auvtool("score", path)
    assert done.returncode == 0
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(rows) == 12
    assert list(rows[0]) == SCORES.column_names()
    assert "4 cases, 2 classes (liver, tumour); 0 absent" in done.stderr
    assert "Spearman of AUV with volume" in done.stderr
    assert auvtool("score", path, "-q").stderr == ""


def test_file_and_manifest_record_preset_and_explicit_options(path, tmp_path):
    out = tmp_path / "S.csv"
    done = auvtool("score", path, "-o", out, "--preset", "official", "--energy", "squared", "--no-center")
    assert (done.returncode, done.stdout) == (0, "")
    assert len(read_table(out, SCORES)) == 12
    manifest = json.loads((tmp_path / "S.csv.manifest.json").read_text())
    assert manifest["options"]["preset"] == "official"
    assert manifest["options"]["energy"] == "squared"
    assert manifest["options"]["aggregate"] == "sum"
    first = out.read_bytes()
    assert auvtool("score", path, "-o", out).returncode == ExitCode.USAGE
    assert auvtool("score", path, "-o", out, "--force").returncode == 0
    assert out.read_bytes() != first


def test_closed_pipe(path):
    done = auvtool_before_head("score", path, "-q")
    assert done.stdout.startswith("case,class_id")
    assert done.returncode in {0, 141}
    assert done.stderr == ""


def test_terminal_gets_ranked_cases(path):
    done = auvtool_on_terminal("score", path, "-q")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert "rank" in lines[0]
    assert "1.000" in lines[1]
    assert "case_" in lines[1]  # a long reason takes no room from the others
    assert len(lines) == 5


def test_terminal_gets_an_explanation_that_fits(path):
    done = auvtool_on_terminal("score", path, "-q", "--explain", "case_1", columns=80)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) == 8
    assert all(len(line) <= 80 for line in lines)
    assert "…" not in done.stdout


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100), "HDF5"),
        (lambda path: path.write_text("case,scale\n"), "HDF5"),
        (lambda path: None, "no such file"),
        (lambda path: h5py.File(path, "w").close(), "schema"),
    ],
    ids=["corrupt", "text", "missing", "other HDF5"],
)
def test_unusable_file_is_one_line_and_exit_3(make, words, tmp_path):
    make(tmp_path / "F.h5")
    done = auvtool("score", tmp_path / "F.h5")
    assert done.returncode == ExitCode.INVALID_INPUT
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_wrong_schema_version_is_one_line_and_exit_3(path, tmp_path):
    other = tmp_path / "F.h5"
    other.write_bytes(path.read_bytes())
    with h5py.File(other, "r+") as file:
        file.attrs["schema_version"] = 99
    done = auvtool("score", other)
    assert done.returncode == ExitCode.INVALID_INPUT
    assert done.stderr.count("\n") == 1
    assert "got version 99" in done.stderr


def test_several_files_and_a_pipe_are_refused(path):
    done = auvtool("score", path, path)
    assert done.returncode == ExitCode.USAGE
    assert "auvtool merge" in done.stderr
    assert auvtool("score", "-").returncode == ExitCode.USAGE
    assert auvtool("score", path, "--classes", "spleen").returncode == ExitCode.USAGE


# --- quantifiers, axes, explanations, plots ---


def rows_of(done):
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


def test_another_quantifier_goes_to_the_same_table(path):
    rows = rows_of(auvtool("score", path, "--quantifier", "fisher", "--residualise", "volume", "--two-sided"))
    assert {row["quantifier"] for row in rows} == {"fisher"}
    assert {float(row["auv"]) for row in rows if not row["class_id"]} >= {0.0, 1.0}
    assert all(row["method"].endswith("residualised by volume; two-sided") for row in rows)


def test_predicted_dice_needs_metrics(path, tmp_path):
    metrics = tmp_path / "M.csv"
    metrics.write_text(
        "case,class_id,class_name,status,dice,iou,tp,fp,fn,n_reference,n_prediction\n"
        + "".join(f"case_{n},1,liver,ok,0.{n + 1},0.1,1,1,1,2,2\n" for n in range(4))
    )
    rows = rows_of(auvtool("score", path, "--quantifier", "predicted-dice", "--metrics", metrics))
    assert [float(row["auv"]) for row in rows if not row["class_id"]] == pytest.approx([1.0, 2 / 3, 1 / 3, 0.0])
    for arguments in (("--quantifier", "predicted-dice"), ("--metrics", metrics)):
        done = auvtool("score", path, *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (ExitCode.USAGE, 1)
        assert "--metrics: expected it with --quantifier predicted-dice" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--roi", "class-box"), "class-box"),
        (("--of", "probabilities"), "probabilities"),
        (("--unfolding", "mean"), "mean volume"),
        (("--aggregate", "sum"), "volume sum"),
        (("--preset", "official"), "official linear"),
        (("--classes", "2"), "classes tumour"),
        (("--mechanism", "b", "--classes", "liver"), "classes liver"),
        (("--quantifier", "random", "--seed", "5"), "seed 5"),
    ],
)
def test_an_option_moves_the_values_and_is_in_the_method(path, arguments, words):
    rows, plain = rows_of(auvtool("score", path, *arguments)), rows_of(auvtool("score", path))
    assert all(words in row["method"] for row in rows)
    whole, plain_whole = ([row["value"] for row in table if not row["class_id"]] for table in (rows, plain))
    assert whole != plain_whole


def test_mechanism_of_all_classes_is_the_plain_score_of_its_features(path):
    assert auvtool("score", path, "--mechanism", "a").stdout == auvtool("score", path, "--preset", "paper").stdout


def test_energies_of_the_mean_of_unfoldings_are_said_to_be_of_one(path):
    said = auvtool("score", path, "--unfolding", "mean", "--explain", "case_1").stderr
    assert "energies are shown of d_hw" in said


def test_reference_places_cases_on_the_old_axis(path, tmp_path):
    old = tmp_path / "S.csv"
    assert auvtool("score", path, "-o", old, "-q", "--quantifier", "auv").returncode == 0
    again = rows_of(auvtool("score", path, "--reference", old))
    assert [row["auv"] for row in again] == [str(row["auv"]) for row in read_table(old, SCORES)]
    other = auvtool("score", path, "--reference", old, "--center")
    assert other.returncode == ExitCode.INVALID_INPUT
    assert "--reference: expected scores of auv" in other.stderr


def test_explain_tells_rank_and_driving_class(path, tmp_path):
    done = auvtool("score", path, "--explain", "case_2", "--preset", "paper")
    rows = rows_of(done)
    assert list(rows[0]) == EXPLANATION.column_names()
    assert [row["class_name"] for row in rows] == ["liver", "tumour", "all"]
    assert "score: case_2: AUV" in done.stderr
    assert "of 4 (1 is the most uncertain); " in done.stderr
    pushes = {row["class_name"]: float(row["push"]) for row in rows[:2]}
    side = "uncertain" if sum(pushes.values()) > 0 else "certain"
    driver = (max if side == "uncertain" else min)(pushes, key=pushes.get)
    assert f"{driver} pushes it the most, towards {side}" in done.stderr
    out = tmp_path / "E.json"
    assert auvtool("score", path, "--explain", "case_2", "-o", out).returncode == 0
    assert json.loads(out.read_text())[0]["case"] == "case_2"
    assert auvtool("score", path, "--explain", "case_9").returncode == ExitCode.USAGE


def test_by_default_deviation_is_measured_and_says_what_stands_out(path):
    done = auvtool("score", path)
    rows = rows_of(done)
    assert {row["quantifier"] for row in rows} == {"deviation"}
    assert all((row["reason"] != "") == (row["class_id"] == "") for row in rows)
    assert "4 cases hardly say what is usual" in done.stderr
    said = auvtool("score", path, "--explain", "case_2").stderr
    (whole,) = [row for row in rows if row["case"] == "case_2" and not row["class_id"]]
    assert f"score: case_2: {whole['reason']}" in said


def test_features_without_classes_are_measured_by_auv(tmp_path):
    cases = [case_features(f"case_{seed}", random_maps(seed)) for seed in range(4)]
    done = auvtool("score", write_features(tmp_path / "F.h5", cases, prompt="none"))
    assert {row["quantifier"] for row in rows_of(done)} == {"auv"}


def test_plot_beside_other_scores(path, tmp_path):
    other, picture = tmp_path / "Sa.csv", tmp_path / "S.svg"
    assert auvtool("score", path, "-o", other, "--energy", "linear").returncode == 0
    arguments = ("score", path, "-o", tmp_path / "Sb.csv", "--plot", picture, "--beside", other, "--explain", "case_1")
    assert auvtool(*arguments).returncode == 0
    assert picture.read_text().startswith("<?xml")
    assert auvtool("score", path, "--quantifier", "random", "--plot", tmp_path / "R.png").returncode == 0
    assert (tmp_path / "R.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--quantifier", "random", "--energy", "linear"), "--energy: expected a quantifier that it changes"),
        (("--mechanism", "c"), "--mechanism: expected features of --input mask for c, got raw"),
        (("--mechanism", "b"), "--mechanism b: expected --classes"),
        (("--beside", "S.csv"), "--beside: expected --plot"),
        (("--plot", "S.gif"), "expected the ending .svg, .png or .pdf"),
        (
            ("--reference", "S.csv", "--quantifier", "mahalanobis"),
            "--reference: expected a quantifier that two data sets",
        ),
        (("--reference", "S.csv", "--residualise", "depth"), "--reference: expected no --residualise"),
        (("--residualise", "volume,depth"), "--residualise: expected more cases"),
        (("--classes", ","), "--classes: expected names with commas between them"),
        (("--seed", "1"), "--seed: expected --quantifier random"),
        (("--reference", "S.csv", "--explain", "case_1"), "--reference: expected no --explain"),
        (("--plot", "S.svg", "-o", "S.svg"), "--plot: expected another file than -o"),
        (("--plot", "S.svg", "--beside", "a/S.csv", "--beside", "b/S.csv"), "expected files of different names"),
    ],
)
def test_options_that_do_not_fit_are_one_line(path, arguments, words):
    done = auvtool("score", path, *arguments, "-q")
    assert done.returncode == ExitCode.USAGE
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
