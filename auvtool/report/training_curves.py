"""Curves of a training from what `train` logs in each fold folder."""

import math
from pathlib import Path
from typing import Any

from auvtool.errors import InputError, one_line
from auvtool.json_text import json_text_of, parse_json
from auvtool.report.page import TrainingCurves

LOG_NAME = "training_log.jsonl"


def read_trainings(run: Path) -> tuple[TrainingCurves, ...]:
    """The curves of every fold of a results folder, or of one fold folder, by fold name.

    Raises:
        InputError: there is no log, or it is not one.
    """
    logs = sorted([*run.glob(f"fold_*/{LOG_NAME}"), *run.glob(LOG_NAME)])
    if not logs:
        raise InputError(
            run, expected=f"a folder that train wrote, with fold_*/{LOG_NAME}", found="none", cure="check --training"
        )
    found = tuple(curves for curves in map(_read, logs) if curves.epochs)
    if not found:
        raise InputError(
            logs[0], expected="a finished epoch", found="none", cure="wait for the training, or leave it out"
        )
    return found


def _read(log: Path) -> TrainingCurves:
    try:
        rows = [parse_json(line) for line in json_text_of(log).splitlines() if line.strip()]
        names = dict.fromkeys(str(name) for row in rows for name in row["pseudo_dice"])
        return TrainingCurves(
            log.parent.name,
            tuple(int(row["epoch"]) for row in rows),
            tuple(_number(row["train_loss"]) for row in rows),
            tuple(_number(row["val_loss"]) for row in rows),
            tuple((name, tuple(_number(row["pseudo_dice"].get(name)) for row in rows)) for name in names),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            log,
            expected="a line of JSON an epoch, as train writes it",
            found=f"'{one_line(error)}'",
            cure="train again",
        ) from error


def _number(value: Any) -> float:  # of JSON
    number = float("nan") if value is None else float(value)
    return number if math.isfinite(number) else math.nan
