"""Sizes as people write them, and the peak of a process."""

import subprocess
import sys

import numpy as np
import pytest

from auvtool.errors import UsageError
from auvtool.memory import in_gigabytes, parse_memory, peak_resident_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GB", 8 * 10**9),
        ("7.5G", 7_500_000_000),
        ("512 MiB", 512 * 2**20),
        ("1ti", 2**40),
        ("100", 100),
        ("2kB", 2000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_memory(text, "--max-memory") == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "0.1", "8 bananas", "1e9", "8GBB"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="--max-memory: expected a size like 8GB or 512MiB, got "):
        parse_memory(text, "--max-memory")


def test_a_size_to_read() -> None:
    assert in_gigabytes(1_720_000_000) == "1.72 GB"


def test_the_peak_stays_when_the_memory_is_given_back() -> None:
    size = 300 * 2**20
    held = np.ones(size // 8)
    assert held[-1] == 1
    del held
    assert peak_resident_bytes() >= size


@pytest.mark.skipif(sys.platform != "linux", reason="getrusage tells it right elsewhere")
def test_a_new_process_begins_without_the_peak_of_its_parent() -> None:
    held = np.ones(300 * 2**20 // 8)
    words = [sys.executable, "-c", "from auvtool.memory import peak_resident_bytes as peak; print(peak())"]
    told = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert told < held.nbytes
