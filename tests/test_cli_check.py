"""`auvtool check` as a user runs it: exit codes, tables, streaming, choice of rules; and on real scans."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from check_phantoms import ODD, change, image_path, label_path
from command_line import auvtool, auvtool_on_terminal
from phantoms import truncate

from auvtool.checks import RULES
from auvtool.errors import ExitCode
from auvtool.schema import FINDINGS
from auvtool.tables import read_table


@pytest.fixture
def dirty(clean_dataset: Path, tmp_path: Path) -> Path:
    """One error in the files, one that reading tells, one warning that only the other cases tell."""
    folder = shutil.copytree(clean_dataset, tmp_path / "Dataset002_Dirty")
    label_path(folder, "case_00").unlink()
    truncate(image_path(folder, "case_02"))
    change(label_path(folder), lambda label: np.where((label == 3) & (np.arange(14) < 7)[:, None, None], 0, label))
    return folder


def codes(text: str) -> list[tuple[str, str]]:
    return [(row["case"], row["code"]) for row in csv.DictReader(io.StringIO(text))]


EXPECTED = [("case_00", "F005"), ("case_02", "F008"), (ODD, "L009")]


def test_a_clean_data_set_is_exit_0_and_a_header(clean_dataset: Path) -> None:
    done = auvtool("check", clean_dataset)
    assert done.returncode == ExitCode.DONE
    assert done.stdout == ",".join(FINDINGS.column_names()) + "\n"
    assert "check: 8 cases of Dataset001_Clean: 0 errors, 0 warnings" in done.stderr


def test_errors_are_exit_3_and_one_line(dirty: Path) -> None:
    done = auvtool("check", dirty, "-q")
    assert done.returncode == ExitCode.INVALID_INPUT
    assert codes(done.stdout) == EXPECTED
    assert done.stderr == (
        f"auvtool: {dirty}: expected no errors, got 2 in 2 cases (F005 1, F008 1); "
        "correct them, or leave these cases out\n"
    )


def test_warnings_alone_are_exit_0(dirty: Path) -> None:
    done = auvtool("check", dirty, "--ignore", "F")
    assert done.returncode == ExitCode.DONE
    assert codes(done.stdout) == EXPECTED[2:]
    assert "0 errors, 1 warning\n" in done.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--select", "missing-label,L"], [EXPECTED[0], EXPECTED[2]]),
        (["--select", "F", "--ignore", "F008"], EXPECTED[:1]),
    ],
)
def test_rules_are_selected(dirty: Path, options: list[str], expected: list[tuple[str, str]]) -> None:
    assert codes(auvtool("check", dirty, *options).stdout) == expected


def test_wrong_rules_are_wrong_usage(clean_dataset: Path) -> None:
    done = auvtool("check", clean_dataset, "--select", "Z9")
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert done.stderr.count("\n") == 1
    assert "got Z9; see auvtool info rules" in done.stderr


def test_no_data_set_is_invalid_input(tmp_path: Path) -> None:
    done = auvtool("check", tmp_path)
    assert (done.returncode, done.stdout) == (ExitCode.INVALID_INPUT, "")
    assert done.stderr.count("\n") == 1


def test_workers_print_the_same(dirty: Path) -> None:
    one, two = (auvtool("check", dirty, "-j", jobs) for jobs in (1, 2))
    assert one.stdout == two.stdout
    assert one.returncode == two.returncode == ExitCode.INVALID_INPUT


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_a_file_holds_what_stdout_shows(dirty: Path, tmp_path: Path, ending: str) -> None:
    output = tmp_path / f"FINDINGS.{ending}"
    done = auvtool("check", dirty, "-o", output)
    assert (done.returncode, done.stdout) == (ExitCode.INVALID_INPUT, "")
    rows = read_table(output, FINDINGS)
    assert [(row["case"], row["code"]) for row in rows] == EXPECTED
    assert json.loads((tmp_path / f"{output.name}.manifest.json").read_text())["counts"] == {
        "cases": 8,
        "errors": 2,
        "warnings": 1,
    }
    if ending in {"json", "jsonl", "tsv"}:
        assert auvtool("check", dirty, "--format", ending).stdout == output.read_text()
    described = auvtool("info", output).stdout
    assert "findings (auvtool.findings version 1)" in described
    assert "2 error, 1 warning" in described
    assert auvtool("check", dirty, "-o", output).returncode == ExitCode.USAGE
    assert auvtool("check", dirty, "-o", output, "--force").returncode == ExitCode.INVALID_INPUT


def lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    yield from process.stdout


def test_findings_stream(dirty: Path) -> None:
    """What is known by name is on stdout before a case is read: here the last image is a pipe that nobody fills."""
    last = image_path(dirty, "case_07")
    last.unlink()
    os.mkfifo(last)
    command = [sys.executable, "-m", "auvtool", "check", str(dirty)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        lines = lines_of(process)
        try:
            assert [next(lines).split(",")[1] for _ in range(3)] == ["code", "F005", "F008"]
            assert process.poll() is None
        finally:
            process.kill()


def test_on_a_terminal_the_lines_are_readable(dirty: Path) -> None:
    shown = auvtool_on_terminal("check", dirty, "-q").stdout.splitlines()
    assert [line.split()[:3] for line in shown] == [
        ["case_00", "F005", "error"],
        ["case_02", "F008", "error"],
        ["case_03", "L009", "warning"],
    ]
    assert shown[0].endswith(
        "imagesTr/case_00_0000.nii.gz: expected a label for this image, got none; add the label, or take the image out"
    )


def test_the_reader_of_a_pipe_may_go(dirty: Path) -> None:
    shell = f"{sys.executable} -m auvtool check {dirty} -q | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("case,code")
    assert done.returncode in {ExitCode.DONE, ExitCode.INVALID_INPUT}


def test_rules_are_listed() -> None:
    listed = auvtool("info", "rules").stdout
    for code, rule in RULES.items():
        assert f"  {code}  {rule.name} ({rule.severity}): {rule.means}" in listed


@pytest.mark.parametrize(
    ("name", "n_cases", "expected"),
    [
        # A stray piece of four voxels: a true find.
        ("hippocampus/Dataset004_Hippocampus", 80, [("hippocampus_156", "L007")]),
        ("chaos_t2/Dataset020_CHAOST2", 8, []),
    ],
)
def test_clean_scans_give_no_errors(real_data: Path, name: str, n_cases: int, expected: list[tuple[str, str]]) -> None:
    done = auvtool("check", real_data / name, "-j", 2)
    assert codes(done.stdout) == expected
    assert done.returncode == ExitCode.DONE
    assert f"{n_cases} cases" in done.stderr


PAIRS = [
    ("example_ct_sm", "example_seg", "CT"),
    ("example_ct_sm", "example_seg_fast", "CT"),
    ("example_ct", "example_seg_fast_force_split", "CT"),
    ("example_mr_sm", "example_seg_mr", "MRI"),
    ("ct_cropped", "aorta", "CT"),
]


@pytest.mark.parametrize(("image", "label", "channel"), PAIRS)
def test_clean_pairs_give_nothing(real_data: Path, tmp_path: Path, image: str, label: str, channel: str) -> None:
    source, folder = real_data / "totalseg_examples", tmp_path / "Dataset300_Pair"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    shutil.copy(source / f"{image}.nii.gz", image_path(folder, "scan"))
    shutil.copy(source / f"{label}.nii.gz", label_path(folder, "scan"))
    record = {
        "channel_names": {"0": channel},
        "labels": {"background": 0, **{f"structure_{value}": value for value in range(1, 118)}},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(record))
    assert codes(auvtool("check", folder).stdout) == []


def test_natural_faults_are_found(real_data: Path, tmp_path: Path) -> None:
    """An image without a label, two labels whose images are whole heads; one of the labels beside another image too."""
    folder = tmp_path / "Dataset005_Faulty"
    shutil.copytree(real_data / "hippocampus/Dataset004_Hippocampus", folder)
    faulty = real_data / "faulty"
    shutil.copy(faulty / "hippocampus_118_image.nii.gz", image_path(folder, "hippocampus_118"))
    for number in ("010", "281"):
        shutil.copy(faulty / f"hippocampus_{number}_label.nii.gz", label_path(folder, f"hippocampus_{number}"))
    shutil.copy(faulty / "hippocampus_010_label.nii.gz", label_path(folder, "hippocampus_003"))
    done = auvtool("check", folder)
    assert done.returncode == ExitCode.INVALID_INPUT
    errors = {
        (row["case"], row["code"]) for row in csv.DictReader(io.StringIO(done.stdout)) if row["severity"] == "error"
    }
    assert errors == {
        ("", "F002"),
        ("hippocampus_118", "F005"),
        ("hippocampus_010", "F006"),
        ("hippocampus_281", "F006"),
        ("hippocampus_003", "G001"),
    }
