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


ALL_CLASSES = "all"  # class_name of the rows that are of no one class

_CASE = Column("case", "str", "case id")
_CLASS_ID = Column("class_id", "int", "class of dataset.json, or decoder channel; empty: the whole case", nullable=True)
_CLASS_NAME = Column("class_name", "str", "name of the class; 'all': the whole case")

_STATUS = Column(
    "status", "str", "ok; absent: class not in this case; flat: no variation to measure; undefined: there, but no value"
)

SCORES = TableSchema(
    "auvtool.scores",
    2,
    (
        _CASE,
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
        _CASE,
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
    (_CASE, Column("step", "str", "where it failed"), Column("error", "str", "what was wrong, on one line")),
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
        _CASE,
        Column("quirk", "str", "its name"),
        Column("text", "str", "what it is, and what convert did about it"),
        Column("detail", "str", "what is of this case alone", nullable=True),
    ),
)

FEATURES_NAME = "auvtool.features"
FEATURES_VERSION = 3

ANSWER_KEY = TableSchema(
    "auvtool.answer_key",
    2,
    (
        _CASE,
        Column("dirty", "bool", "true: a fault was put into it"),
        Column("kind", "str", "the fault, as --kinds of corrupt names it", nullable=True),
        Column("level", "str", "low, medium or high; a fault that is there or not is high", nullable=True),
        Column(
            "parameters", "str", "what level and seed came to, each in its unit (JSON)", nullable=True, required=False
        ),
        Column("dice", "float", "mean Dice of the corrupt with the clean label; 1 for a fault of the image"),
        Column(
            "psnr",
            "float",
            "peak signal-to-noise ratio of the corrupt image over the clean one's range; empty: the image is clean",
            "dB",
            nullable=True,
            required=False,
        ),
    ),
)

_ARM = Column("arm", "str", "how the training cases were chosen: all, random, a table of scores, volume, oracle, ...")
_RATIO = Column("ratio", "float", "share of the cases that the filter keeps; empty: the arm has none", nullable=True)

DOWNSTREAM = TableSchema(
    "auvtool.downstream",
    1,
    (
        _ARM,
        _RATIO,
        Column("seed", "int", "of the training, and of what is drawn blindly"),
        Column("class_name", "str", "name of the class; 'all': the mean of the classes"),
        Column("n_training", "int", "cases trained on"),
        Column("n_dirty_left", "int", "dirty ones among them"),
        Column("dice", "float", "mean over the test cases where it is defined", nullable=True),
        Column("n_test", "int", "test cases where it is defined"),
    ),
)

_PAIRED = "95 % bootstrap interval of it, paired by seed and test case"

DOWNSTREAM_SUMMARY = TableSchema(
    "auvtool.downstream_summary",
    1,
    (
        _ARM,
        _RATIO,
        Column("class_name", "str", "name of the class; 'all': the mean of the classes"),
        Column("n_seeds", "int", "trainings"),
        Column("dice", "float", "mean over seeds and test cases", nullable=True),
        Column("dice_sd", "float", "standard deviation over the seeds; empty: one seed", nullable=True),
        Column("difference_all", "float", "dice less that of arm all", nullable=True),
        Column("difference_all_low", "float", _PAIRED, nullable=True),
        Column("difference_all_high", "float", _PAIRED, nullable=True),
        Column(
            "difference_random",
            "float",
            "dice less that of arm random at this ratio; of an arm without a ratio, where there is only one",
            nullable=True,
        ),
        Column("difference_random_low", "float", _PAIRED, nullable=True),
        Column("difference_random_high", "float", _PAIRED, nullable=True),
        Column(
            "recovered",
            "float",
            "(dice - random) / (oracle - random) at this ratio; empty: the interval of oracle - random is not above 0",
            nullable=True,
        ),
        Column("recovered_low", "float", _PAIRED, nullable=True),
        Column("recovered_high", "float", _PAIRED, nullable=True),
    ),
)

