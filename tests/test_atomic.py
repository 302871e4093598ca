"""Outputs appear whole or not at all."""

import errno
import os
import stat
from pathlib import Path

import pytest

from auvtool.atomic import atomic_path, is_piped, refuse_existing, write_text
from auvtool.errors import UsageError


def test_a_failed_block_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("old")

    def fail_half_way() -> None:
        with atomic_path(path, force=True) as temporary:
            temporary.write_text("half")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_file_stands_beside_and_keeps_the_ending(tmp_path):
    path = tmp_path / "label.nii.gz"
    with atomic_path(path, force=False) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith("label.nii.gz")
        assert temporary.name.startswith(".")
        temporary.write_bytes(b"x")
        assert not path.exists()
    assert path.read_bytes() == b"x"


def test_a_file_system_that_flushes_no_folder_will_do(tmp_path, monkeypatch):
    flush = os.fsync

    def flush_files_only(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", flush_files_only)
    write_text(tmp_path / "a.csv", "x", force=False)
    assert (tmp_path / "a.csv").read_text() == "x"


def test_writing_is_refused_before_work(tmp_path):
    with pytest.raises(UsageError, match="got a folder"):
        refuse_existing(tmp_path, force=True)
    with pytest.raises(UsageError, match="mkdir -p"):
        refuse_existing(tmp_path / "none" / "a.csv", force=False)
    write_text(tmp_path / "a.csv", "x", force=False)
    with pytest.raises(UsageError, match="--force"):
        refuse_existing(tmp_path / "a.csv", force=False)


def test_nothing_can_stand_beside_standard_output_a_device_or_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    write_text(tmp_path / "a.csv", "x", force=False)
    piped = {path: is_piped(path) for path in (Path("-"), Path("/dev/null"), *tmp_path.iterdir(), tmp_path / "none")}
    assert {path for path, found in piped.items() if found} == {Path("-"), Path("/dev/null"), tmp_path / "pipe"}
