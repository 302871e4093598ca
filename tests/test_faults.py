"""Bad input through the commands: one clear line, the right exit code, every other case finished.

The files are made bad here and the commands run as a user runs them, in processes of their own.
"""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import phantoms
import pytest
from command_line import auvtool, without_root_rights

from auvtool.errors import ExitCode
from auvtool.feature_store import FeatureFile

N_CASES = 3
BAD = "case_01"
GOOD = ("case_00", "case_02")


def extract(
    dataset: Path, output: Path, *options: object, unprivileged: bool = False
) -> subprocess.CompletedProcess[str]:
    before = without_root_rights() if unprivileged else ()
    return auvtool("extract", dataset, "-o", output, "--extractor", "identity", *options, before=before)


def truncated_image(dataset: Path) -> None:
    phantoms.truncate(dataset / "imagesTr" / f"{BAD}_0000.nii.gz")


def label_of_another_shape(dataset: Path) -> None:
    phantoms.write_volume(dataset / "labelsTr" / f"{BAD}.nii.gz", phantoms.box_label((9, 10, 12)))


def label_of_another_spacing(dataset: Path) -> None:
    phantoms.write_volume(dataset / "labelsTr" / f"{BAD}.nii.gz", phantoms.box_label(), spacing_mm=(1.0, 1.0, 2.0))


def nan_voxels(dataset: Path) -> None:
    image = phantoms.box_image(phantoms.box_label())
    image[2, 3, 4] = np.nan
    phantoms.write_volume(dataset / "imagesTr" / f"{BAD}_0000.nii.gz", image)


def class_outside_dataset_json(dataset: Path) -> None:
    label = phantoms.box_label()
    label[0, 0, 0] = 7
    phantoms.write_volume(dataset / "labelsTr" / f"{BAD}.nii.gz", label)


def image_without_label(dataset: Path) -> None:
    (dataset / "labelsTr" / f"{BAD}.nii.gz").unlink()


def not_an_image(dataset: Path) -> None:
    (dataset / "imagesTr" / f"{BAD}_0000.nii.gz").write_text("<html>404</html>")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (truncated_image, f"{BAD}_0000.nii.gz"),
        (label_of_another_shape, "expected the image's shape 12x10x8, got 12x10x9"),
        (label_of_another_spacing, "expected the image's spacing"),
        (nan_voxels, "expected finite numbers in every voxel, got 1 NaN or infinite"),
        (class_outside_dataset_json, "got 7"),
        (image_without_label, "expected a label"),
        (not_an_image, f"{BAD}_0000.nii.gz"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_one_bad_case_is_a_row_and_the_others_are_finished(spoil, expected, tmp_path):
    dataset = phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=N_CASES)
    spoil(dataset)
    done = extract(dataset, tmp_path / "F.h5")
    assert done.returncode == ExitCode.SOME_CASES_FAILED, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    rows = (tmp_path / "F.h5.failures.csv").read_text().splitlines()
    assert len(rows) == 2, rows
    assert rows[1].startswith(f"{BAD},")
    assert expected in rows[1].replace('""', '"')
    with FeatureFile(tmp_path / "F.h5") as features:
        assert features.case_ids == GOOD


def test_an_empty_label_is_no_error_but_absent(tmp_path):
    dataset = phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=N_CASES)
    empty = np.zeros(phantoms.SHAPE, dtype=np.uint8)
    phantoms.write_volume(dataset / "labelsTr" / f"{BAD}.nii.gz", empty)
    done = extract(dataset, tmp_path / "F.h5")
    assert done.returncode == ExitCode.DONE, done.stderr
    scored = auvtool("score", tmp_path / "F.h5", "--preset", "paper")
    assert scored.returncode == ExitCode.DONE, scored.stderr
    rows = [row for row in csv.DictReader(io.StringIO(scored.stdout)) if row["case"] == BAD]
    assert {row["status"] for row in rows} == {"absent"}
    assert {row["value"] for row in rows} == {""}  # no scale: absence never becomes a number
    kept = auvtool("filter", "--quantile", "0.9", "--ids", _write(tmp_path / "S.csv", scored.stdout))
    assert BAD in kept.stdout.split()
    by_default = auvtool("score", tmp_path / "F.h5")
    rows = {row["case"]: row for row in csv.DictReader(io.StringIO(by_default.stdout)) if not row["class_id"]}
    assert rows[BAD]["status"] == "absent"
    assert float(rows[BAD]["auv"]) > 0.5  # that a class is absent is evidence


def test_fail_fast_stops_at_the_first_bad_case(tmp_path):
    dataset = phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=N_CASES)
    truncated_image(dataset)
    done = extract(dataset, tmp_path / "F.h5", "--fail-fast")
    assert done.returncode in {ExitCode.INVALID_INPUT, ExitCode.SOME_CASES_FAILED}
    assert not (tmp_path / "F.h5").exists()
    assert f"{BAD}_0000.nii.gz" in done.stderr


