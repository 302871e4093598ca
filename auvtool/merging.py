"""Feature files of shards, or tables of one kind, joined to one."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from auvtool.case_evidence import CaseEvidence
from auvtool.case_features import CaseFeatures, FeatureHeader
from auvtool.errors import InputError
from auvtool.feature_store import FeatureFile
from auvtool.feature_writer import assemble
from auvtool.schema import FAILURES, KEEP_LIST, METRICS, SCORES, Row, TableSchema
from auvtool.tables import read_table

_MERGEABLE = (METRICS, FAILURES, KEEP_LIST)


def merge_features(paths: Sequence[Path], output: Path, *, force: bool) -> tuple[int, FeatureHeader]:
    """Join feature files with equal headers, sorted by case.

    Returns:
        The number of cases, and the header.

    Raises:
        InputError: a file is damaged, was made with other options than the first, or holds another version of a case.
    """
    sources: dict[str, Path] = {}
    header: FeatureHeader | None = None
    for path in paths:
        with FeatureFile(path) as file:
            header = header or file.header
            if file.header.fingerprint != header.fingerprint:
                raise InputError(
                    path,
                    expected=f"features made as those of {paths[0]}",
                    found=_difference(header, file.header),
                    cure="extract both with the same options",
                )
            for case_id in file.case_ids:
                if case_id in sources:
                    _require_equal(file, sources[case_id], case_id)
                sources.setdefault(case_id, path)
    if header is None:
        raise ValueError("no files to merge")
    assemble(sources, output, header, force=force)
    return len(sources), header


def merge_tables(paths: Sequence[Path]) -> tuple[list[Row], TableSchema]:
    """The rows of all tables, sorted by case and class, and their common schema.

    Raises:
        InputError: a table is of no kind that can be joined, or two of them hold different rows for a case and class.
    """
    schema = _schema_of(paths[0])
    keys = [name for name in ("case", "class_id", "step") if name in schema.column_names()]
    rows: dict[tuple[object, ...], Row] = {}
    for path in paths:
        for row in read_table(path, schema):
            key = tuple(row[name] for name in keys)
            if rows.setdefault(key, row) != row:
                raise InputError(
                    f"{path}: {row['case']}",
                    expected="each case once",
                    found="another row for it than in an earlier file",
                    cure="leave one of the two files out",
                )
    # Python's sort is stable: classes of a case stay in the order of their file.
    return sorted(rows.values(), key=lambda row: str(row["case"])), schema


def _schema_of(path: Path) -> TableSchema:
    for schema in (*_MERGEABLE, SCORES):
        try:
            read_table(path, schema)
        except InputError:
            continue
        if schema is SCORES:
            raise InputError(
                path,
                expected="metrics, failures or keep lists",
                found="scores, whose AUV is relative to the cases that were scored together",
                cure="merge the feature files, and score the result",
            )
        return schema
    raise InputError(
        path,
        expected=f"features (.h5) or a table of {', '.join(schema.name for schema in _MERGEABLE)}",
        found="neither",
        cure="give files that auvtool wrote",
    )


def _difference(one: FeatureHeader, other: FeatureHeader) -> str:
    pairs = {field.name: (getattr(one, field.name), getattr(other, field.name)) for field in fields(FeatureHeader)}
    options, of_other = pairs.pop("options")
    pairs |= {name: (options.get(name), of_other.get(name)) for name in sorted({*options, *of_other})}
    differing = {name: (here, there) for name, (here, there) in pairs.items() if here != there}
    return "; ".join(f"{name} {_shown(there)} for {_shown(here)}" for name, (here, there) in differing.items())


def _shown(value: object) -> str:
    if value is None:
        return "none"
    return " ".join(map(_shown, value)) if isinstance(value, list | tuple) else str(value)


def _require_equal(file: FeatureFile, other_path: Path, case_id: str) -> None:
    with FeatureFile(other_path) as other:
        equal = _equal(file.case(case_id), other.case(case_id)) and file.map_ids(case_id) == other.map_ids(case_id)
        equal = equal and all(
            np.array_equal(file.map(case_id, class_id)[0], other.map(case_id, class_id)[0])
            for class_id in file.map_ids(case_id)
        )
    if not equal:
        raise InputError(
            f"{file.path}: {case_id}",
            expected="each case once",
            found=f"other features for it than in {other_path}",
            cure="leave one of the two files out",
        )


def _equal(one: object, other: object) -> bool:
    if isinstance(one, (CaseFeatures, CaseEvidence)):
        return all(_equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return np.float64(one).tobytes() == np.float64(other).tobytes()  # nan is a value too
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.shape == other.shape and one.tobytes() == other.tobytes()
    return one == other
