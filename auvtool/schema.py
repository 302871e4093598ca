"""The files that commands exchange: name, version, columns, type, unit; those of experiments: experiment_schema.

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


ALL_CLASSES = "all"  # class_name of the rows that are of no one class


def class_label(name: str) -> str:
    """A class's name where no class_id stands beside it: one called as `ALL_CLASSES` is told from those rows."""
    return f"{name} (class)" if name == ALL_CLASSES else name


CASE = Column("case", "str", "case id")
_CLASS_ID = Column("class_id", "int", "class of dataset.json, or decoder channel; empty: the whole case", nullable=True)
_CLASS_NAME = Column("class_name", "str", "name of the class; 'all': the whole case")

_STATUS = Column(
    "status", "str", "ok; absent: class not in this case; flat: no variation to measure; undefined: there, but no value"
)

SCORES = TableSchema(
    "auvtool.scores",
    2,
    (
        CASE,
        _CLASS_ID,
        _CLASS_NAME,
        _STATUS,
        Column("quantifier", "str", "what was measured, as --quantifier names it"),
        Column("method", "str", "options it was measured and placed with; equal texts compare"),
        Column("value", "float", "the quantifier itself, in its own unit; of auv the scale S (eq. 5)", nullable=True),
        Column("auv", "float", "aleatoric uncertainty value (eq. 6), high = uncertain", nullable=True),
        Column("axis", "str", "coordinate that is placed: log or linear in the value; residual; two-sided"),
        Column(
            "axis_min", "float", "axis of eq. 6: smallest coordinate of the data set (of auv: log S)", nullable=True
        ),
        Column("axis_max", "float", "axis of eq. 6: largest coordinate of the data set", nullable=True),
        Column("axis_center", "float", "with --two-sided: median that distances are taken from", nullable=True),
        Column("n_slices", "int", "slices that the map was decoded on", nullable=True, required=False),
        Column(
            "volume_ml",
            "float",
            "volume of the class region; without prompts of the whole scan",
            "ml",
            nullable=True,
            required=False,
        ),
        Column(
            "reason",
            "str",
            "the most unusual evidence of the case (deviation, calibrated)",
            nullable=True,
            required=False,
        ),
    ),
)

EXPLANATION = TableSchema(
    "auvtool.explanation",
    1,
    (
        CASE,
        _CLASS_ID,
        _CLASS_NAME,
        _STATUS,
        Column("quantifier", "str", "what was measured"),
        Column("method", "str", "options it was measured and placed with"),
        Column("value", "float", "the quantifier itself; of auv the scale S", nullable=True),
        Column("median", "float", "of the value over the data set", nullable=True),
        Column("auv", "float", "aleatoric uncertainty value, high = uncertain", nullable=True),
        Column("rank", "int", "place among the cases that have an AUV; 1: the most uncertain", nullable=True),
        Column("n_ranked", "int", "cases that have an AUV"),
        Column(
            "push",
            "float",
            "what the class adds to the case's distance from the median; above 0: uncertain",
            nullable=True,
        ),
        Column(
            "volume_percentile", "float", "share of the cases whose volume is at most this one's", "%", nullable=True
        ),
        Column("depth_percentile", "float", "share of the cases with at most as many slices", "%", nullable=True),
        Column("n_singular_values", "int", "r of eq. 5", nullable=True),
        Column("n_for_90", "int", "singular values that carry 90 % of the energy", nullable=True),
        *(
            Column(f"energy_{j}", "float", f"energy share p of singular value {j} (eq. 4)", nullable=True)
            for j in (1, 2, 3)
        ),
    ),
)

FINDINGS = TableSchema(
    "auvtool.findings",
    1,
    (
        Column("case", "str", "case id; empty: the data set as a whole", nullable=True),
        Column("code", "str", "of the rule, as in `auvtool info rules`"),
        Column("name", "str", "of the rule"),
        Column("severity", "str", "error: certainly a fault; warning: to be looked at"),
        Column("what", "str", "what was expected and what was found"),
        Column("file", "str", "the file that is wrong, from the data set's folder", nullable=True),
        Column("class_name", "str", "the class that is wrong", nullable=True),
        Column("slice", "int", "a slice that shows it: index in the file along its slice axis, from 0", nullable=True),
        Column("cure", "str", "what to do about it"),
    ),
)

KEEP_LIST = TableSchema(
    "auvtool.keep_list",
    1,
    (
        CASE,
        Column("keep", "bool", "true: train on it"),
        Column("auv", "float", "AUV of the whole case", nullable=True, required=False),
        Column("reason", "str", "why the case was dropped or could not be judged", nullable=True, required=False),
    ),
)

