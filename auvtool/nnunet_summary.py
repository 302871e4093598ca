"""summary.json as nnU-Net 2.8 writes it, value for value."""

import json
import math
import warnings
from collections.abc import Sequence

import numpy as np

from auvtool.evaluation import Evaluation
from auvtool.metrics import Overlap


def render_summary(evaluation: Evaluation) -> str:
    """The text of summary.json.

    Dice and IoU are NaN (which JSON does not know, but nnU-Net writes) where a class is in neither map of a case, and 0
    for a false alarm. `mean` is over the cases where they are not NaN; `foreground_mean`, over the classes, is NaN as
    soon as one class has no mean.

    Raises:
        ValueError: no case was evaluated.
    """
    if not evaluation.cases:
        raise ValueError("expected at least one evaluated case, got none")
    comparison = evaluation.comparison
    order = list(range(len(comparison.classes)))
    if not comparison.has_regions:
        order.sort(key=lambda position: comparison.classes[position].class_id)
    # nnU-Net sorts by file name; the last digits of a mean depend on the order.
    cases = sorted(evaluation.cases, key=lambda case: case.pair.prediction.name)
    metrics = {
        comparison.nnunet_keys[position]: [_metrics(case.overlaps[position]) for case in cases] for position in order
    }
    mean = {
        key: {name: _nan_mean([values[name] for values in of_class]) for name in of_class[0]}
        for key, of_class in metrics.items()
    }
    names = next(iter(mean.values()))
    summary = {
        "foreground_mean": {name: float(np.mean([of_class[name] for of_class in mean.values()])) for name in names},
        "mean": mean,
        "metric_per_case": [
            {
                "metrics": {key: of_class[position] for key, of_class in metrics.items()},
                "prediction_file": str(case.pair.prediction),
                "reference_file": str(case.pair.reference),
            }
            for position, case in enumerate(cases)
        ],
    }
    return json.dumps(summary, sort_keys=True, indent=4)


def _metrics(found: Overlap) -> dict[str, float | int]:
    return {
        "Dice": math.nan if found.dice is None else found.dice,
        "FN": found.fn,
        "FP": found.fp,
        "IoU": math.nan if found.iou is None else found.iou,
        "TN": found.tn,
        "TP": found.tp,
        "n_pred": found.tp + found.fp,
        "n_ref": found.tp + found.fn,
    }


def _nan_mean(values: Sequence[float | int]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all nan: the mean is nan
        return float(np.nanmean(values))
