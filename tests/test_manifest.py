"""Provenance beside an output."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from auvtool.extractors.model_options import ModelOptions
from auvtool.manifest import input_digest, manifest_path, recorded, recorded_option, write_manifest


def test_a_manifest_names_versions_inputs_and_counts(tmp_path):
    source = tmp_path / "F.h5"
    source.write_bytes(b"features")
    output = tmp_path / "S.csv"
    write_manifest(
        output, command="score", options={"preset": "paper", "inputs": [source]}, inputs=[source], counts={"cases": 3}
    )
    record = json.loads((tmp_path / "S.csv.manifest.json").read_text())
    assert manifest_path(output).name == "S.csv.manifest.json"
    assert record["inputs"] == {str(source): "sha256:" + hashlib.sha256(b"features").hexdigest()}
    assert record["options"] == {"preset": "paper", "inputs": [str(source)]}
    assert record["counts"] == {"cases": 3}
    assert record["packages"]["numpy"]


def test_a_folder_is_known_by_its_names_and_sizes(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    first = input_digest(tmp_path)
    (tmp_path / "b").write_bytes(b"2")
    assert first.startswith("listing:")
    assert input_digest(tmp_path) != first


def test_images_that_were_named_one_by_one_are_one_entry(tmp_path):
    files = [tmp_path / name for name in ("b", "a")]
    found = []
    for content in (b"1", b"22"):
        for file in files:
            file.write_bytes(content)
        write_manifest(tmp_path / "P", command="predict", options={}, inputs=[], counts={}, images=files)
        found.append(recorded(tmp_path / "P")["inputs"])
    expected = [
        hashlib.sha256(json.dumps([[str(tmp_path / name), size] for name in "ab"]).encode()).hexdigest()
        for size in (1, 2)
    ]
    assert found == [{"IMAGES": f"listing:{digest}"} for digest in expected]


def test_what_was_recorded_can_be_asked_for(tmp_path):
    output = tmp_path / "S.csv"
    assert (recorded(output), recorded_option(output, "preset")) == ({}, None)
    write_manifest(output, command="score", options={"preset": "paper"}, inputs=[], counts={})
    assert recorded(output)["command"] == "score"
    assert (recorded_option(output, "preset"), recorded_option(output, "energy")) == ("paper", None)
    manifest_path(output).write_text('["no manifest"]')
    assert (recorded(output), recorded_option(output, "preset")) == ({}, None)


def test_options_within_options_are_objects(tmp_path):
    model = ModelOptions(
        weights=tmp_path / "w.pth", window=(-160.0, 240.0), class_prompts=(("kidney_R", "right kidney"),)
    )
    write_manifest(tmp_path / "F.h5", command="extract", options={"model": model}, inputs=[], counts={})
    assert recorded_option(tmp_path / "F.h5", "model") == {
        "weights": str(tmp_path / "w.pth"),
        "trust_checkpoint": False,
        "amp": "off",
        "window": [-160.0, 240.0],
        "propagate": False,
        "feature": "logits",
        "class_prompts": [["kidney_R", "right kidney"]],
    }


def test_a_folder_whose_name_is_not_utf8(tmp_path, monkeypatch):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes no such names")
    (folder / "in.csv").write_text("a")
    monkeypatch.setattr("sys.argv", ["auvtool", str(folder)])
    write_manifest(folder / "S.csv", command="score", options={"of": folder}, inputs=[folder / "in.csv"], counts={})
    record = recorded(folder / "S.csv")
    assert record["argv"][1].endswith("M\\udcfcller")
    assert next(iter(record["inputs"])).endswith("M\\udcfcller/in.csv")
