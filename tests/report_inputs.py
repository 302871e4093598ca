"""Scores to report on, small enough to know every number of the page."""

from pathlib import Path

from auvtool.schema import KEEP_LIST, METRICS, SCORES
from auvtool.tables import write_table

METHOD = "of no features file"  # so that any may be shown beside them
NASTY_CASE = "<script>alert('case')</script>&\"'"
NASTY_CLASS = "</style><img src=x onerror=alert(1)>|`*_"


def score_row(case, auv, *, class_id=None, class_name="all", status="ok", volume_ml=None, n_slices=3, reason=None):
    value = None if auv is None else 1.0 + 2.0 * auv
    return {
        "case": case,
        "class_id": class_id,
        "class_name": class_name,
        "status": status,
        "quantifier": "deviation",
        "method": METHOD,
        "value": value,
        "auv": auv,
        "axis": "linear",
        "axis_min": 1.0,
        "axis_max": 3.0,
        "axis_center": None,
        "n_slices": n_slices,
        "volume_ml": volume_ml,
        "reason": reason,
    }


def score_rows(n=10, *, classes=("large", "small"), names=None):
    """Case k of n: AUV k / (n - 1), volume k + 1 ml, k % 4 + 1 slices.

    The first class goes with the case, the second one the other way round and is absent from case 0.
    """
    rows = []
    for k, case in enumerate(names or [f"case_{k:02d}" for k in range(n)]):
        auv, sizes = k / (n - 1), {"volume_ml": float(k + 1), "n_slices": k % 4 + 1}
        rows.append(score_row(case, auv, class_id=1, class_name=classes[0], **sizes))
        if k == 0:
            absent = {"status": "absent", "volume_ml": 0.0, "n_slices": 0}
            rows.append(score_row(case, None, class_id=2, class_name=classes[1], **absent))
        else:
            rows.append(score_row(case, 1 - auv, class_id=2, class_name=classes[1], **sizes))
        rows.append(score_row(case, auv, reason=f"shape: holes of {classes[0]} z +{k}.0" if k else None, **sizes))
    return rows


def write_scores(path: Path, rows=None) -> Path:
    write_table(score_rows() if rows is None else rows, SCORES, path, force=True)
    return path


def write_keep(path: Path, dropped=("case_09",), n=10) -> Path:
    cases = [f"case_{k:02d}" for k in range(n)]
    write_table([{"case": case, "keep": case not in dropped} for case in cases], KEEP_LIST, path, force=True)
    return path


def write_metrics(path: Path, dice) -> Path:
    """dice: case -> (Dice of large, Dice of small); None where the class is in neither."""
    rows = []
    for case, values in dice.items():
        for class_id, (name, value) in enumerate(zip(("large", "small"), values, strict=True), start=1):
            iou = None if value is None else value / (2 - value)
            status = "absent" if value is None else "ok"
            rows.append(metric_row(case, class_id, name, status, value, iou))
        known = [value for value in values if value is not None]
        rows.append(metric_row(case, None, "all", "ok", sum(known) / len(known) if known else None, None))
    write_table(rows, METRICS, path, force=True)
    return path


def metric_row(case, class_id, class_name, status, dice, iou):
    return {
        "case": case,
        "class_id": class_id,
        "class_name": class_name,
        "status": status,
        "dice": dice,
        "iou": iou,
    }


def write_run(folder: Path) -> Path:
    fold = folder / "fold_0"
    fold.mkdir(parents=True)
    (fold / "training_log.jsonl").write_text(
        '{"epoch": 0, "lr": 0.01, "train_loss": 1.0, "val_loss": 0.5, "pseudo_dice": {"large": 0.25, "small": null}}\n'
        '{"epoch": 1, "lr": 0.005, "train_loss": 0.5, "val_loss": 0.25, "pseudo_dice": {"large": 0.75, "small": 0.5}}\n'
    )
    return folder
