"""Files from a stranger: a value or an error of one line, whatever their bytes are.

`reader_targets` has the readers. Longer runs, by hand: tests/fuzz/fuzz_readers.py.
"""

import json
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from phantoms import edit_dataset_json, write_raw_dataset
from reader_targets import TARGETS, refused, strike

from auvtool.errors import InputError
from auvtool.json_text import parse_json
from auvtool.visible_text import visible

EXTREMES = [bytes(size) for size in (1, 2, 4, 8)] + [b"\xff" * size for size in (1, 2, 4, 8)]
EXTREMES += [struct.pack(kind, value) for kind in ("<i", ">i", "<q", ">q") for value in (-(2**31), -1, 2**31 - 1)]
EXTREMES += [struct.pack(kind, value) for kind in ("<f", ">f", "<d", ">d") for value in (np.nan, np.inf, -1e30, 1e30)]
EXTREMES += [b"-1", b"1e999", b"99999999999999999999", b"60000 60000 60000", b"null", b"[" * 2000, b'"\\ud800"', b"../"]


@st.composite
def damaged(draw, seeds):
    """One of the files with bytes changed, cut off, put in or repeated, mostly near its beginning."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        near = draw(st.booleans())
        place = draw(st.integers(0, min(len(content), 400) if near else len(content)))
        how = draw(st.sampled_from(("set", "set", "set", "put in", "cut", "take out", "repeat")))
        length = draw(st.integers(1, 16))
        value = draw(st.sampled_from(EXTREMES) | st.binary(min_size=1, max_size=8))
        if how == "set":
            content[place : place + len(value)] = value
        elif how == "put in":
            content[place:place] = value
        elif how == "cut":
            del content[place:]
        elif how == "take out":
            del content[place : place + length]
        else:
            content[place:place] = content[place : place + length] * 20
    return bytes(content)


@pytest.mark.parametrize("name", TARGETS)
def test_a_damaged_file_is_read_or_refused(name):
    target = TARGETS[name]

    # The same files each time, so that a change is judged by what it changes.
    @settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(damaged(target.seeds()))
    def check(content):
        with tempfile.TemporaryDirectory() as folder:
            strike(target, content, Path(folder))

    check()


@pytest.mark.parametrize("name", TARGETS)
def test_the_valid_files_are_read(name, tmp_path):
    read = [not isinstance(strike(TARGETS[name], seed, tmp_path), InputError) for seed in TARGETS[name].seeds()]
    assert any(read)
    assert all(read) or name in {"checkpoint", "state"}  # of which each takes the one kind of checkpoint


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize("name", ["dataset", "scores", "splits", "plans", "weights", "msd", "log", "manifest"])
@pytest.mark.parametrize(
    "content",
    [DEEP, b'{"case":' * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b'{"epoch": "\\ud800"}', b'"\xff"', b"", b"null"],
    ids=["nested", "nested objects", "digits", "half a character", "no text", "empty", "null"],
)
def test_json_that_no_reader_can_take(name, content, tmp_path):
    found = strike(TARGETS[name], content, tmp_path)
    assert isinstance(found, InputError) or name == "manifest"  # which is left out then


def test_parse_json_keeps_what_is_valid():
    assert parse_json('{"a": ["\\ud83d\\ude00", 1]}') == {"a": ["😀", 1]}
    assert parse_json(b"[1]") == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"configurations": {"3d_fullres": {"inherits_from": "3d_fullres"}}}, "inherits from itself"),
        ({"configurations": {"a": {"inherits_from": "b"}, "b": {"inherits_from": "a"}}}, "inherits from itself"),
        ({"configurations": {"a": {"inherits_from": "c"}}}, "inherits from c"),
        ({"configurations": [1]}, "no configurations"),
        ({"dataset_name": None}, "no dataset_name"),
        ({"data_identifier": "../../elsewhere"}, "data_identifier that can be the name of a folder"),
        ({"patch_size": "16"}, "no patch_size"),
        ({"batch_size": -1}, "no batch_size"),
    ],
)
def test_plans_that_no_network_can_be_made_of(change, message, tmp_path):
    plans = json.loads(TARGETS["plans"].seeds()[0])
    own = {key: value for key, value in change.items() if key in plans}
    plans["configurations"]["3d_fullres"] |= {key: value for key, value in change.items() if key not in plans}
    refused("plans", json.dumps(plans | own).encode(), tmp_path, message)


@pytest.mark.parametrize(
    "content", [b'[["train", "val"]]', b'[{"train": "ab", "val": ["c"]}]', b'[{"train": [1], "val": []}]']
)
def test_splits_that_are_none(content, tmp_path):
    refused("splits", content, tmp_path, "a list of folds")


@pytest.mark.parametrize("content", [b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"PAR1" + b"\xff" * 100 + b"PAR1"])
def test_a_broken_parquet_file_is_one_clear_line(content, tmp_path):
    refused("scores", content, tmp_path, "expected a table (auvtool.scores)")


def test_a_cell_that_is_a_list_is_no_name(tmp_path):
    refused("scores", b'[{"case": ["a"], "class_name": "b"}]', tmp_path, "one without")
    from auvtool.schema import FAILURES
    from auvtool.tables import read_table

    (tmp_path / "f.json").write_text('[{"case": ["a"], "step": "read", "error": "x"}]')
    with pytest.raises(InputError, match="expected str in column case"):
        read_table(tmp_path / "f.json", FAILURES)


@pytest.mark.parametrize("name", ["checkpoint", "state"])
def test_a_packed_checkpoint_is_not_unpacked(name, tmp_path):
    """Torch takes an archive with packed members: here 50 MB in 50 kB."""
    import torch

    nnunet = {"network_weights": {}, "init_args": {}, "trainer_name": "nnUNetTrainer", "a": torch.zeros(12_500_000)}
    torch.save(nnunet["a"] if name == "state" else nnunet, tmp_path / "stored.pth")
    with (
        zipfile.ZipFile(tmp_path / "stored.pth") as stored,
        zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for member in stored.namelist():
            packed.writestr(member, stored.read(member))
    content = (tmp_path / "packed.pth").read_bytes()
    assert len(content) < 200_000
    refused(name, content, tmp_path, "bytes that unpack to 500")


def test_an_error_shows_what_cannot_be_seen(tmp_path):
    name = "a\x1b[2J\x1b[31m\u202egnp\r\udc80"
    text = str(InputError(name, expected="a", found=name, cure="c"))
    assert text == visible(text)
    assert "\\u202e" in text
    assert "\x1b" not in text


def test_a_data_set_of_another_ending_or_count(tmp_path):
    folder = write_raw_dataset(tmp_path / "d", n_cases=1)
    for ending in ("", "/", "../x.nii.gz", 3, None, [".nii"]):
        edit_dataset_json(folder, file_ending=ending if ending is not None else {})
        refused("dataset", (folder / "dataset.json").read_bytes(), tmp_path, "file_ending")
