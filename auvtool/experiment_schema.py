"""Tables of experiments with known dirty cases: the answer key, what found them, and what dropping them changed."""

from auvtool.schema import CASE, Column, TableSchema

ANSWER_KEY = TableSchema(
    "auvtool.answer_key",
    2,
    (
        CASE,
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
