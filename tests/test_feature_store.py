"""Feature files: what is written is read, equal features give equal bytes, strange files are refused in one line."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from feature_shards import HEADER, case_features, write_shard
from hypothesis import given
from hypothesis import strategies as st

from auvtool.case_features import CaseFeatures
from auvtool.errors import InputError, OutputError, UsageError
from auvtool.feature_store import FeatureFile, group_name
from auvtool.feature_writer import assemble, case_shard, shard_is_complete


def assert_same(found: CaseFeatures, expected: CaseFeatures) -> None:
    for name in (
        "case_id",
        "class_ids",
        "class_names",
        "status",
        "statistic_names",
        "shape",
        "spacing_mm",
        "slice_axis",
        "log_residual_probability",
        "foreground_ml",
    ):
        assert getattr(found, name) == getattr(expected, name), name
    counts = ("n_slices", "n_voxels", "n_feature_voxels")
    for name in (*counts, "volume_ml", "class_features", "voxel_statistics", "agreement"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
        assert getattr(found, name).dtype == getattr(expected, name).dtype, name
    for name, values in vars(expected.evidence).items():
        np.testing.assert_array_equal(getattr(found.evidence, name), values, err_msg=name)
        assert getattr(found.evidence, name).dtype == values.dtype, name
    assert found.spectra.keys() == expected.spectra.keys()
    for key, values in expected.spectra.items():
        assert len(found.spectra[key]) == len(values)
        for one, other in zip(found.spectra[key], values, strict=True):
            np.testing.assert_array_equal(one, other)
    for centering, matrix in expected.channel_spectra.items():
        np.testing.assert_array_equal(found.channel_spectra[centering], matrix)


def test_write_then_read_is_identity(tmp_path: Path) -> None:
    features = case_features("liver_0")
    with FeatureFile(write_shard(tmp_path / "a.h5", features, maps=True)) as file:
        assert file.header == HEADER
        assert file.case_ids == ("liver_0",)
        assert_same(file.case("liver_0"), features)
        assert file.map_ids("liver_0") == (1,)
        logits, slices = file.map("liver_0", 1)
        np.testing.assert_array_equal(logits, np.arange(24).reshape(2, 3, 4))
        np.testing.assert_array_equal(slices, [3, 5])


def test_maps_only(tmp_path: Path) -> None:
    features = replace(case_features("a"), spectra={}, channel_spectra={})
    with FeatureFile(write_shard(tmp_path / "a.h5", features, maps=True)) as file:
        assert_same(file.case("a"), features)


@pytest.mark.parametrize("case_id", ["a/b", ".", "..", ".hidden", "50%", "a%2Fb", "Leber Größe", "a.b.c", "x" * 200])
def test_case_ids_are_safe_names(tmp_path: Path, case_id: str) -> None:
    with FeatureFile(write_shard(tmp_path / "a.h5", case_features(case_id))) as file:
        assert file.case_ids == (case_id,)
        assert_same(file.case(case_id), case_features(case_id))


@given(st.sets(st.text(min_size=1, max_size=8), min_size=2))
def test_case_names_never_collide(ids: set[str]) -> None:
    names = {group_name(case_id) for case_id in ids}
    assert len(names) == len(ids)
    assert not any("/" in name or name.startswith(".") for name in names)


def test_equal_features_give_equal_bytes(tmp_path: Path) -> None:
    first = write_shard(tmp_path / "a.h5", case_features("a"), maps=True)
    other = write_shard(tmp_path / "b.h5", case_features("b", seed=1))
    time.sleep(1.1)  # HDF5's time stamps count seconds
    again = write_shard(tmp_path / "a2.h5", case_features("a"), maps=True)
    assert first.read_bytes() == again.read_bytes()
    assemble({"a": first, "b": other}, tmp_path / "F1.h5", HEADER, force=False)
    time.sleep(1.1)
    assemble({"b": other, "a": again}, tmp_path / "F2.h5", HEADER, force=False)
    assert (tmp_path / "F1.h5").read_bytes() == (tmp_path / "F2.h5").read_bytes()
    with FeatureFile(tmp_path / "F1.h5") as file:
        assert file.case_ids == ("a", "b")
        assert_same(file.case("a"), case_features("a"))
        assert_same(file.case("b"), case_features("b", seed=1))
        assert file.map("a", 1)[0].shape == (2, 3, 4)


def test_a_block_that_raises_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="decoder"), case_shard(tmp_path / "a.h5", HEADER, "a", inputs=""):
        raise RuntimeError("decoder failed")
    assert list(tmp_path.iterdir()) == []


def test_shard_counts_only_if_it_is_this_runs(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a.h5", case_features("a"))
    assert shard_is_complete(path, HEADER, "a", inputs="a.nii.gz 10 20")
    assert not shard_is_complete(path, replace(HEADER, input="mask"), "a", inputs="a.nii.gz 10 20")
    assert not shard_is_complete(path, HEADER, "a", inputs="a.nii.gz 11 20")
    assert not shard_is_complete(path, HEADER, "b", inputs="a.nii.gz 10 20")
    assert not shard_is_complete(tmp_path / "none.h5", HEADER, "a", inputs="a.nii.gz 10 20")
    path.write_bytes(path.read_bytes()[:-200])
    assert not shard_is_complete(path, HEADER, "a", inputs="a.nii.gz 10 20")


def test_a_case_without_its_end_is_refused(tmp_path: Path) -> None:
    with case_shard(tmp_path / "a.h5", HEADER, "a", inputs=""):
        pass
    with FeatureFile(tmp_path / "a.h5") as file, pytest.raises(InputError, match="not complete"):
        file.case("a")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def _set(name: str, value: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file.attrs[name] = value

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, r"expected a feature file \(HDF5\)"),
        (lambda path: path.write_text("not HDF5"), r"expected a feature file \(HDF5\)"),
        (lambda path: path.unlink(), "no such file"),
        (_set("schema", "anndata"), "schema 'anndata'"),
        (_set("schema_version", 99), "version 99"),
        (_set("header", "{"), "expected a header"),
        (_set("header", "{}"), "expected a header"),
        (_set("header", 3), "text in attribute header"),
    ],
)
def test_strange_files_are_refused(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    path = write_shard(tmp_path / "a.h5", case_features("a"))
    damage(path)
    with pytest.raises(InputError, match=message) as caught:
        FeatureFile(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_without_schema_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(InputError, match="without a schema"):
        FeatureFile(tmp_path / "a.h5")


def _replace(name: str, value: object) -> Callable[[h5py.Group], None]:
    def change(group: h5py.Group) -> None:
        del group[name]
        if value is not None:
            group[name] = value

    return change


def _rename_columns(group: h5py.Group) -> None:
    group["evidence/label_shape"].attrs["columns"] = '["area"]'


def _external_storage(group: h5py.Group) -> None:
    del group["n_slices"]
    group.create_dataset("n_slices", (3,), "i8", external=[("/etc/hostname", 0, 24)])


def _virtual(group: h5py.Group) -> None:
    del group["n_slices"]
    layout = h5py.VirtualLayout(shape=(3,), dtype="i8")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "x", shape=(3,))
    group.create_virtual_dataset("n_slices", layout)


@pytest.mark.parametrize(
    "damage",
    [
        _replace("n_slices", h5py.ExternalLink("/etc/passwd", "/")),
        _replace("n_slices", h5py.SoftLink("/cases")),
        _replace("spectra", h5py.ExternalLink("/etc/passwd", "/")),
        _replace("n_slices", np.array(["x", "y", "z"], dtype="S1")),
        _replace("n_slices", np.zeros(2, dtype=np.int64)),
        _replace("n_slices", np.zeros((3, 2), dtype=np.int64)),
        _replace("n_slices", None),
        _replace("status", np.array([b"ok", b"fine", b"ok"])),
        _replace("status", np.array([1.0, 2.0, 3.0])),
        _replace("spectra/volume_rank_d_hw", np.array([4, 0, 1])),
        _replace("spectra/class-box_rank_d_hw", np.array([7, -3, 2])),
        _replace("class_features", np.zeros((3, 5), dtype=np.complex64)),
        _replace("class_features", np.zeros((3, 4), dtype=np.float32)),
        _replace("agreement", np.zeros((3, 0))),
        _replace("n_slices", np.array([4, -1, 2])),
        _replace("volume_ml", np.array([0.04, np.inf, 0.0])),
        _replace("evidence", None),
        _replace("evidence/image_features", np.zeros((2, 3), dtype=np.float32)),
        _replace("evidence/label_boundary", np.zeros((2, 3))),
        _rename_columns,
        _external_storage,
        _virtual,
    ],
)
def test_strange_cases_are_refused(tmp_path: Path, damage: Callable[[h5py.Group], None]) -> None:
    path = write_shard(tmp_path / "a.h5", case_features("a"))
    with h5py.File(path, "r+") as file:
        damage(file["cases/a"])
    with (
        FeatureFile(path) as file,
        pytest.raises(InputError, match=r"a\.h5: a: expected features in the layout") as caught,
    ):
        file.case("a")
    assert "\n" not in str(caught.value)


def test_linked_cases_group_is_refused(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a.h5", case_features("a"))
    with h5py.File(path, "r+") as file:
        del file["cases"]
        file["cases"] = h5py.ExternalLink("b.h5", "/cases")
    with pytest.raises(InputError, match="link to elsewhere"):
        FeatureFile(path)


def test_an_unknown_case_is_named(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a.h5", case_features("a"))
    with FeatureFile(path) as file, pytest.raises(InputError, match="expected case b"):
        file.case("b")


def test_a_damaged_map_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a.h5", case_features("a"), maps=True)
    content = bytearray(path.read_bytes())
    start = content.index(np.arange(24, dtype=np.float32).tobytes())
    content[start + 5] ^= 0xFF
    path.write_bytes(content)
    with FeatureFile(path) as file, pytest.raises(InputError, match="damaged"):
        file.map("a", 1)


@pytest.mark.parametrize("path", ["-", "/dev/full", "/dev/null"])
def test_a_stream_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="cannot be piped"):
        assemble({}, Path(path), HEADER, force=True)


@pytest.mark.parametrize("size", [100, 2000, 9000])
def test_a_full_disk_is_one_clear_line(tmp_path: Path, size: int, capfd: pytest.CaptureFixture[str]) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))  # a file may not grow further, as on a full disk
    try:
        with pytest.raises(OutputError, match="expected to be able to write here") as caught:
            write_shard(tmp_path / "a.h5", case_features("a"), maps=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []
