"""A disk that takes no more while nnU-Net prepares a training: said as such, and no case is left out for it."""

import resource
import subprocess
import sys

import pytest
from command_line import auvtool
from training_phantoms import write_balls

from auvtool.atomic import require_writable
from auvtool.errors import ExitCode, OutputError

TINY = ("--epochs", "1", "--iterations", "1", "--val-iterations", "1", "--batch-size", "2", "--features", "4")
FILE_BYTES = 50_000  # more than nnU-Net's plans, less than a preprocessed case


def limited() -> None:
    """The errors of a full disk, at a size that is known."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))


@pytest.mark.parametrize("jobs", [1, 2])
def test_no_case_is_left_out_because_the_disk_is_full(tmp_path, jobs):
    dataset = write_balls(tmp_path / "Dataset900_Balls", n_cases=5)
    command = ("train", dataset, "-o", tmp_path / "RUN", *TINY, "--patch-size", "32,32,32", "-j", jobs)
    full = auvtool(*command, preexec_fn=limited)
    assert full.returncode == ExitCode.UNEXPECTED
    last = full.stderr.splitlines()[-1]
    assert last.startswith("auvtool: ")
    assert last.endswith("free some space or name another folder")
    assert "cannot preprocess" not in full.stderr
    if jobs == 1:  # the same command, with room
        again = auvtool(*command)
        assert again.returncode == ExitCode.DONE, again.stderr
        assert "training on 4 cases, validating on 1" in again.stderr


def test_a_folder_that_is_gone_is_no_fault_of_a_case(tmp_path):
    require_writable(tmp_path)
    assert not any(tmp_path.iterdir())
    with pytest.raises(OutputError, match="gone"):
        require_writable(tmp_path / "gone")


SAVES = """
import sys, torch
from pathlib import Path
from auvtool.errors import OutputError
from auvtool.training.export import save_checkpoint
try:
    save_checkpoint(Path(sys.argv[1]), {f"w{size}": torch.ones(size) for size in range(7000, 9000, 37)})
except OutputError as error:
    print(error)
"""


def test_a_checkpoint_that_the_disk_does_not_take_is_said(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SAVES, tmp_path / "c.pth"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limited,
    )
    assert done.stdout.strip().endswith("free some space or name another folder"), done.stderr
    assert not any(tmp_path.iterdir())
