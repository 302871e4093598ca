"""The README's recipes for many machines, run as they stand there: an array of SLURM tasks, and make."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import phantoms
import pytest
from command_line import auvtool

from auvtool.errors import ExitCode

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set and its features, made in one go."""
    folder = tmp_path_factory.mktemp("data")
    phantoms.write_raw_dataset(folder / "Dataset001_Box", n_cases=5)
    ended = auvtool("extract", folder / "Dataset001_Box", "-o", folder / "F.h5", "--extractor", "identity")
    assert ended.returncode == ExitCode.DONE, ended.stderr
    return folder


def recipe(name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    assert found
    return found.group(1)


def environment(**more: str) -> dict[str, str]:
    """The program of these tests stands first on the path; the control that needs no network is the extractor."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "AUVTOOL_EXTRACT_EXTRACTOR": "identity", **more}


def test_an_array_of_slurm_tasks_and_merge(data: Path, tmp_path: Path) -> None:
    script = tmp_path / "extract.sbatch"
    script.write_text(recipe("slurm"))
    for task in ("1", "2"):  # what SLURM sets
        slurm = {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "1"}
        words = ["bash", str(script)]
        env = environment(DATASET=str(data / "Dataset001_Box"), **slurm)
        ended = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=300)
        assert ended.returncode == 0, ended.stderr
        assert "fit in 15.00 GB" in ended.stderr
    ended = auvtool("merge", "F.1.h5", "F.2.h5", "-o", "F.h5", cwd=tmp_path)
    assert ended.returncode == ExitCode.DONE, ended.stderr
    assert (tmp_path / "F.h5").read_bytes() == (data / "F.h5").read_bytes()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_of_shards(data: Path, tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(recipe("shards"))
    words = ["make", "-j", "2", "F.h5", "N=2", f"DATASET={data / 'Dataset001_Box'}"]
    ended = subprocess.run(
        words, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "F.h5").read_bytes() == (data / "F.h5").read_bytes()
