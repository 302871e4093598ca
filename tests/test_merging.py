"""Merging: the whole does not depend on how it was divided; what does not belong together is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import phantoms
import pytest
from command_line import auvtool
from feature_shards import HEADER, case_features, write_shard

from auvtool import feature_writer
from auvtool.case_extraction import ExtractionSettings
from auvtool.dataset import open_dataset
from auvtool.errors import ExitCode, InputError
from auvtool.extraction import run_extraction
from auvtool.extraction_plan import plan_extraction
from auvtool.feature_store import FeatureFile
from auvtool.feature_writer import assemble
from auvtool.merging import merge_features, merge_tables
from auvtool.schema import FAILURES, KEEP_LIST, METRICS, SCORES
from auvtool.tables import write_table


@pytest.mark.parametrize("store", ["spectrum", "both"])
def test_merged_shards_equal_one_run(tmp_path: Path, store: str) -> None:
    dataset = open_dataset(phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=5))
    settings = ExtractionSettings(extractor="identity", store=store)
    for output, shard in (("whole.h5", (1, 1)), ("1.h5", (1, 2)), ("2.h5", (2, 2))):
        run_extraction(plan_extraction(dataset, settings, tmp_path / output, shard=shard))
    n_cases, header = merge_features([tmp_path / "2.h5", tmp_path / "1.h5"], tmp_path / "F.h5", force=False)
    assert n_cases == 5
    assert header.options["store"] == store
    assert (tmp_path / "F.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


@pytest.mark.parametrize(("most_open", "n_opened"), [(2, 2), (1, 6)])
def test_files_stay_open_while_cases_are_taken_by_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_open: int, n_opened: int
) -> None:
    ids = ("a", "b", "c", "d", "e", "f")
    shards = {case_id: write_shard(tmp_path / f"{case_id}.h5", case_features(case_id)) for case_id in ids}
    for name, part in (("1.h5", ids[::2]), ("2.h5", ids[1::2])):
        assemble({case_id: shards[case_id] for case_id in part}, tmp_path / name, HEADER, force=False)
    opened: list[FeatureFile] = []

    class Counted(FeatureFile):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            opened.append(self)

    monkeypatch.setattr(feature_writer, "FeatureFile", Counted)
    monkeypatch.setattr(feature_writer, "_MOST_OPEN", most_open)
    sources = {case_id: tmp_path / f"{1 + index % 2}.h5" for index, case_id in enumerate(ids)}
    assemble(sources, tmp_path / "F.h5", HEADER, force=False)
    assert len(opened) == n_opened
    assert not any(file._file for file in opened)  # all closed
    with FeatureFile(tmp_path / "F.h5") as file:
        assert file.case_ids == ids


def test_other_options_are_named(tmp_path: Path) -> None:
    one = write_shard(tmp_path / "1.h5", case_features("a"))
    other = write_shard(tmp_path / "2.h5", case_features("b"), header=replace(HEADER, input="mask"))
    with pytest.raises(InputError, match=r"2\.h5: expected features made as those of .*1\.h5, got input mask for raw"):
        merge_features([one, other], tmp_path / "F.h5", force=False)
    assert not (tmp_path / "F.h5").exists()


def test_of_the_options_only_those_that_differ_are_named(tmp_path: Path) -> None:
    one = write_shard(tmp_path / "1.h5", case_features("a"))
    changed = replace(HEADER, options={**HEADER.options, "max_slices": 3})
    other = write_shard(tmp_path / "2.h5", case_features("b"), header=changed)
    with pytest.raises(InputError, match="got max_slices 3 for none; extract both"):
        merge_features([one, other], tmp_path / "F.h5", force=False)


@pytest.mark.parametrize(
    ("inputs", "words", "said"),
    [
        (["1.h5"], ["-o", "F.csv"], "expected a file of features to write (-o F.h5), got F.csv"),
        (["1.h5"], ["-o", "F.h5", "--format", "csv"], "got --format csv; features are no table"),
        (["1.csv"], ["-o", "F.h5"], "-o: expected a file for a table (-o M.csv), got F.h5"),
    ],
)
def test_an_ending_that_says_another_kind_of_file_is_refused(
    tmp_path: Path, inputs: list[str], words: list[str], said: str
) -> None:
    write_shard(tmp_path / "1.h5", case_features("a"))
    write_table([{"case": "a", "keep": True}], KEEP_LIST, tmp_path / "1.csv")
    done = auvtool("merge", *inputs, *words, cwd=tmp_path)
    assert (done.returncode, said in done.stderr) == (ExitCode.USAGE, True), done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"1.h5", "1.csv"}


@pytest.mark.parametrize(("files", "output"), [(["1.h5", "2.h5"], "2.h5"), (["1.csv", "2.csv"], "1.csv")])
def test_an_input_is_not_replaced(tmp_path: Path, files: list[str], output: str) -> None:
    for number, case_id in ((1, "a"), (2, "b")):
        write_shard(tmp_path / f"{number}.h5", case_features(case_id))
        write_table([{"case": case_id, "keep": True}], KEEP_LIST, tmp_path / f"{number}.csv")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = auvtool("merge", *files, "-o", output, "--force", cwd=tmp_path)
    assert done.returncode == ExitCode.USAGE
    assert f"-o: expected another file than those that are read, got {output}" in done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_one_of_something_is_said_in_the_singular(tmp_path: Path) -> None:
    write_table([{"case": "a", "keep": True}], KEEP_LIST, tmp_path / "1.csv")
    done = auvtool("merge", "1.csv", "-o", "K.csv", cwd=tmp_path)
    assert done.stderr == "merge: 1 row (auvtool.keep_list) of 1 file in K.csv\n"


def test_a_case_twice_must_be_equal(tmp_path: Path) -> None:
    one = write_shard(tmp_path / "1.h5", case_features("a"), maps=True)
    same = write_shard(tmp_path / "2.h5", case_features("a"), maps=True)
    assert merge_features([one, same], tmp_path / "F.h5", force=False)[0] == 1
    assert (tmp_path / "F.h5").read_bytes()
    other = write_shard(tmp_path / "3.h5", case_features("a", seed=1), maps=True)
    without_map = write_shard(tmp_path / "4.h5", case_features("a"))
    changed = replace(case_features("a"), volume_ml=np.array([0.04, 0.0, 0.008]))
    for different in (other, without_map, write_shard(tmp_path / "5.h5", changed, maps=True)):
        with pytest.raises(InputError, match="expected each case once"):
            merge_features([one, different], tmp_path / "G.h5", force=False)


def test_a_case_without_prompts_twice_is_equal(tmp_path: Path) -> None:
    features = replace(case_features("a"), log_residual_probability=float("nan"))
    paths = [write_shard(tmp_path / f"{number}.h5", features) for number in (1, 2)]
    assert merge_features(paths, tmp_path / "F.h5", force=False)[0] == 1


def test_a_file_without_cases_merges(tmp_path: Path) -> None:
    one = write_shard(tmp_path / "1.h5", case_features("a"))
    merge_features([one], tmp_path / "F.h5", force=False)
    with FeatureFile(tmp_path / "F.h5") as file:
        assert file.case_ids == ("a",)


def test_tables_of_one_kind_are_joined(tmp_path: Path) -> None:
    rows = [{"case": case, "step": "extract", "error": f"bad {case}"} for case in ("b", "a", "c")]
    write_table(rows[:2], FAILURES, tmp_path / "1.csv")
    write_table(rows[1:], FAILURES, tmp_path / "2.jsonl")
    merged, schema = merge_tables([tmp_path / "1.csv", tmp_path / "2.jsonl"])
    assert schema is FAILURES
    assert [row["case"] for row in merged] == ["a", "b", "c"]
    write_table([{**rows[0], "error": "other"}], FAILURES, tmp_path / "3.csv")
    with pytest.raises(InputError, match=r"3\.csv: b: expected each case once"):
        merge_tables([tmp_path / "1.csv", tmp_path / "3.csv"])


def test_metrics_keep_their_order_of_classes(tmp_path: Path) -> None:
    def row(case: str, class_id: int | None, name: str) -> dict[str, object]:
        return {"case": case, "class_id": class_id, "class_name": name, "status": "ok", "dice": 0.5}

    write_table([row("b", 2, "y"), row("b", 1, "x"), row("b", None, "all")], METRICS, tmp_path / "1.csv")
    write_table([row("a", 2, "y"), row("a", None, "all")], METRICS, tmp_path / "2.csv")
    merged, schema = merge_tables([tmp_path / "1.csv", tmp_path / "2.csv"])
    assert schema is METRICS
    assert [(r["case"], r["class_id"]) for r in merged] == [("a", 2), ("a", None), ("b", 2), ("b", 1), ("b", None)]


def test_scores_and_strangers_are_refused(tmp_path: Path) -> None:
    score = {"case": "a", "class_id": None, "class_name": "all", "status": "ok", "auv": 0.1}
    score |= {"quantifier": "auv", "method": "test", "axis": "log"}
    write_table([score], SCORES, tmp_path / "S.csv")
    with pytest.raises(InputError, match="merge the feature files, and score the result"):
        merge_tables([tmp_path / "S.csv"])
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="got neither"):
        merge_tables([tmp_path / "x.csv"])


def test_keep_lists_are_joined(tmp_path: Path) -> None:
    write_table([{"case": "a", "keep": True}], KEEP_LIST, tmp_path / "1.csv")
    write_table([{"case": "b", "keep": False, "auv": 1.0, "reason": "AUV"}], KEEP_LIST, tmp_path / "2.csv")
    merged, schema = merge_tables([tmp_path / "1.csv", tmp_path / "2.csv"])
    assert schema is KEEP_LIST
    assert [row["keep"] for row in merged] == [True, False]
