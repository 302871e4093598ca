"""`auvtool extract` and `auvtool merge` as a user runs them."""

import json
from pathlib import Path

import phantoms
import pytest
import torch
from typer.testing import CliRunner

from auvtool import console
from auvtool.cli.app import app
from auvtool.errors import CasesFailed, InputError, UsageError
from auvtool.extractors.facts import EXTRACTORS
from auvtool.feature_store import FeatureFile


@pytest.fixture(autouse=True)
def normal_verbosity(monkeypatch):
    monkeypatch.setattr(console, "_verbosity", console.Verbosity())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=4)


def run(*words: object):
    return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=True)


def extract(*words: object):
    return run("extract", *words, "--extractor", "identity")


def test_extract_writes_a_features_file_and_its_manifest(folder: Path) -> None:
    done = extract(folder, "-o", "F.h5", "--cases", "case_00,case_02")
    assert done.exit_code == 0, done.exception
    assert done.stdout == ""
    assert "2 cases of Dataset001_Box (large, small) through identity, input mask, prompt mask-box" in done.stderr
    with FeatureFile(Path("F.h5")) as file:
        assert file.case_ids == ("case_00", "case_02")
    manifest = json.loads(Path("F.h5.manifest.json").read_text())
    assert manifest["command"] == "extract"
    assert manifest["counts"] == {"cases": 2, "failed": 0, "resumed": 0}
    assert manifest["options"]["extractor"] == "identity"


@pytest.mark.parametrize("name", EXTRACTORS)
def test_every_extractor_can_be_named(folder: Path, name: str) -> None:
    done = run("extract", folder, "-o", "F.h5", "--extractor", name, "--dry-run")
    if EXTRACTORS[name].needs_weights:
        assert isinstance(done.exception, UsageError)
        assert str(done.exception).startswith(("--weights: expected", "--prompts: expected"))
        return
    assert done.exit_code == 0, done.exception
    assert f"through {name}," in done.stderr


def test_without_prompts_the_input_is_raw_by_default(folder: Path) -> None:
    assert extract(folder, "-o", "F.h5", "--prompt", "none").exit_code == 0
    assert extract(folder, "-o", "G.h5", "--prompt", "none", "--input", "mask").exit_code == 0
    with FeatureFile(Path("F.h5")) as raw, FeatureFile(Path("G.h5")) as mask:
        assert (raw.header.input, mask.header.input) == ("raw", "mask")


def test_a_plain_folder_with_labels(folder: Path) -> None:
    done = extract(folder / "imagesTr", "--labels", folder / "labelsTr", "-o", "F.h5")
    assert done.exit_code == 0, done.exception
    with FeatureFile(Path("F.h5")) as file:
        assert file.header.channels == ((1, "class_1"), (2, "class_2"))
        assert len(file.case_ids) == 4


def test_dry_run_writes_nothing(folder: Path) -> None:
    before = sorted(Path().iterdir())
    done = extract(folder, "-o", "F.h5", "-n", "--store", "maps")
    assert done.exit_code == 0, done.exception
    assert "4 cases" in done.stderr
    assert "maps would take about 9.6 kB; nothing was done" in done.stderr
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize("output", ["-", "/dev/null"])
def test_a_stream_is_refused_with_the_reason(folder: Path, output: str) -> None:
    done = extract(folder, "-o", output)
    assert isinstance(done.exception, UsageError)
    assert "HDF5 cannot stream" in str(done.exception)


def test_failed_cases_are_listed_and_the_others_written(folder: Path) -> None:
    phantoms.truncate(folder / "imagesTr" / "case_01_0000.nii.gz")
    done = extract(folder, "-o", "F.h5")
    assert isinstance(done.exception, CasesFailed)
    assert "1 of 4 cases failed (F.h5.failures.csv); F.h5 holds the other 3" in str(done.exception)
    assert "case_01" in done.stderr
    assert done.stdout == ""
    done = extract(folder, "-o", "G.h5", "--fail-fast")
    assert isinstance(done.exception, InputError)
    assert not Path("G.h5").exists()


def test_unknown_values_are_wrong_usage(folder: Path) -> None:
    for words in (["--store", "all"], ["--input", "x"], ["--max-slices", "0"], ["--channel", "-1"]):
        assert extract(folder, "-o", "F.h5", *words).exit_code == 2
    for words in (["--shard", "3/2"], ["--cases", "nobody"], ["--channel", "5"], ["--window", "2,1"]):
        assert isinstance(extract(folder, "-o", "F.h5", *words).exception, UsageError)