@pytest.mark.parametrize("make", ["missing", "a file", "empty", "not readable"])
def test_an_unreadable_folder_is_one_line(make, tmp_path):
    dataset = tmp_path / "Dataset001_Box"
    if make == "a file":
        dataset.write_text("x")
    elif make == "empty":
        dataset.mkdir()
    elif make == "not readable":
        phantoms.write_raw_dataset(dataset)
        dataset.chmod(0)
    done = extract(dataset, tmp_path / "F.h5", unprivileged=True)
    if make == "not readable":
        dataset.chmod(0o700)
        assert "Permission denied" in done.stderr
    assert done.returncode == ExitCode.INVALID_INPUT
    _is_one_line(done, str(dataset))
    assert sorted(path.name for path in tmp_path.iterdir()) in (["Dataset001_Box"], [])


def test_a_broken_dataset_json_is_one_line(tmp_path):
    dataset = phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=1)
    (dataset / "dataset.json").write_text('{"labels": ')
    done = extract(dataset, tmp_path / "F.h5")
    assert done.returncode == ExitCode.INVALID_INPUT
    _is_one_line(done, "dataset.json")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_one_line(features, tmp_path):
    done = auvtool("score", features, "-o", "/dev/full", "--force", "-q")
    assert done.returncode == ExitCode.UNEXPECTED
    _is_one_line(done, "No space left on device")
    words = f"{sys.executable} -m auvtool score -q {features} > /dev/full"
    shell = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=False)
    assert shell.returncode == ExitCode.UNEXPECTED
    _is_one_line(shell, "No space left on device")


@pytest.mark.parametrize("command", ["demo", "bench detect"])
def test_a_folder_that_cannot_be_made_is_one_line(command, tmp_path):
    dataset = phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=4)
    (tmp_path / "read only").mkdir(mode=0o555)
    words = [*command.split(), *([dataset, "--extractor", "identity"] if "bench" in command else [])]
    done = auvtool(*words, "-o", tmp_path / "read only/B", "-q", before=without_root_rights())
    assert done.returncode == ExitCode.UNEXPECTED
    _is_one_line(done, "Permission denied'; check the folder and its rights")


def test_a_folder_that_nothing_may_be_written_to_is_refused_before_the_work(tmp_path):
    dataset = phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=2)
    (tmp_path / "read only").mkdir(mode=0o555)
    words = ["eval", dataset / "labelsTr", dataset, "-o", tmp_path / "read only/M.csv"]
    done = auvtool(*words, before=without_root_rights())
    assert done.returncode == ExitCode.UNEXPECTED
    assert done.stderr.splitlines()[-1] == (
        f"auvtool: {words[-1]}: expected to be able to write here, got 'Permission denied'; check the folder and its "
        "rights"
    )
    assert "2/2" not in done.stderr


def test_a_corrupt_features_file_is_one_line(features, tmp_path):
    broken = tmp_path / "broken.h5"
    broken.write_bytes(features.read_bytes()[:1000])
    for path, found in ((broken, "expected a feature file (HDF5)"), (tmp_path / "none.h5", "no such file")):
        done = auvtool("score", path)
        assert done.returncode == ExitCode.INVALID_INPUT
        _is_one_line(done, found)


@pytest.mark.parametrize(("attribute", "value"), [("schema_version", 999), ("schema", "anndata"), ("header", "{")])
def test_a_features_file_of_another_schema_is_one_line(features, tmp_path, attribute, value):
    other = tmp_path / "other.h5"
    other.write_bytes(features.read_bytes())
    with h5py.File(other, "r+") as file:
        file.attrs[attribute] = value
    done = auvtool("score", other)
    assert done.returncode == ExitCode.INVALID_INPUT
    _is_one_line(done, str(other))


def test_an_output_that_exists_is_refused_before_any_work(features, tmp_path):
    output = tmp_path / "S.csv"
    output.write_text("mine")
    done = auvtool("score", features, "-o", output)
    assert done.returncode == ExitCode.USAGE
    _is_one_line(done, "--force")
    assert output.read_text() == "mine"


def test_hdf5_to_a_pipe_is_refused_with_the_reason(tmp_path):
    dataset = phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=1)
    done = extract(dataset, Path("-"))
    assert done.returncode == ExitCode.USAGE
    _is_one_line(done, "HDF5")


def test_lines_of_the_readme_work_in_bash_with_pipefail(features):
    lines = {
        "score {f} -q | head -1": 1,
        "score {f} -q | filter - --quantile 0.5 --ids": None,
        "score {f} -q --format jsonl | filter - --quantile 0.9 | head -2": 2,
    }
    for line, n_lines in lines.items():
        words = line.format(f=features)
        for command in ("score", "filter"):
            words = words.replace(f"{command} ", f"{sys.executable} -m auvtool {command} ")
        done = subprocess.run(["bash", "-c", f"set -o pipefail; {words}"], capture_output=True, text=True, check=False)
        assert done.returncode in {0, 141}, (line, done.stderr)
        assert n_lines is None or len(done.stdout.splitlines()) == n_lines, line
        assert done.stdout


def test_the_manifest_of_features_says_how_they_were_made(features):
    record = json.loads(features.with_name(features.name + ".manifest.json").read_text())
    assert record["command"] == "extract"
    assert record["counts"]["cases"] == N_CASES


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    dataset = phantoms.write_raw_dataset(folder / "Dataset001_Box", n_cases=N_CASES)
    done = extract(dataset, folder / "F.h5")
    assert done.returncode == ExitCode.DONE, done.stderr
    return folder / "F.h5"


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _is_one_line(done: subprocess.CompletedProcess[str], expected: str) -> None:
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("auvtool: ")
    assert expected in done.stderr
