"""What the demo found, in tables and plain words: dirty cases against the key, Dice with and without the dropped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from auvtool import detection
from auvtool.plural import counted
from auvtool.schema import ALL_CLASSES, Cell, Row


@dataclass(frozen=True)
class Ranking:
    """Cases by one quantifier.

    Attributes:
        name: of the quantifier.
        value: of each case, high = suspect; cases without one are left out.
        dropped: the cases that the filter dropped by it.
    """

    name: str
    value: Mapping[str, float]
    dropped: frozenset[str]

    def rank(self, case_id: str) -> int | None:
        """1 = the most suspect; equal values share the better rank; None without a value."""
        if case_id not in self.value:
            return None
        return 1 + sum(other > self.value[case_id] for other in self.value.values())


def ranking(name: str, scores: Sequence[Row], keep_list: Sequence[Row]) -> Ranking:
    """From a SCORES and a KEEP_LIST table."""
    values = {
        str(row["case"]): float(row["auv"])
        for row in scores
        if row["class_id"] is None and isinstance(row["auv"], float)
    }
    return Ranking(name, values, frozenset(str(row["case"]) for row in keep_list if not row["keep"]))


def dirty_rows(key: Sequence[Row], rankings: Sequence[Ranking]) -> list[Row]:
    """One row a dirty case: its fault, how far its label is off, and what each quantifier made of it."""
    rows: list[Row] = []
    for entry in key:
        if not entry["dirty"]:
            continue
        case_id = str(entry["case"])
        row: Row = {"case": case_id, "fault": f"{entry['kind']} ({entry['level']})", "label Dice": entry["dice"]}
        for item in rankings:
            rank = item.rank(case_id)
            row[item.name] = item.value.get(case_id)
            row[f"{item.name} rank"] = None if rank is None else f"{rank} of {len(item.value)}"
            row[f"{item.name} drops"] = "yes" if case_id in item.dropped else "no"
        rows.append(row)
    return rows


def auroc(key: Sequence[Row], item: Ranking) -> float | None:
    """Probability that a dirty case ranks above a clean one, ties counting half; None without both kinds."""
    dirty = [item.value[str(row["case"])] for row in key if row["dirty"] and str(row["case"]) in item.value]
    clean = [item.value[str(row["case"])] for row in key if not row["dirty"] and str(row["case"]) in item.value]
    if not dirty or not clean:
        return None
    return float(detection.auroc(np.array(dirty), np.array(clean)))


def detection_text(key: Sequence[Row], rankings: Sequence[Ranking]) -> list[str]:
    """Counts of each quantifier beside what chance would give, and what that means."""
    dirty = {str(row["case"]) for row in key if row["dirty"]}
    lines = []
    for item in rankings:
        found, dropped = len(dirty & item.dropped), len(item.dropped)
        chance = dropped * len(dirty) / len(key)
        area = auroc(key, item)
        lines.append(
            f"{item.name}: {found} of {len(dirty)} dirty cases are among the {dropped} dropped; {dropped} cases drawn "
            f"blindly would hold {chance:.1f}. AUROC {'not defined' if area is None else f'{area:.2f}'} "
            "(1 = all dirty cases ahead, 0.5 = blind, 0 = all of them look cleaner)."
        )
        if 2 * found < len(dirty):
            clean = counted(dropped - found, "clean one")
            lines.append(f"  So {item.name} missed most of the dirty cases here and dropped {clean}.")
        elif found < len(dirty):
            missed = len(dirty) - found
            lines.append(f"  So {item.name} missed {missed} and dropped {counted(dropped - found, 'clean case')}.")
        else:
            lines.append(f"  So {item.name} found all of them and dropped {counted(dropped - found, 'clean case')}.")
    return lines


def mean_dice(metrics: Sequence[Row]) -> dict[str, float | None]:
    """Mean Dice of each class over the cases where it is defined, then of "all": the mean of the classes."""
    values: dict[str, list[float]] = {}
    for row in metrics:
        if row["class_id"] is None:
            continue
        values.setdefault(str(row["class_name"]), [])
        if isinstance(row["dice"], float):
            values[str(row["class_name"])].append(row["dice"])
    means: dict[str, float | None] = {name: float(np.mean(dice)) if dice else None for name, dice in values.items()}
    defined = [value for value in means.values() if value is not None]
    means[ALL_CLASSES] = float(np.mean(defined)) if defined else None
    return means


def dice_rows(metrics: Mapping[str, Sequence[Row]]) -> list[Row]:
    """One row a class and one for their mean: the mean Dice on the test cases of each training, by its name."""
    means = {arm: mean_dice(rows) for arm, rows in metrics.items()}
    names = dict.fromkeys(name for values in means.values() for name in values if name != ALL_CLASSES)
    return [{"class": name, **{arm: means[arm].get(name) for arm in means}} for name in (*names, ALL_CLASSES)]


def dice_text(
    rows: Sequence[Row], key: Sequence[Row], item: Ranking, *, base: str, random: str, clean: str, n_test: int
) -> list[str]:
    """What leaving cases out did to the mean Dice, beside its controls, and what that can be put down to.

    Args:
        rows: of `dice_rows`.
        key: the answer key.
        item: whose dropped cases were left out; its name is that of a training.
        base: the training on all cases.
        random: the training without as many cases, drawn blindly.
        clean: the training without the dirty cases.
        n_test: test cases.
    """
    total = next(row for row in rows if row["class"] == ALL_CLASSES)
    lines = [
        f"{words}: {_change(total[base], total[arm])}"
        for words, arm in (
            (f"without the cases that {item.name} dropped", item.name),
            ("without as many cases drawn blindly (control)", random),
            ("without the dirty cases (answer key: what a perfect score could do)", clean),
        )
    ]
    dirty = {str(row["case"]) for row in key if row["dirty"]}
    found, chance = len(dirty & item.dropped), len(item.dropped) * len(dirty) / len(key)
    if found <= chance:
        # A better Dice must not be read as a find.
        lines.append(
            f"{item.name} dropped {counted(found, 'dirty case')}, blind choice {chance:.1f} on average: whatever its "
            "Dice is, it is not because dirty cases were found."
        )
    lines.append(
        f"One seed, {n_test} test cases, a training of a minute: the same cases trained with another seed scatter by "
        "tenths of Dice (the README has three seeds), so one run proves nothing."
    )
    return lines


def _change(before: Cell, after: Cell) -> str:
    if not isinstance(before, float) or not isinstance(after, float):
        return "mean Dice not defined"
    return f"mean Dice {before:.3f} -> {after:.3f} ({after - before:+.3f})"