def test_shards_are_merged(folder: Path) -> None:
    assert extract(folder, "-o", "F.h5").exit_code == 0
    for index in (1, 2, 3):
        assert extract(folder, "-o", f"F.{index}.h5", "--shard", f"{index}/3").exit_code == 0
    done = run("merge", "F.1.h5", "F.2.h5", "F.3.h5", "-o", "all.h5")
    assert done.exit_code == 0, done.exception
    assert done.stdout == ""
    assert Path("all.h5").read_bytes() == Path("F.h5").read_bytes()
    assert json.loads(Path("all.h5.manifest.json").read_text())["counts"] == {"cases": 4, "files": 3}
    assert isinstance(run("merge", "F.1.h5", "-o", "all.h5").exception, UsageError)
    assert run("merge", "F.1.h5", "F.2.h5", "-o", "all.h5", "-f").exit_code == 0
    assert isinstance(run("merge", "F.1.h5", "-o", "-").exception, UsageError)


def test_tables_are_merged_to_a_pipe(folder: Path) -> None:
    Path("1.csv").write_text("case,step,error\nb,extract,bad\n")
    Path("2.csv").write_text("case,step,error\na,extract,worse\n")
    done = run("merge", "1.csv", "2.csv", "-o", "-")
    assert done.exit_code == 0, done.exception
    assert done.stdout == "case,step,error\na,extract,worse\nb,extract,bad\n"


@pytest.mark.parametrize(
    "words", [["--amp", "bf16"], ["--propagate"], ["--window", "0,1"], ["--feature", "penultimate"]]
)
def test_an_option_of_another_model_is_refused(folder: Path, words: list[str]) -> None:
    done = run("extract", folder, "-o", "F.h5", "--extractor", "identity", *words)
    assert isinstance(done.exception, UsageError)
    assert str(done.exception).startswith(f"{words[0]}: expected nothing for identity")


def test_a_table_of_prompts_for_a_model_that_takes_none_is_refused(folder: Path) -> None:
    Path("p.csv").write_text("class_name,prompt\nclass,a thing\n")
    done = run("extract", folder, "-o", "F.h5", "--prompts", "p.csv")
    assert str(done.exception) == "--prompts: expected nothing for litemedsam, got a table; leave it out"


def test_trust_is_the_only_way_past_the_safe_reader(folder: Path) -> None:
    torch.save({"model": {"a": torch.ones(1)}, "made": Path("here")}, "w.pth")
    done = run("extract", folder, "-o", "F.h5", "--weights", "w.pth")
    assert isinstance(done.exception, InputError)
    assert "pathlib" in str(done.exception)
    trusted = run("extract", folder, "-o", "F.h5", "--weights", "w.pth", "--trust-checkpoint")
    assert "expected LiteMedSAM's weights" in str(trusted.exception)  # read, and found to be another network's
    assert not Path("F.h5.parts").exists()


def test_an_output_that_is_a_folder_is_refused(folder: Path) -> None:
    for output in (".", "..", folder):
        done = extract(folder, "-o", output)
        assert isinstance(done.exception, UsageError)
        assert "expected a file to write, got a folder" in str(done.exception)


def test_a_refused_option_is_named_as_it_is_typed(folder: Path) -> None:
    for words, given in ((("--window", "-160,240"), "got -160,240;"), (("--propagate",), "got it;")):
        assert given in str(extract(folder, "-o", "F.h5", *words).exception)


@pytest.mark.parametrize(
    ("configured", "typed"), [("jobs = 2", ("--cluster", "local:1")), ("cluster = 'local:1'", ("-j", "2"))]
)
def test_a_typed_place_of_work_wins_over_a_configured_one(
    folder: Path, configured: str, typed: tuple[str, ...]
) -> None:
    Path("auvtool.toml").write_text(f"[extract]\n{configured}\n")
    done = extract(folder, "-o", "F.h5", "--config", "auvtool.toml", *typed, "--dry-run")
    assert done.exit_code == 0, done.exception


@pytest.mark.parametrize(
    ("store", "said"), [("spectrum", "no maps would be stored"), ("maps", "maps would take about 9.6 kB")]
)
def test_a_dry_run_says_what_maps_would_take(folder: Path, store: str, said: str) -> None:
    done = extract(folder, "-o", "F.h5", "--store", store, "--dry-run")
    assert (done.exit_code, said in done.stderr, Path("F.h5").exists()) == (0, True, False), done.stderr
