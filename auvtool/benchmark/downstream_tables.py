"""The tables of the downstream experiment, from the metrics of its trainings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from auvtool import downstream_statistics as statistics
from auvtool.benchmark.downstream_plan import ALL, ORACLE, RANDOM, WITHOUT_RATIO, Plan
from auvtool.downstream_statistics import Counts, Dice, Estimate
from auvtool.errors import InputError
from auvtool.schema import ALL_CLASSES, Row, class_label

Arm: TypeAlias = tuple[str, float | None]  # an arm and its ratio


@dataclass(frozen=True)
class Measured:
    """Dice of every arm on the same classes, seeds and test cases.

    Attributes:
        class_names: the first axis of each array.
        seeds: its second axis.
        case_ids: its third axis.
        dice: by arm and ratio, in the order of the plan.
    """

    class_names: tuple[str, ...]
    seeds: tuple[int, ...]
    case_ids: tuple[str, ...]
    dice: Mapping[Arm, Dice]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Of the arms that have one."""
        return tuple(dict.fromkeys(ratio for _, ratio in self.dice if ratio is not None))

    def rival(self, arm: str, ratio: float | None) -> Dice | None:
        """Dice of another arm at the ratio; where there is none, at the only ratio there is."""
        if arm in WITHOUT_RATIO:
            return self.dice.get((arm, None))
        if ratio is None and len(self.ratios) == 1:
            ratio = self.ratios[0]
        return self.dice.get((arm, ratio))


def measure(plan: Plan, metrics: Mapping[str, Sequence[Row]]) -> Measured:
    """From the METRICS rows of each training, by its name.

    Raises:
        InputError: two tables are not of the same test cases and classes.
    """
    tables = {
        name: {(str(row["class_name"]), str(row["case"])): row["dice"] for row in rows if row["class_id"] is not None}
        for name, rows in metrics.items()
    }
    first = next(iter(tables.values()))
    for name, table in tables.items():
        if table.keys() != first.keys():
            raise InputError(
                f"metrics of {name}",
                expected="the test cases of the other trainings",
                found="others",
                cure="start again with --force",
            )
    class_names, case_ids = (tuple(dict.fromkeys(key[axis] for key in first)) for axis in (0, 1))
    seeds = tuple(dict.fromkeys(run.seed for run in plan.runs))
    dice: dict[Arm, Dice] = {}
    for run in plan.runs:
        array = dice.setdefault((run.arm, run.ratio), np.full((len(class_names), len(seeds), len(case_ids)), np.nan))
        table = tables[run.training.name]
        array[:, seeds.index(run.seed)] = [
            [_number_or_nan(table[name, case_id]) for case_id in case_ids] for name in class_names
        ]
    return Measured(class_names, seeds, case_ids, dice)


def downstream_rows(plan: Plan, measured: Measured) -> list[Row]:
    """DOWNSTREAM rows: one a run and class, the mean of the classes last."""
    rows: list[Row] = []
    for run in plan.runs:
        place = measured.seeds.index(run.seed)
        dice = measured.dice[run.arm, run.ratio][:, place : place + 1]
        there = ~np.isnan(dice)
        n_test = (*there.sum(axis=(1, 2)), there.any(axis=0).sum())
        names = (*map(class_label, measured.class_names), ALL_CLASSES)
        for name, value, number in zip(names, statistics.mean_dice(dice), n_test, strict=True):
            rows.append(
                {
                    "arm": run.arm,
                    "ratio": run.ratio,
                    "seed": run.seed,
                    "class_name": name,
                    "n_training": len(run.training.kept),
                    "n_dirty_left": run.n_dirty_left,
                    "dice": None if np.isnan(value) else float(value),
                    "n_test": int(number),
                }
            )
    return rows


def summary_rows(measured: Measured) -> list[Row]:
    """DOWNSTREAM_SUMMARY rows: one an arm, ratio and class, the mean of the classes last."""
    counts = statistics.draw_pairs(len(measured.seeds), len(measured.case_ids))
    names = (*map(class_label, measured.class_names), ALL_CLASSES)
    rows: list[Row] = []
    for (arm, ratio), dice in measured.dice.items():
        columns: dict[str, list[Estimate]] = {
            f"difference_{rival}": _differences(dice, measured.rival(rival, ratio), counts, is_itself=arm == rival)
            for rival in (ALL, RANDOM)
        }
        columns["recovered"] = _recovered(measured, arm, ratio, counts)
        means, deviations = statistics.mean_dice(dice), statistics.seed_deviation(dice)
        for place, name in enumerate(names):
            row: Row = {
                "arm": arm,
                "ratio": ratio,
                "class_name": name,
                "n_seeds": len(measured.seeds),
                "dice": None if np.isnan(means[place]) else float(means[place]),
                "dice_sd": deviations[place],
            }
            for column, estimates in columns.items():
                estimate = estimates[place]
                row |= {column: estimate.value, f"{column}_low": estimate.low, f"{column}_high": estimate.high}
            rows.append(row)
    return rows


def _differences(dice: Dice, base: Dice | None, counts: Counts, *, is_itself: bool) -> list[Estimate]:
    if base is None or is_itself:
        return [Estimate(None)] * (len(dice) + 1)
    return statistics.differences(dice, base, counts)


def _recovered(measured: Measured, arm: str, ratio: float | None, counts: Counts) -> list[Estimate]:
    """Of arms that choose cases at a ratio; of random and oracle themselves it is 0 and 1 by definition."""
    dice, random, oracle = measured.dice[arm, ratio], measured.rival(RANDOM, ratio), measured.rival(ORACLE, ratio)
    if arm in {RANDOM, ORACLE} or ratio is None or random is None or oracle is None:
        return [Estimate(None)] * (len(dice) + 1)
    return statistics.recovered_fractions(dice, random, oracle, counts)


def _number_or_nan(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
