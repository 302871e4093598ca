"""Features of a data set in one HDF5 file, and of one case in a shard of the same layout.

```
/                       attributes schema, schema_version, header (JSON, see FeatureHeader)
/cases/<case id>        attributes complete = 1, spacing_mm, shape, slice_axis, log_residual_probability, foreground_ml
  status                (channel,) ok | absent | flat
  n_slices n_voxels n_feature_voxels   (channel,) int64        volume_ml (channel,) float64
  spectra/<roi>_<logits|probabilities>_<unfolding>_<centering>   float64, the channels one after the other
  spectra/<roi>_rank_<unfolding>                                 (channel,) int64, values of each; 0: absent
  spectra/channels_<centering>                                   (channel, feature) float64
  class_features        (channel, feature) float32
  voxel_statistics      (channel, statistic) float64, attribute columns (JSON)
  agreement             (channel, 7) float64, attribute columns (JSON)
  evidence/             see case_evidence
  maps/<class id>       (d, h, w) float32 logits, attribute slices; only with --store maps or both
```

A group's name is its case id with %, / and a leading dot percent-encoded (`group_name`). Equal features give equal
bytes: nothing in the file tells the time. A file may come from a stranger, so links, types and filters that are not in
the layout are refused (hdf5_objects). The module feature_writer writes it. A roi is "volume" (all of the decoder's grid
on the decoded slices) or "class-box" (the box around the class region; empty without prompts).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Self, get_args
from urllib.parse import unquote

import h5py
import numpy as np
from jaxtyping import Int64

from auvtool.arrays import Volume
from auvtool.case_evidence import COLUMNS, OF_CHANNELS, CaseEvidence
from auvtool.case_features import (
    AGREEMENT_COLUMNS,
    MAP_KINDS,
    ROIS,
    CaseFeatures,
    FeatureHeader,
    SpectrumKey,
    Status,
)
from auvtool.errors import InputError, one_line
from auvtool.hdf5_objects import HDF5_SIGNATURE, attribute, own_object, require_own_bytes, require_own_objects
from auvtool.json_text import parse_json
from auvtool.schema import FEATURES_NAME, FEATURES_VERSION
from auvtool.spectrum import CENTERINGS, UNFOLDINGS, Centering

_COUNTS = ("n_slices", "n_voxels", "n_feature_voxels")


def group_name(case_id: str) -> str:
    """A case id as a name in HDF5, where / and a lone dot mean something else; also safe as a file name."""
    escaped = "".join(f"%{ord(c):02X}" if c in "%/\\" or ord(c) < 0x20 else c for c in case_id)
    return f"%2E{escaped[1:]}" if escaped.startswith(".") else escaped


class FeatureFile:
    """Reader of a feature file or shard; `with FeatureFile(path) as f`.

    Raises:
        InputError: the file is missing, is no HDF5 file or a damaged one, has another schema or version, or holds links
            or types that are not in the layout.
    """

    header: FeatureHeader
    case_ids: tuple[str, ...]

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            found = "a folder" if path.is_dir() else "no such file"
            raise self._error(expected="a feature file", found=found, cure="check the path")
        try:
            path.open("rb").close()
        except OSError as error:
            found = f"'{error.strerror}'"
            raise self._error(expected="a readable file", found=found, cure="check its rights") from error
        try:
            # Reading needs no lock, and network file systems often have none to give.
            self._file = h5py.File(path, "r", locking=False)
            self._n_bytes = path.stat().st_size
        except OSError as error:
            with path.open("rb") as file:
                is_other = file.read(len(HDF5_SIGNATURE)) != HDF5_SIGNATURE
            found = "a file of another kind" if is_other else f"a broken one ('{one_line(error)}')"
            cure = "give the file that auvtool extract wrote" if is_other else "make it again with auvtool extract"
            raise self._error(expected="a feature file (HDF5)", found=found, cure=cure) from error
        try:
            with self._as_input_error("header"):
                self._read_root()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def case(self, case_id: str) -> CaseFeatures:
        """All features of one case but its maps.

        Raises:
            InputError: there is no such case, it is not complete, or an array is not as the layout says.
        """
        with self._as_input_error(case_id):
            return self._read_case(case_id)

    def map_ids(self, case_id: str) -> tuple[int, ...]:
        """Class ids of the maps stored for a case."""
        with self._as_input_error(case_id):
            group = self._case_group(case_id)
            return tuple(sorted(int(n) for n in self._group(group, "maps"))) if "maps" in group else ()

    def map(self, case_id: str, class_id: int) -> tuple[Volume, Int64[np.ndarray, " d"]]:
        """Logits (d, h, w) of one class and the slice numbers of its rows."""
        with self._as_input_error(case_id):
            maps = self._group(self._case_group(case_id), "maps")
            logits = self._array(maps, str(class_id), "f", 3)
            return logits, np.asarray(attribute(maps[str(class_id)], "slices"), dtype=np.int64)

    def text_attribute(self, name: str) -> str:
        value = attribute(self._file, name) if name in self._file.attrs else ""
        if isinstance(value, bytes):
            return value.decode("utf-8")
        if not isinstance(value, str):
            raise self._error(
                expected=f"text in attribute {name}", found=type(value).__name__, cure="make the file again"
            )
        return value

    def copy_case(self, case_id: str, destination: h5py.Group) -> None:
        """Copy a complete case, maps included, into another file."""
        self.case(case_id)
        with self._as_input_error(case_id):
            group = self._case_group(case_id)
            for class_id in self.map_ids(case_id):
                self._dataset(self._group(group, "maps"), str(class_id), "f", 3)
            require_own_objects(group, self._n_bytes)
            self._file.copy(group, destination, group_name(case_id))

    def _read_root(self) -> None:
        name = self.text_attribute("schema")
        if name != FEATURES_NAME:
            raise self._error(
                expected=f"a feature file (schema {FEATURES_NAME})",
                found=f"schema '{name}'" if name else "an HDF5 file without a schema",
                cure="give a file that auvtool extract wrote",
            )
        version = attribute(self._file, "schema_version")
        if np.ndim(version) or version != FEATURES_VERSION:
            raise self._error(
                expected=f"{FEATURES_NAME} version {FEATURES_VERSION}",
                found=f"version {version}",
                cure="use the version of auvtool that wrote it, or extract again",
            )
        try:
            self.header = FeatureHeader.from_json(self.text_attribute("header"))
        except (ValueError, KeyError, TypeError) as error:
            raise self._error(expected="a header", found=repr(one_line(error)), cure="extract again") from error
        with self._as_input_error("cases"):
            names = {name: unquote(name) for name in self._group(self._file, "cases")}
            "".join(names).encode("utf-8")  # half a surrogate pair, which no other file could hold, is a ValueError
            strange = [name for name, case_id in names.items() if group_name(case_id) != name or not case_id]
            if strange:
                raise ValueError(f"{strange[0]}, which is no case id")
            self.case_ids = tuple(sorted(names.values()))

    def _read_case(self, case_id: str) -> CaseFeatures:
        group = self._case_group(case_id)
        n = len(self.header.channels)
        status = tuple(value.decode("ascii") for value in self._array(group, "status", "S", 1, length=n))
        unknown = set(status) - set(get_args(Status))
        if unknown:
            raise ValueError(f"status {sorted(unknown)}")
        spectra, channel_spectra = self._read_spectra(group, n)
        statistics = self._array(group, "voxel_statistics", "f", 2, length=n)
        names = parse_json(attribute(group["voxel_statistics"], "columns"))
        if statistics.shape[1] != len(names):
            raise ValueError(f"{len(names)} names for voxel_statistics of shape {statistics.shape}")
        features = self._array(group, "class_features", "f", 2, length=n)
        agreement = self._array(group, "agreement", "f", 2, length=n)
        widths = {"agreement": agreement.shape[1] == len(AGREEMENT_COLUMNS)}
        widths |= {f"channels_{c}": matrix.shape == features.shape for c, matrix in channel_spectra.items()}
        if not all(widths.values()):
            raise ValueError(f"another width of {next(name for name, fits in widths.items() if not fits)}")
        sizes = {name: self._array(group, name, "i", 1, length=n) for name in _COUNTS}
        sizes["volume_ml"] = self._array(group, "volume_ml", "f", 1, length=n)
        sizes["foreground_ml"] = np.array(float(attribute(group, "foreground_ml")))
        strange = [name for name, values in sizes.items() if not np.isfinite(values).all() or (values < 0).any()]
        if strange:
            raise ValueError(f"a {strange[0]} that is no size")
        d, h, w = (int(size) for size in attribute(group, "shape"))
        spacing_d, spacing_h, spacing_w = (float(size) for size in attribute(group, "spacing_mm"))
        return CaseFeatures(
            case_id=case_id,
            class_ids=tuple(class_id for class_id, _ in self.header.channels),
            class_names=tuple(name for _, name in self.header.channels),
            status=status,
            n_slices=sizes["n_slices"],
            n_voxels=sizes["n_voxels"],
            n_feature_voxels=sizes["n_feature_voxels"],
            volume_ml=sizes["volume_ml"],
            spectra=spectra,
            channel_spectra=channel_spectra,
            class_features=features,
            voxel_statistics=statistics,
            statistic_names=tuple(str(name) for name in names),
            agreement=agreement,
            evidence=self._read_evidence(group, n),
            log_residual_probability=float(attribute(group, "log_residual_probability")),
            foreground_ml=float(sizes["foreground_ml"]),
            shape=(d, h, w),
            spacing_mm=(spacing_d, spacing_h, spacing_w),
            slice_axis=np.bytes_(attribute(group, "slice_axis")).decode("ascii"),
        )

    def _read_spectra(
        self, case: h5py.Group, n_channels: int
    ) -> tuple[dict[SpectrumKey, list[np.ndarray]], dict[Centering, np.ndarray]]:
        spectra: dict[SpectrumKey, list[np.ndarray]] = {}
        if "spectra" not in case:  # --store maps
            return spectra, {}
        group = self._group(case, "spectra")
        for roi in ROIS:
            for unfolding in UNFOLDINGS:
                ranks = self._array(group, f"{roi}_rank_{unfolding}", "i", 1, length=n_channels)
                if (ranks < 0).any():
                    raise ValueError(f"{roi}_rank_{unfolding} below 0")
                ends = np.cumsum(ranks)
                for kind in MAP_KINDS:
                    for centering in CENTERINGS:
                        name = f"{roi}_{kind}_{unfolding}_{centering}"
                        values = self._array(group, name, "f", 1, length=int(ranks.sum()))
                        spectra[roi, kind, unfolding, centering] = np.split(values, ends[:-1])
        channels = {c: self._array(group, f"channels_{c}", "f", 2, length=n_channels) for c in CENTERINGS}
        return spectra, channels

    def _read_evidence(self, case: h5py.Group, n_channels: int) -> CaseEvidence:
        group = self._group(case, "evidence")
        arrays: dict[str, np.ndarray] = {}
        for field_ in fields(CaseEvidence):
            name = field_.name
            of_channels = name in OF_CHANNELS
            length = n_channels if of_channels else None
            arrays[name] = self._array(group, name, "f", 2 if of_channels else 1, length=length)
            if name in COLUMNS and parse_json(attribute(group[name], "columns")) != list(COLUMNS[name]):
                raise ValueError(f"other columns of {name}")
        return CaseEvidence(**arrays)

    def _case_group(self, case_id: str) -> h5py.Group:
        cases = self._group(self._file, "cases")
        if group_name(case_id) not in cases:
            raise self._error(expected=f"case {case_id}", found="none of that id", cure="check the case id")
        group = self._group(cases, group_name(case_id))
        if "complete" not in group.attrs or np.ravel(attribute(group, "complete")).tolist() != [1]:
            raise ValueError("a case that is not complete")
        return group

    def _group(self, parent: h5py.Group, name: str) -> h5py.Group:
        child = own_object(parent, name)
        if not isinstance(child, h5py.Group):
            raise TypeError(f"{name} is not a group")
        return child

    def _dataset(self, parent: h5py.Group, name: str, kind: str, n_axes: int) -> h5py.Dataset:
        child = own_object(parent, name)
        if not isinstance(child, h5py.Dataset) or child.dtype.kind != kind or child.ndim != n_axes:
            raise TypeError(f"{name} is not an array of kind '{kind}' with {n_axes} axes")
        require_own_bytes(child, self._n_bytes)
        return child

    def _array(self, parent: h5py.Group, name: str, kind: str, n_axes: int, length: int | None = None) -> np.ndarray:
        dataset = self._dataset(parent, name, kind, n_axes)
        if length is not None and dataset.shape[0] != length:
            raise ValueError(f"{name} has {dataset.shape[0]} rows for {length}")
        return np.asarray(dataset[()])

    @contextmanager
    def _as_input_error(self, what: str) -> Iterator[None]:
        try:
            yield
        except (
            OSError,
            RuntimeError,
            KeyError,
            ValueError,
            TypeError,
            AttributeError,
            OverflowError,
            MemoryError,
        ) as error:
            raise InputError(
                f"{self.path}: {what}",
                expected=f"features in the layout of version {FEATURES_VERSION}",
                found=f"'{one_line(error)}'",
                cure="the file is damaged or not from auvtool: extract again",
            ) from error

    def _error(self, *, expected: str, found: str, cure: str) -> InputError:
        return InputError(self.path, expected=expected, found=found, cure=cure)
