import csv
import io
import json
import os
import pty
import subprocess
import sys

import h5py
import pytest
from command_line import auvtool
from features import case_features, random_maps, write_features

from auvtool.errors import ExitCode
from auvtool.schema import SCORES
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
    command = f"set -o pipefail; {sys.executable} -m auvtool score {path} -q | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    header, code = done.stdout.splitlines()
    assert header.startswith("case,class_id")
    assert code in {"0", "141"}
    assert done.stderr == ""


def test_terminal_gets_ranked_cases(path):
    master, slave = pty.openpty()
    with subprocess.Popen([sys.executable, "-m", "auvtool", "score", path, "-q"], stdout=slave) as process:
        os.close(slave)
        text = b""
        while chunk := _read(master):
            text += chunk
    assert process.returncode == 0
    lines = text.decode().splitlines()
    assert "rank" in lines[0]
    assert "1.000" in lines[1]
    assert len(lines) == 5


def _read(descriptor):
    try:
        return os.read(descriptor, 4096)
    except OSError:  # the other end is closed
        return b""


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
