"""Tables of scores and of metrics, row by row or random, of three classes."""

import numpy as np

from auvtool.quantifiers import QUANTIFIERS

CLASSES = {1: "liver", 2: "spleen", 3: "tumour"}
CASES = [f"case_{position:02d}" for position in range(12)]


def score_row(case, class_id, value, *, quantifier="auv", method="m", status="ok", volume=10.0, slices=8):
    return {
        "case": case,
        "class_id": class_id,
        "class_name": "all" if class_id is None else CLASSES[class_id],
        "status": status,
        "quantifier": quantifier,
        "method": method,
        "axis": QUANTIFIERS[quantifier].axis if quantifier in QUANTIFIERS else "log",
        "value": value,
        "auv": None,
        "n_slices": slices,
        "volume_ml": volume,
    }


def metric_row(case, class_id, dice, *, name=None):
    return {
        "case": case,
        "class_id": class_id,
        "class_name": name or ("all" if class_id is None else CLASSES[class_id]),
        "status": "absent" if dice is None else "ok",
        "dice": dice,
        "iou": None if dice is None else dice / (2 - dice),
    }


def random_tables(seed=0, *, quantifier="auv", sign=1.0):
    """Scores and metrics of 12 cases and 3 classes whose value follows the Dice."""
    generator = np.random.default_rng(seed)
    dice = generator.uniform(0.2, 0.9, (len(CASES), 3))
    value = 0.1 + dice + generator.normal(0.0, 0.2, dice.shape)
    volume, slices = generator.uniform(1.0, 50.0, dice.shape), generator.integers(5, 40, dice.shape)
    scores, metrics = [], []
    for row, case in enumerate(CASES):
        for column in range(3):
            scores.append(
                score_row(
                    case,
                    column + 1,
                    sign * float(value[row, column]),
                    quantifier=quantifier,
                    volume=float(volume[row, column]),
                    slices=int(slices[row, column]),
                )
            )
            metrics.append(metric_row(case, column + 1, float(dice[row, column])))
        scores.append(
            score_row(
                case,
                None,
                sign * float(value[row].mean()),
                quantifier=quantifier,
                volume=float(volume[row].sum()),
                slices=int(slices[row].max()),
            )
        )
        metrics.append(metric_row(case, None, float(dice[row].mean())))
    return scores, metrics, (value, dice, volume, slices)
