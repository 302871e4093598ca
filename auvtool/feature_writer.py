"""Writing of feature files: a shard a case, and the file that they are joined to (layout: feature_store)."""

import io
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import h5py
import numpy as np
from jaxtyping import Int64

from auvtool.arrays import Volume
from auvtool.atomic import atomic_path, is_piped
from auvtool.case_evidence import COLUMNS
from auvtool.case_features import AGREEMENT_COLUMNS, CaseFeatures, FeatureHeader
from auvtool.errors import InputError, OutputError, UsageError
from auvtool.feature_store import FeatureFile, group_name
from auvtool.schema import FEATURES_NAME, FEATURES_VERSION

if TYPE_CHECKING:
    from typing_extensions import Buffer

_MOST_OPEN = 100  # files at once
_MAP_CHUNK_VALUES = 1 << 20  # 4 MiB of float32


class ShardWriter:
    """Writes one case: maps while they are decoded, the rest at the end."""

    def __init__(self, group: h5py.Group) -> None:
        self._group = group

    def add_map(self, class_id: int, logits: Volume, slices: Int64[np.ndarray, " d"]) -> None:
        """Store one class map and the volume's slice numbers of its rows."""
        per_slice = max(1, int(np.prod(logits.shape[1:])))
        chunks = (min(logits.shape[0], max(1, _MAP_CHUNK_VALUES // per_slice)), *logits.shape[1:])
        dataset = _write(self._group, f"maps/{class_id}", logits.astype(np.float32, copy=False), chunks=chunks)
        dataset.attrs["slices"] = np.asarray(slices, dtype=np.int64)

    def finish(self, features: CaseFeatures) -> None:
        """Write everything else and mark the case complete."""
        group = self._group
        _write(group, "status", np.array(features.status, dtype="S6"))
        _write(group, "n_slices", features.n_slices.astype(np.int64))
        _write(group, "n_voxels", features.n_voxels.astype(np.int64))
        _write(group, "n_feature_voxels", features.n_feature_voxels.astype(np.int64))
        _write(group, "volume_ml", features.volume_ml.astype(np.float64))
        for (roi, kind, unfolding, centering), values in features.spectra.items():
            _write(group, f"spectra/{roi}_{kind}_{unfolding}_{centering}", np.concatenate([*values, np.empty(0)]))
            if (kind, centering) == ("logits", "uncentered"):
                _write(group, f"spectra/{roi}_rank_{unfolding}", np.array([len(v) for v in values], dtype=np.int64))
        for centering, matrix in features.channel_spectra.items():
            _write(group, f"spectra/channels_{centering}", matrix.astype(np.float64))
        _write(group, "class_features", features.class_features.astype(np.float32))
        statistics = _write(group, "voxel_statistics", features.voxel_statistics.astype(np.float64))
        statistics.attrs["columns"] = _text(json.dumps(list(features.statistic_names)))
        agreement = _write(group, "agreement", features.agreement.astype(np.float64))
        agreement.attrs["columns"] = _text(json.dumps(list(AGREEMENT_COLUMNS)))
        for name, values in vars(features.evidence).items():
            dataset = _write(group, f"evidence/{name}", values)
            if name in COLUMNS:
                dataset.attrs["columns"] = _text(json.dumps(list(COLUMNS[name])))
        group.attrs["shape"] = np.array(features.shape, dtype=np.int64)
        group.attrs["spacing_mm"] = np.array(features.spacing_mm, dtype=np.float64)
        group.attrs["log_residual_probability"] = np.float64(features.log_residual_probability)
        group.attrs["foreground_ml"] = np.float64(features.foreground_ml)
        group.attrs["slice_axis"] = _text(features.slice_axis)
        group.attrs["complete"] = np.int64(1)


@contextmanager
def case_shard(path: Path, header: FeatureHeader, case_id: str, *, inputs: str) -> Iterator[ShardWriter]:
    """A writer of one case's shard, which appears under `path` when the block ends without an error.

    Args:
        path: replaced when it exists (an unfinished or outdated shard).
        header: of the run.
        case_id: the case.
        inputs: names the case's input files in the state they were read in (size and time); stays in the shard.

    Raises:
        OutputError: the disk is full or the folder is read-only, or was removed.
    """
    require_folder(path.parent)
    with _new_file(path, header, force=True) as file:
        file.attrs["inputs"] = _text(inputs)
        yield ShardWriter(file.create_group(f"cases/{group_name(case_id)}"))


def require_folder(folder: Path) -> None:
    """Raise OutputError if a folder that this run made was removed under it."""
    if not folder.is_dir():
        raise OutputError(
            f"{folder}: expected the folder of finished cases, got 'No such file or directory'; it was removed: "
            "run the command again"
        )


def require_shards(paths: Collection[Path]) -> None:
    """Raise OutputError if finished cases of this run were removed under it."""
    removed = [path for path in paths if not path.is_file()]
    if removed:
        raise OutputError(
            f"{removed[0]}: expected a finished case, got 'No such file or directory'; {len(removed)} of {len(paths)} "
            "were removed: run the command again"
        )


def shard_is_complete(path: Path, header: FeatureHeader, case_id: str, *, inputs: str) -> bool:
    """Whether `path` opens, is complete, and was made with this header from these input files."""
    if not path.is_file():
        return False
    try:
        with FeatureFile(path) as shard:
            same = shard.header.fingerprint == header.fingerprint and shard.text_attribute("inputs") == inputs
            if same:
                shard.case(case_id)
            return same
    except InputError:  # a damaged shard is one that has to be made again
        return False


def assemble(sources: Mapping[str, Path], output: Path, header: FeatureHeader, *, force: bool) -> None:
    """Copy the cases of shards or feature files into one file, sorted by case id.

    Args:
        sources: case id -> file that holds it.
        output: appears by rename when all is copied.
        header: of every source.
        force: replace an existing output.

    Raises:
        InputError: a source is damaged or lacks its case.
        UsageError, OutputError: see `atomic_path`.
    """
    with _new_file(output, header, force=force) as file:
        cases = file.create_group("cases")
        with _OpenFiles() as opened:
            for case_id in sorted(sources):
                opened.get(sources[case_id]).copy_case(case_id, cases)


class _OpenFiles:
    """Feature files that cases are taken from by turns; opening one lists all its cases, so the last ones stay open."""

    def __init__(self) -> None:
        self._files: dict[Path, FeatureFile] = {}  # the one used last stands last

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        while self._files:
            self._close_first()

    def get(self, path: Path) -> FeatureFile:
        if path in self._files:
            file = self._files.pop(path)
        else:
            if len(self._files) == _MOST_OPEN:
                self._close_first()
            file = FeatureFile(path)
        self._files[path] = file
        return file

    def _close_first(self) -> None:
        self._files.pop(next(iter(self._files))).close()


class _Disk(io.FileIO):
    """A file that HDF5 writes through and that keeps the first error of the disk.

    HDF5 itself answers a full disk with a page of its internals and handles that cannot be closed any more. Here the
    writes after an error are dropped, the file is closed in peace, and the error is raised as Python words it.
    """

    error: OSError | None = None

    def write(self, data: "Buffer", /) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        while left and self.error is None:
            try:
                left = left[super().write(left) :]
            except OSError as error:
                self.error = error
        return size

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


@contextmanager
def _new_file(path: Path, header: FeatureHeader, *, force: bool) -> Iterator[h5py.File]:
    refuse_stream(path)
    with atomic_path(path, force=force) as temporary, _Disk(temporary, "w+") as disk:
        try:
            # libver "earliest" writes no time stamps into groups, and a killed writer leaves no lock behind.
            with h5py.File(disk, "w", libver="earliest") as file:
                file.attrs["schema"] = _text(FEATURES_NAME)
                file.attrs["schema_version"] = np.int64(FEATURES_VERSION)
                file.attrs["header"] = _text(header.to_json())
                yield file
        finally:
            if disk.error is not None:  # whatever else went wrong came of it
                raise disk.error


def refuse_stream(path: Path) -> None:
    """Raise UsageError if `path` is '-', a pipe or a device: HDF5 seeks in the file it writes."""
    if is_piped(path):
        raise UsageError(f"{path}: expected a file, got a stream; HDF5 cannot be piped, name a file (-o F.h5)")


def _write(group: h5py.Group, name: str, values: np.ndarray, chunks: tuple[int, ...] | None = None) -> h5py.Dataset:
    if values.size == 0:
        return group.create_dataset(name, data=values, track_times=False)
    return group.create_dataset(name, data=values, track_times=False, fletcher32=chunks is not None, chunks=chunks)


def _text(value: str) -> np.bytes_:
    return np.bytes_(value.encode("utf-8"))
