"""Copies of cases with invented faults, and methods of detection whose answer is known."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np

from auvtool.corruption.kinds import KINDS
from auvtool.detection_experiments import contaminated, paired
from auvtool.detection_methods import Item


def kind(of, family, *, null_test=False):
    return replace(KINDS["blur"], of=of, family=family, null_test=null_test)


FACTS = {
    "snow": kind("image", "noise"),
    "rain": kind("image", "noise"),
    "fog": kind("image", "resolution"),
    "gain": kind("image", "null", null_test=True),
    "moved": kind("label", "position"),
    "hollow": kind("label", "topology"),
    "never-used": kind("label", "topology"),
}
USED = ("snow", "rain", "fog", "gain", "moved", "hollow")


def item(case, name=None, *, level="high", severity=None):
    stand_in = SimpleNamespace(foreground_ml=10.0 + case, case_id=f"case_{case}")
    if name is None:
        return Item(stand_in, f"case_{case}")
    return Item(stand_in, f"case_{case}", name, FACTS[name].family, level, severity)


def bench_items(n_cases=20, *, kinds=USED, levels=("low", "high")):
    items = [item(case) for case in range(n_cases)]
    for name in kinds:
        items += [item(case, name, level=level, severity=case / 100) for level in levels for case in range(n_cases)]
    return items


def number(one):
    return int(one.case_id.removeprefix("case_"))


@dataclass
class Told:
    """A method by a function of an item, that remembers what it was asked."""

    of_item: object
    name: str = "told"
    of_data_set: bool = False
    asked: list = field(default_factory=list)

    def values(self, items, *, held_out):
        self.asked.append((list(items), held_out))
        return np.array([self.of_item(one) for one in items], dtype=np.float64)


def perfect(one):
    return float(one.kind is not None)


def by_case(one):
    """Of the clean case alone: a copy has the value of its own case."""
    return float(number(one) * 7 % 20)


def run_contaminated(items, *methods, **options):
    return contaminated(items, methods, kinds=FACTS, resamples=options.pop("resamples", 50), **options)


def run_paired(items, *methods, **options):
    return paired(items, methods, kinds=FACTS, **options)


def only(rows, **wanted):
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def one(rows, **wanted):
    (row,) = only(rows, **wanted)
    return row
