"""A number for each class that a loss is weighted by, from a file: mean scales of scores, or weights as given."""

import hashlib
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auvtool.dataset_json import SemanticClass
from auvtool.errors import InputError
from auvtool.json_text import parse_json
from auvtool.schema import CLASS_WEIGHTS, SCORES, Row
from auvtool.tables import parse_table, read_content


@dataclass(frozen=True)
class ClassTable:
    """Numbers by class name, and the SHA-256 of the file they come from."""

    sha256: str
    values: Mapping[str, float]

    def in_order(self, class_names: Sequence[str]) -> list[float]:
        return [self.values[name] for name in class_names]

    @classmethod
    def from_dict(cls, record: Mapping[str, Any] | None) -> "ClassTable | None":
        """The inverse of `dataclasses.asdict`."""
        return None if record is None else cls(record["sha256"], dict(record["values"]))


def mean_scales(path: Path, classes: Sequence[SemanticClass]) -> ClassTable:
    """Mean scale S_c of each class over all cases of a SCORES table that have one.

    Raises:
        InputError: no such table, its quantifier is no scale in [0, 1], it has several scorings, or it lacks a class.
    """
    content = read_content(path)
    rows = [row for row in parse_table(content, SCORES, str(path)) if row["class_id"] is not None]
    methods = sorted({f"{row['quantifier']} {row['method']}" for row in rows})
    if len(methods) != 1:
        raise InputError(path, expected="one scoring", found=len(methods), cure="give the table of one run of score")
    if rows[0]["quantifier"] != "auv":
        raise InputError(
            path,
            expected="scales in [0, 1] (quantifier auv)",
            found=f"quantifier {rows[0]['quantifier']}",
            cure="give a table of auvtool score --preset paper",
        )
    means = {}
    for item in classes:
        scales = [_scale(row, path) for row in rows if row["class_name"] == item.name and row["value"] is not None]
        if not scales:
            raise InputError(
                path, expected=f"a scale of class {item.name}", found="none", cure="score all classes of the data set"
            )
        means[item.name] = math.fsum(scales) / len(scales)
    return ClassTable(_sha256(content), means)


def _scale(row: Row, path: Path) -> float:
    value = row["value"]
    if not isinstance(value, float) or not 0 <= value <= 1:
        raise InputError(
            f"{path}, case {row['case']}, class {row['class_name']}",
            expected="a scale in [0, 1]",
            found=value,
            cure="give the table of score as it was written",
        )
    return value


def given_weights(path: Path, classes: Sequence[SemanticClass]) -> ClassTable:
    """Weights of classes from a CLASS_WEIGHTS table, or a JSON object `{"name or id": weight}`; 1 for those left out.

    Raises:
        InputError: the file is neither, names no class of `classes`, names one twice, or a weight is negative.
    """
    content = read_content(path)
    weights: dict[str, float] = {}
    for key, weight in _pairs(content, path):
        names = [item.name for item in classes if key in (item.name, str(item.class_id))]
        where = f"{path}, class {key}"
        if not names:
            known = ", ".join(item.name for item in classes)
            raise InputError(where, expected=f"a class of {known}", found="another", cure="correct the name or id")
        if names[0] in weights:
            raise InputError(where, expected="one weight", found="two", cure="leave one of them out")
        if not (0 <= weight < math.inf):
            raise InputError(where, expected="a weight >= 0", found=weight, cure="correct it")
        weights[names[0]] = weight
    if not any(weights.get(item.name, 1.0) for item in classes):
        raise InputError(path, expected="a weight above 0", found="none", cure="correct the weights")
    return ClassTable(_sha256(content), {item.name: weights.get(item.name, 1.0) for item in classes})


def _pairs(content: bytes, path: Path) -> list[tuple[str, float]]:
    try:
        mapping = parse_json(content)
    except ValueError:  # of a table, also bytes that are no text
        mapping = None
    if isinstance(mapping, dict):
        for key, weight in mapping.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise InputError(f"{path}, class {key}", expected="a number", found=weight, cure="correct it")
        return [(key, math.inf if weight > sys.float_info.max else float(weight)) for key, weight in mapping.items()]
    pairs = []
    for line, row in enumerate(parse_table(content, CLASS_WEIGHTS, str(path)), start=1):
        key = row["class_id"] if row["class_name"] is None else row["class_name"]
        if key is None:
            raise InputError(f"{path}, row {line}", expected="class_name or class_id", found="none", cure="name it")
        pairs.append((str(key), float(row["weight"] or 0.0)))
    return pairs


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
