import json

import pytest
from command_line import auvtool
from features import case_features, random_maps, write_features

from auvtool import __version__
from auvtool.errors import ExitCode, InputError
from auvtool.experiment_schema import ANSWER_KEY
from auvtool.extractors.facts import EXTRACTORS
from auvtool.inspection import describe_file, models, versions
from auvtool.manifest import write_manifest
from auvtool.schema import CORRELATIONS, EXPLANATION, FAILURES, FINDINGS, KEEP_LIST, METRICS, SCORES
from auvtool.tables import write_table


def test_versions_name_auvtool_and_what_is_not_installed():
    found = versions()
    assert found["auvtool"] == __version__
    assert found["numpy"].startswith("2.")
    assert all(found.values())


def test_models_say_where_they_come_from_and_under_which_licence():
    assert set(models()) == set(EXTRACTORS)
    for described in models().values():
        assert all(described.values())
        assert {"modality", "input", "channels", "prompts", "code", "weights", "from", "cost"} <= set(described)


def test_features(tmp_path):
    maps = random_maps(0)
    path = write_features(tmp_path / "F.h5", [case_features("a", maps), case_features("b", [maps[0], None])])
    found = describe_file(path)
    assert found["what"] == "features (auvtool.features version 3)"
    assert found["cases"] == "2 (0 with maps)"
    assert found["classes"] == "liver (1), tumour (2)"
    assert found["class maps"] == "1 absent, 3 ok"
    assert found["made by"].startswith("-")


AUV = {"quantifier": "auv", "method": "test", "axis": "log"}
ROWS = {
    SCORES: [
        {"case": "a", "class_id": 1, "class_name": "liver", "status": "ok", "value": 0.5, **AUV},
        {"case": "a", "class_id": None, "class_name": "all", "status": "ok", **AUV},
    ],
    CORRELATIONS: [{"metric": "dice", "level": "cases", "class_name": "all", "n": 3, **AUV}],
    EXPLANATION: [{"case": "a", "class_id": None, "class_name": "all", "status": "ok", "n_ranked": 3, **AUV}],
    METRICS: [{"case": "a", "class_id": 1, "class_name": "liver", "status": "missed", "dice": 0.0}],
    KEEP_LIST: [{"case": "a", "keep": True}, {"case": "b", "keep": False}],
    FAILURES: [{"case": "a", "step": "extract", "error": "no"}],
    ANSWER_KEY: [{"case": "a", "dirty": True, "kind": "blur", "dice": 1.0}, {"case": "b", "dirty": False, "dice": 1.0}],
}


@pytest.mark.parametrize("schema", ROWS, ids=lambda schema: schema.name)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_tables_are_told_by_their_columns(tmp_path, schema, kind):
    path = tmp_path / f"table.{kind}"
    write_table(ROWS[schema], schema, path)
    found = describe_file(path)
    assert f"({schema.name} version {schema.version})" in found["what"]
    assert found["rows"] == str(len(ROWS[schema]))
    if schema is KEEP_LIST:
        assert (found["cases"], found["kept"]) == ("2", "1")
    if schema is ANSWER_KEY:
        assert (found["cases"], found["dirty"]) == ("2", "1")
    if schema is METRICS:
        assert found["classes in cases"] == "1 missed"
        assert found["mean dice"] == "liver 0.0000, all 0.0000"
        assert found["mean iou"] == "not defined"


def test_quantifiers_are_described():
    done = auvtool("info", "quantifiers")
    assert done.returncode == 0
    assert "eaoa" in done.stdout
    assert "one number a case" in done.stdout


def test_means_of_metrics_are_over_the_cases_where_a_class_is_defined(tmp_path):
    rows = [
        {"case": case, "class_id": class_id, "class_name": name, "status": "ok", "dice": dice, "iou": dice}
        for case, class_id, name, dice in (
            ("a", 1, "liver", 0.8),
            ("b", 1, "liver", 0.6),
            ("a", 2, "tumour", 0.1),
            ("b", 2, "tumour", None),
            ("a", None, "all", 0.45),
        )
    ]
    write_table(rows, METRICS, tmp_path / "M.csv")
    assert describe_file(tmp_path / "M.csv")["mean dice"] == "liver 0.7000, tumour 0.1000, all 0.4000"


def test_manifest_tells_the_command_and_its_options(tmp_path):
    path = tmp_path / "K.csv"
    write_table(ROWS[KEEP_LIST], KEEP_LIST, path)
    beside = tmp_path / "K.csv.manifest.json"
    beside.write_text(
        json.dumps({"auvtool": "0.1.0", "command": "filter", "written": "then", "options": {"quantile": 0.9}})
    )
    assert describe_file(path)["with options"] == "quantile 0.9"
    beside.write_text("[]")
    assert "not a manifest" in describe_file(path)["made by"]


def test_options_read_as_plain_text_and_those_not_set_are_left_out(tmp_path):
    write_table(ROWS[KEEP_LIST], KEEP_LIST, tmp_path / "K.csv")
    options = {"extractor": "litemedsam", "model": {"amp": "off", "weights": None}, "classes": ["a", "b"], "plot": None}
    record = {"auvtool": "0.1.0", "command": "extract", "written": "then", "options": options}
    (tmp_path / "K.csv.manifest.json").write_text(json.dumps(record))
    assert describe_file(tmp_path / "K.csv")["with options"] == "extractor litemedsam, model (amp off), classes a b"


def test_findings_of_a_clean_data_set_are_a_table_without_rows(tmp_path):
    write_table([], FINDINGS, tmp_path / "C.csv")
    described = describe_file(tmp_path / "C.csv")
    assert described["what"] == f"findings (auvtool.findings version {FINDINGS.version})"
    assert described["rows"] == "0"


def test_other_files_are_refused(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="got another file"):
        describe_file(tmp_path / "x.csv")
    with pytest.raises(InputError, match="a file or folder that auvtool wrote, or versions, models, quantifiers"):
        describe_file(tmp_path / "none")
    with pytest.raises(InputError, match="got a folder without a manifest beside it"):
        describe_file(tmp_path)


def test_a_folder_that_a_command_wrote_is_described_by_its_manifest(tmp_path):
    (tmp_path / "RUN").mkdir()
    write_manifest(tmp_path / "RUN", command="train", options={"epochs": 2, "keep": None}, inputs=[], counts={})
    found = describe_file(tmp_path / "RUN")
    assert (found["what"], found["with options"]) == ("folder", "epochs 2")
    assert " train, " in found["made by"]


def test_command(tmp_path):
    done = auvtool("info")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("versions\n  auvtool ")
    assert "litemedsam\n" in done.stdout
    done = auvtool("info", "versions", tmp_path / "none.h5")
    assert done.returncode == ExitCode.INVALID_INPUT
    assert done.stderr.count("\n") == 1