METRICS = TableSchema(
    "auvtool.metrics",
    1,
    (
        CASE,
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
        Column("hd95_mm", "float", "95th percentile of the Hausdorff distance", "mm", nullable=True, required=False),
        Column("nsd", "float", "share of both surfaces within the tolerance", nullable=True, required=False),
        Column("nsd_tolerance_mm", "float", "what it was measured with", "mm", nullable=True, required=False),
    ),
)

_OF_DIFFERENCE = "95 % bootstrap interval of it, pairs resampled"

PAIRED_METRICS = TableSchema(
    "auvtool.paired_metrics",
    1,
    (
        Column("metric", "str", "dice, iou, hd95_mm or nsd"),
        Column("class_id", "int", "class of dataset.json; empty: all", nullable=True),
        Column(
            "class_name", "str", "name of the class; 'all': a case counts as its mean over the classes paired in it"
        ),
        Column("n", "int", "pairs: cases in which both runs have a value"),
        Column("n_only_a", "int", "cases in which only run A has one, no pair; of all: summed over the classes"),
        Column("n_only_b", "int", "cases in which only run B has one"),
        Column("mean_a", "float", "over the pairs", nullable=True),
        Column("mean_b", "float", "over the pairs", nullable=True),
        Column("difference", "float", "mean_b - mean_a", nullable=True),
        Column("difference_low", "float", _OF_DIFFERENCE, nullable=True),
        Column("difference_high", "float", _OF_DIFFERENCE, nullable=True),
        Column("n_better", "int", "pairs in which B is better: a larger value, of hd95_mm a smaller one"),
        Column("n_worse", "int", "pairs in which B is worse; the others are equal"),
        Column("wilcoxon_p", "float", "two-sided p of the signed-rank test, zeros by Pratt", nullable=True),
        Column("holm_p", "float", "the same, corrected for all classes of the metric (Holm)", nullable=True),
    ),
)

CLASS_WEIGHTS = TableSchema(
    "auvtool.class_weights",
    1,
    (
        Column("class_id", "int", "class of dataset.json", nullable=True, required=False),
        Column("class_name", "str", "its name; one of the two is enough", nullable=True, required=False),
        Column("weight", "float", "times what the class weighs otherwise; classes left out have 1"),
    ),
)

_P = "two-sided p value of the correlation before it"
_INTERVAL = "95 % bootstrap interval of the correlation before it"

CORRELATIONS = TableSchema(
    "auvtool.correlations",
    1,
    (
        Column("quantifier", "str", "of the scores"),
        Column("method", "str", "of the scores"),
        Column("metric", "str", "dice or iou"),
        Column("level", "str", "classes: a point is a class (means over cases); cases: a point is a case"),
        Column("class_name", "str", "the class whose cases are the points; 'all': classes, or whole cases"),
        Column("n", "int", "points"),
        Column(
            "pearson", "float", "of the value, its sign turned so that high = certain, with the metric", nullable=True
        ),
        Column("pearson_p", "float", _P, nullable=True),
        Column("pearson_low", "float", _INTERVAL, nullable=True),
        Column("pearson_high", "float", _INTERVAL, nullable=True),
        Column("spearman", "float", "the same of ranks", nullable=True),
        Column("spearman_p", "float", _P, nullable=True),
        Column("spearman_low", "float", _INTERVAL, nullable=True),
        Column("spearman_high", "float", _INTERVAL, nullable=True),
        Column("partial_pearson", "float", "given log volume and log number of slices", nullable=True),
        Column("partial_pearson_p", "float", _P, nullable=True),
        Column("partial_spearman", "float", "the same of ranks", nullable=True),
        Column("partial_spearman_p", "float", _P, nullable=True),
    ),
)

FAILURES = TableSchema(
    "auvtool.failures",
    1,
    (CASE, Column("step", "str", "where it failed"), Column("error", "str", "what was wrong, on one line")),
)

CLASS_PROMPTS = TableSchema(
    "auvtool.class_prompts",
    1,
    (
        Column("class_name", "str", "class of dataset.json"),
        Column("prompt", "str", "what the model is asked for it; empty: the class is left out", nullable=True),
    ),
)

QUIRKS = TableSchema(
    "auvtool.quirks",
    1,
    (
        CASE,
        Column("quirk", "str", "its name"),
        Column("text", "str", "what it is, and what convert did about it"),
        Column("detail", "str", "what is of this case alone", nullable=True),
    ),
)

FEATURES_NAME = "auvtool.features"
FEATURES_VERSION = 3