_FAULT = Column("kind", "str", "kind of the fault that the copies have")
_OF = Column("of", "str", "what the fault is put into: image or label", nullable=True)
_FAMILY = Column("family", "str", "family of the kind", nullable=True)
_FAULT_LEVEL = Column("level", "str", "low, medium or high")
_DETECTOR = Column("method", "str", "what was measured; high = suspect")
_SHARE = Column("share", "float", "share of the cases that was to be dirty")
_WILSON = "95 % interval of it (Wilson)"
_OVER_CASES = "95 % bootstrap interval of it, clean cases resampled with their copies"

DETECTION_PAIRED = TableSchema(
    "auvtool.detection_paired",
    1,
    (
        _FAULT,
        _OF,
        _FAMILY,
        _FAULT_LEVEL,
        _DETECTOR,
        Column("n", "int", "pairs of a copy and its own clean case"),
        Column("n_without_value", "int", "pairs of which one or both have no value; each counts half a win"),
        Column(
            "severity",
            "float",
            "median of the copies: 1 - Dice with the clean label, or PSNR of the image in dB",
            nullable=True,
        ),
        Column(
            "win_rate", "float", "share of the pairs in which the copy is the more suspect; ties half", nullable=True
        ),
        Column("win_rate_low", "float", _WILSON, nullable=True),
        Column("win_rate_high", "float", _WILSON, nullable=True),
        Column(
            "median_change",
            "float",
            "median of copy less clean, in robust standard deviations (1.4826 MAD) of the clean cases",
            nullable=True,
        ),
    ),
)

DETECTION = TableSchema(
    "auvtool.detection",
    1,
    (
        Column("kind", "str", "kind of the fault that the dirty cases have; 'mixed': several"),
        _OF,
        _FAMILY,
        _FAULT_LEVEL,
        _SHARE,
        _DETECTOR,
        Column("n_draws", "int", "draws of dirty cases in which the AUROC is defined"),
        Column("n_dirty", "float", "dirty cases of a draw, mean over draws"),
        Column("n_clean", "float", "clean cases of a draw, mean over draws"),
        Column(
            "share_dirty", "float", "true share of dirty cases, mean over draws: the base rate of average_precision"
        ),
        Column("n_without_value", "float", "cases of a draw without a value, mean over draws"),
        Column(
            "auroc",
            "float",
            "probability that a dirty case is more suspect than a clean one, mean over draws; ties half",
            nullable=True,
        ),
        Column("auroc_draws_low", "float", "2.5 % quantile of the AUROC over draws", nullable=True),
        Column("auroc_draws_high", "float", "97.5 % quantile of the AUROC over draws", nullable=True),
        Column("auroc_low", "float", _OVER_CASES, nullable=True),
        Column("auroc_high", "float", _OVER_CASES, nullable=True),
        Column("average_precision", "float", "mean over draws", nullable=True),
        Column(
            "precision_at_k",
            "float",
            "share of dirty cases among the k most suspect, k of them dirty; mean over draws",
            nullable=True,
        ),
        Column(
            "severity_spearman",
            "float",
            "partial Spearman of dirty cases' value and severity (high = worse), given log volume; empty where faults "
            "of images and labels mix",
            nullable=True,
        ),
    ),
)

DETECTION_SUMMARY = TableSchema(
    "auvtool.detection_summary",
    1,
    (
        _DETECTOR,
        _FAULT_LEVEL,
        _SHARE,
        Column("kinds", "str", "image, label or all"),
        Column("n_kinds", "int", "kinds in the mean: those with an AUROC that are no null test"),
        Column("auroc", "float", "mean over the kinds", nullable=True),
        Column("auroc_low", "float", _OVER_CASES, nullable=True),
        Column("auroc_high", "float", _OVER_CASES, nullable=True),
        Column(
            "raw",
            "float",
            "mean of max(AUROC, 1 - AUROC): as if the sign of each kind were known; above 0.5 for a blind method",
            nullable=True,
        ),
        Column("raw_low", "float", _OVER_CASES, nullable=True),
        Column("raw_high", "float", _OVER_CASES, nullable=True),
        Column("n_below_half", "int", "kinds whose dirty cases look cleaner than clean ones"),
    ),
)
