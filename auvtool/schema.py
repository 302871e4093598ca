"""Every file that commands exchange: name, version, columns, type, unit.

A reader checks a table against its schema here; a column that a schema does not name is ignored, so that a user may add
his own. A missing value is an empty cell (csv, tsv) or null (json, jsonl, parquet).
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Cell: TypeAlias = str | int | float | bool | None
Row: TypeAlias = dict[str, Cell]
CellType: TypeAlias = Literal["str", "int", "float", "bool"]


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    type: CellType
    description: str
    unit: str = ""
    nullable: bool = False
    required: bool = True


@dataclass(frozen=True)
class TableSchema:
    """A table that one command writes and another reads."""

    name: str
    version: int
    columns: tuple[Column, ...]

    def column_names(self) -> list[str]:
        return [column.name for column in self.columns]


_CASE = Column("case", "str", "case id")
_CLASS_ID = Column("class_id", "int", "class of dataset.json, or decoder channel; empty: the whole case", nullable=True)
_CLASS_NAME = Column("class_name", "str", "name of the class; 'all': the whole case")

SCORES = TableSchema(
    "auvtool.scores",
    1,
    (
        _CASE,
        _CLASS_ID,
        _CLASS_NAME,
        Column("status", "str", "ok; absent: class not in this case; flat: no variation to measure"),
        Column("scale", "float", "semantic perception scale S (eq. 5), high = rich", nullable=True),
        Column("auv", "float", "aleatoric uncertainty value (eq. 6), high = uncertain", nullable=True),
        Column("log_scale_min", "float", "axis of eq. 6: smallest log S of the data set", nullable=True),
        Column("log_scale_max", "float", "axis of eq. 6: largest log S of the data set", nullable=True),
        Column("n_slices", "int", "slices that the map was decoded on", nullable=True, required=False),
        Column("volume_ml", "float", "volume of the class region", "ml", nullable=True, required=False),
    ),
)

KEEP_LIST = TableSchema(
    "auvtool.keep_list",
    1,
    (
        _CASE,
        Column("keep", "bool", "true: train on it"),
        Column("auv", "float", "AUV of the whole case", nullable=True, required=False),
        Column("reason", "str", "why the case was dropped or could not be judged", nullable=True, required=False),
    ),
)

METRICS = TableSchema(
    "auvtool.metrics",
    1,
    (
        _CASE,
        _CLASS_ID,
        _CLASS_NAME,
        Column("status", "str", "ok; absent: in neither; false_alarm: only predicted; missed: only in the reference"),
        Column("dice", "float", "2 TP / (2 TP + FP + FN)", nullable=True),
        Column("iou", "float", "TP / (TP + FP + FN)", nullable=True),
        Column("tp", "int", "voxels in both", "voxel", nullable=True),
        Column("fp", "int", "voxels only predicted", "voxel", nullable=True),
        Column("fn", "int", "voxels only in the reference", "voxel", nullable=True),
        Column("n_reference", "int", "voxels of the reference", "voxel", nullable=True),
        Column("n_prediction", "int", "voxels of the prediction", "voxel", nullable=True),
    ),
)

FAILURES = TableSchema(
    "auvtool.failures",
    1,
    (_CASE, Column("step", "str", "where it failed"), Column("error", "str", "what was wrong, on one line")),
)

FEATURES_NAME = "auvtool.features"
FEATURES_VERSION = 1

ANSWER_KEY = TableSchema(
    "auvtool.answer_key",
    1,
    (
        _CASE,
        Column("dirty", "bool", "true: a fault was put into it"),
        Column("kind", "str", "the fault", nullable=True),
        Column("level", "float", "its level, in the unit of the fault", nullable=True),
        Column("dice", "float", "mean Dice of the corrupt with the clean label; 1 for a fault of the image"),
    ),
)
