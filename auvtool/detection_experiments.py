"""Does a score find faults that were put in on purpose: case against own copy, and dirty cases among clean ones.

The clean cases are all of one data set. A copy is one of them with one fault of a kind and level. A score that is
trained may not have seen the faults that it is judged by: of one kind, none of its family; of mixed kinds, none of the
half of all families that the draw takes its faults from.
"""

import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Bool, Float, Integer

from auvtool.contamination import ContaminationDraw, draw_contaminations, halves
from auvtool.correlation import Interval, mean_ranks
from auvtool.corruption.kinds import KINDS, CorruptionKind
from auvtool.detection import (
    auroc,
    average_precision,
    case_resamples,
    pair_wins,
    paired_win_rate,
    percentile_interval,
    precision_at_k,
    resampled_auroc,
    severity_spearman,
)
from auvtool.detection_methods import Item, Method
from auvtool.schema import Row

Kinds: TypeAlias = Mapping[str, CorruptionKind]
KindGroup: TypeAlias = Literal["image", "label", "all"]

SHARES = (0.05, 0.1, 0.2)
MIXED = "mixed"


class _Bench:
    """Items by what they are: the clean ones first, then the copies of each kind and level."""

    def __init__(self, items: Sequence[Item], methods: Sequence[Method], kinds: Kinds) -> None:
        self.items = sorted(items, key=lambda item: item.kind is not None)  # stable
        self.methods = tuple(methods)
        self.kinds = kinds
        case_ids = [item.case_id for item in self.items if item.kind is None]
        self.n_cases = len(case_ids)
        case_of = {case_id: case for case, case_id in enumerate(case_ids)}
        if len(case_of) < len(case_ids) or len({method.name for method in methods}) < len(methods):
            raise ValueError("expected each clean case and each method once, got one twice")
        self.copies: dict[tuple[str, str], dict[int, int]] = {}
        for position, item in enumerate(self.items[self.n_cases :], start=self.n_cases):
            if item.kind not in kinds or item.family is None or item.level is None or item.case_id not in case_of:
                raise ValueError(f"expected a kind, family, level and clean case of {item.case_id}, got {item.kind}")
            of_cases = self.copies.setdefault((str(item.kind), item.level), {})
            if of_cases.setdefault(case_of[item.case_id], position) != position:
                raise ValueError(f"expected one copy of {item.case_id} with {item.kind} ({item.level}), got two")
        self.family_of = {str(item.kind): str(item.family) for item in self.items[self.n_cases :]}
        self.levels = tuple(dict.fromkeys(level for _, level in self.copies))
        volume_ml = np.array([item.features.foreground_ml for item in self.items[: self.n_cases]], dtype=np.float64)
        self.log_volume = np.log(np.where(volume_ml > 0, volume_ml, np.nan))
        self._known: dict[tuple[str, frozenset[str]], Float[np.ndarray, " item"]] = {}

    def conditions(self) -> Iterator[tuple[str, str]]:
        """Kind and level of all copies, the levels of a kind together."""
        for kind in dict.fromkeys(kind for kind, _ in self.copies):
            yield from ((kind, level) for level in self.levels if (kind, level) in self.copies)

    def held_out(self, families: Sequence[str]) -> frozenset[str]:
        """All kinds of some families, also those that no copy has."""
        known = {name: facts.family for name, facts in self.kinds.items()} | self.family_of
        return frozenset(kind for kind, family in known.items() if family in families)

    def values(self, method: Method, data_sets: np.ndarray, held_out: frozenset[str]) -> Float[np.ndarray, "draw case"]:
        """Values of the items at some positions, each row a data set."""
        if method.of_data_set:
            return np.stack([self._checked(method, data_set, held_out) for data_set in data_sets])
        key = method.name, held_out
        if key not in self._known:
            # The clean cases, and all copies that are ever judged with these kinds held out.
            needed = [i for i, item in enumerate(self.items) if item.kind is None or item.kind in held_out]
            known = np.full(len(self.items), np.nan)
            known[needed] = self._checked(method, needed, held_out)
            self._known[key] = known
        return np.asarray(self._known[key][data_sets])

    def _checked(self, method: Method, positions: Sequence[int], held_out: frozenset[str]) -> np.ndarray:
        values = np.asarray(method.values([self.items[i] for i in positions], held_out=held_out), dtype=np.float64)
        if values.shape != (len(positions),) or np.isinf(values).any():
            raise ValueError(f"expected {len(positions)} finite values or nan of {method.name}, got {values}")
        return values

    def severity(self, position: int) -> float:
        """High = worse; nan where unknown. PSNR, that of image faults, falls as a fault grows."""
        item = self.items[position]
        if item.kind is None or item.severity is None:
            return np.nan
        return -item.severity if self.kinds[item.kind].of == "image" else item.severity


def _generator(seed: int, *words: object) -> np.random.Generator:
    """Of a condition, whichever others are measured beside it."""
    return np.random.default_rng([seed, zlib.crc32(" ".join(map(str, words)).encode())])


def paired(
    items: Sequence[Item], methods: Sequence[Method], *, n_groups: int = 10, seed: int = 0, kinds: Kinds = KINDS
) -> list[Row]:
    """DETECTION_PAIRED rows: each copy against its own clean case, by kind, level and method.

    Where a value depends on the data set, that of a clean case is from the clean data set, and that of a copy from one
    in which the copies of a tenth of the cases stand in the place of these (`n_groups` data sets, each case once).

    Raises:
        ValueError: an item or a value is not as described.
    """
    bench = _Bench(items, methods, kinds)
    everywhere = np.arange(bench.n_cases)
    clean_known: dict[tuple[str, frozenset[str]], Float[np.ndarray, " case"]] = {}
    rows: list[Row] = []
    for kind, level in bench.conditions():
        copy_of = bench.copies[kind, level]
        cases = np.array(sorted(copy_of))
        held_out = bench.held_out([bench.family_of[kind]])
        severities = np.array([bench.items[copy_of[case]].severity for case in cases], dtype=np.float64)
        known = severities[~np.isnan(severities)]
        shuffled = _generator(seed, kind, level).permutation(cases)
        groups = [group for group in np.array_split(shuffled, n_groups) if group.size]
        data_sets = np.tile(everywhere, (len(groups), 1))
        for data_set, group in zip(data_sets, groups, strict=True):
            data_set[group] = [copy_of[case] for case in group]
        for method in bench.methods:
            key = method.name, held_out
            if key not in clean_known:
                clean_known[key] = bench.values(method, everywhere[None], held_out)[0]
            copies = np.full(bench.n_cases, np.nan)
            for found, group in zip(bench.values(method, data_sets, held_out), groups, strict=True):
                copies[group] = found[group]
            wins = paired_win_rate(copies[cases], clean_known[key][cases])
            rows.append(
                {
                    "kind": kind,
                    "of": kinds[kind].of,
                    "family": bench.family_of[kind],
                    "level": level,
                    "method": method.name,
                    "n": wins.n,
                    "n_without_value": wins.n_without_value,
                    "severity": float(np.median(known)) if known.size else None,
                    "win_rate": wins.rate,
                    **_bounds("win_rate", wins.interval),
                    "median_change": wins.median_change,
                }
            )
    return rows


@dataclass(frozen=True)
class Contaminated:
    """DETECTION rows, and of each its AUROC in resamples of the cases, the same resamples for all."""

    rows: tuple[Row, ...]
    resampled: Float[np.ndarray, "row resample"] = field(repr=False)


@dataclass(frozen=True)
class _Draws:
    """Data sets with equally many dirty cases, and the kinds that a trained method must not have seen."""

    draws: tuple[ContaminationDraw, ...]
    held_out: frozenset[str]

    @cached_property
    def data_sets(self) -> Integer[np.ndarray, "draw case"]:
        return np.array([draw.positions() for draw in self.draws])

    @cached_property
    def dirty(self) -> Integer[np.ndarray, "draw dirty"]:
        return np.array([sorted(draw.dirty) for draw in self.draws])

    @cached_property
    def clean(self) -> Integer[np.ndarray, "draw clean"]:
        return np.array([draw.clean for draw in self.draws])


def contaminated(
    items: Sequence[Item],
    methods: Sequence[Method],
    *,
    draws: int = 20,
    shares: Sequence[float] = SHARES,
    data_set_shares: Sequence[float] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    kinds: Kinds = KINDS,
) -> Contaminated:
    """DETECTION rows: dirty cases among clean ones, by kind (last "mixed"), level, share dirty and method.

    A mixed draw gives each dirty case a blindly chosen fault of one level; null tests are not among them. Its kinds are
    of one half of the families, in the order of the items: draws alternate between the halves.

    Args:
        items: clean cases and copies.
        methods: with names of their own.
        draws: data sets of a condition, each with other dirty cases, the same for all methods.
        shares: of cases that are dirty.
        data_set_shares: those of `shares` that a method is measured at whose values depend on the data set, since it
            must be computed anew in each draw; None: all.
        resamples: of the bootstrap over cases.
        seed: of draws and resamples. A condition is drawn alike whichever others are measured beside it.
        kinds: facts of the kinds.

    Raises:
        ValueError: an item or a value is not as described.
    """
    bench = _Bench(items, methods, kinds)
    counts = case_resamples(bench.n_cases, resamples=resamples, seed=seed) if bench.n_cases else np.empty((0, 0))
    rows: list[Row] = []
    resampled: list[Float[np.ndarray, " resample"]] = []
    for kind, level in [*bench.conditions(), *((MIXED, level) for level in bench.levels)]:
        for share in shares:
            found = _draws(bench, kind, level, share=share, n_draws=draws, seed=seed)
            for method in bench.methods if found else ():
                if method.of_data_set and data_set_shares is not None and share not in data_set_shares:
                    continue
                numbers, of_resamples = _measure(bench, method, found, counts)
                facts = {"kind": kind, "of": kinds[kind].of if kind in kinds else None}
                facts |= {"family": bench.family_of.get(kind), "level": level}
                rows.append({**facts, "share": share, "method": method.name, **numbers})
                resampled.append(of_resamples)
    return Contaminated(tuple(rows), np.array(resampled).reshape(len(rows), len(counts)))


def _draws(bench: _Bench, kind: str, level: str, *, share: float, n_draws: int, seed: int) -> list[_Draws]:
    if kind == MIXED:
        real = [name for name in bench.family_of if not bench.kinds[name].null_test]
        parts = halves(bench.family_of[name] for name in real)
    else:
        real, parts = [kind], ((bench.family_of[kind],),)
    copies_of_parts = []
    for families in parts:
        copies: dict[int, list[int]] = {}
        for name in real:
            if bench.family_of[name] in families:
                for case, position in bench.copies.get((name, level), {}).items():
                    copies.setdefault(case, []).append(position)
        if copies:
            copies_of_parts.append((families, copies))
    found = []
    for number, (families, copies) in enumerate(copies_of_parts):
        n_here = len(range(number, n_draws, len(copies_of_parts)))
        generator = _generator(seed, kind, level, share, number)
        drawn = draw_contaminations(copies, n_cases=bench.n_cases, share=share, n_draws=n_here, generator=generator)
        if drawn:
            found.append(_Draws(drawn, bench.held_out(families)))
    return found


def _measure(
    bench: _Bench, method: Method, batches: Sequence[_Draws], counts: Float[np.ndarray, "resample case"]
) -> tuple[Row, Float[np.ndarray, " resample"]]:
    """Of one method in one condition: the numbers of its row, and its AUROC in each resample."""
    n = bench.n_cases
    wins, pairs = np.zeros(n * n), np.zeros(n * n)
    sums, seen = np.zeros(len(bench.items)), np.zeros(len(bench.items))  # of each copy where it was dirty
    measured: list[Float[np.ndarray, "draw 4"]] = []
    for batch in batches:
        dirty, clean, data_sets = batch.dirty, batch.clean, batch.data_sets
        values = bench.values(method, data_sets, batch.held_out)
        is_dirty = data_sets >= n
        of_dirty, of_clean = (np.take_along_axis(values, cases, axis=1) for cases in (dirty, clean))
        areas = auroc(of_dirty, of_clean)
        measures = (areas, average_precision(values, is_dirty), precision_at_k(values, is_dirty))
        measured.append(np.stack([*measures, np.isnan(values).sum(axis=1)], axis=1))
        defined = ~np.isnan(areas)
        cells = (dirty[:, :, None] * n + clean[:, None, :])[defined].ravel()
        wins += np.bincount(cells, pair_wins(of_dirty, of_clean)[defined].ravel(), minlength=n * n)
        pairs += np.bincount(cells, minlength=n * n)
        valued = is_dirty & ~np.isnan(values)
        sums += np.bincount(data_sets[valued], values[valued], minlength=len(sums))
        seen += np.bincount(data_sets[valued], minlength=len(seen))
    areas, precisions, at_k, without = np.concatenate(measured).T
    of_resamples = resampled_auroc(wins.reshape(n, n), pairs.reshape(n, n), counts)
    defined = ~np.isnan(areas)
    n_dirty = float(np.mean([len(draw.dirty) for batch in batches for draw in batch.draws]))
    spread = np.quantile(areas[defined], [0.025, 0.975]) if defined.any() else (np.nan, np.nan)
    row: Row = {
        "n_draws": int(defined.sum()),
        "n_dirty": n_dirty,
        "n_clean": n - n_dirty,
        "share_dirty": n_dirty / n,
        "n_without_value": float(without.mean()),
        "auroc": _mean(areas, defined),
        "auroc_draws_low": float(spread[0]) if defined.any() else None,
        "auroc_draws_high": float(spread[1]) if defined.any() else None,
        **_bounds("auroc", percentile_interval(of_resamples) if defined.any() else None),
        "average_precision": _mean(precisions, defined),
        "precision_at_k": _mean(at_k, defined),
        "severity_spearman": _severity(bench, batches, np.divide(sums, seen, where=seen > 0, out=sums * np.nan)),
    }
    return row, of_resamples


def _severity(bench: _Bench, batches: Sequence[_Draws], values: Float[np.ndarray, " item"]) -> float | None:
    """Over all copies that were dirty in a draw, each with its mean value; None where two scales of severity mix."""
    case_of = {position: case for batch in batches for draw in batch.draws for case, position in draw.dirty.items()}
    graded = [position for position in sorted(case_of) if not np.isnan(bench.severity(position))]
    if len({bench.kinds[str(bench.items[position].kind)].of for position in graded}) != 1:
        return None
    severity = mean_ranks(np.array([bench.severity(position) for position in graded]))  # PSNR may be infinite
    return severity_spearman(values[graded], severity, bench.log_volume[[case_of[position] for position in graded]])


def _mean(values: Float[np.ndarray, " draw"], defined: Bool[np.ndarray, " draw"]) -> float | None:
    return float(values[defined].mean()) if defined.any() else None


def _bounds(name: str, interval: Interval | None) -> Row:
    return {
        f"{name}_low": None if interval is None else interval.low,
        f"{name}_high": None if interval is None else interval.high,
    }


def summary(found: Contaminated, *, kinds: Kinds = KINDS) -> list[Row]:
    """DETECTION_SUMMARY rows: by share, level and method the mean AUROC over image kinds, label kinds and all.

    Null tests and mixed faults are not in the means. The raw mean is that of max(AUROC, 1 - AUROC), what a score would
    have if each fault's sign were known: blindness lifts it above 0.5, so read it beside that of "random". Intervals
    are over resampled cases; kinds are what they are.
    """
    groups: dict[tuple[float, str, str], list[int]] = {}
    for index, row in enumerate(found.rows):
        key = float(str(row["share"])), str(row["level"]), str(row["method"])
        of_group = groups.setdefault(key, [])
        if row["kind"] in kinds and not kinds[str(row["kind"])].null_test and row["auroc"] is not None:
            of_group.append(index)
    rows: list[Row] = []
    names: tuple[KindGroup, ...] = get_args(KindGroup)
    for (share, level, method), indices in groups.items():
        for name in names:
            chosen = [i for i in indices if name in {"all", kinds[str(found.rows[i]["kind"])].of}]
            areas = np.array([found.rows[i]["auroc"] for i in chosen], dtype=np.float64)
            resampled = found.resampled[chosen]
            rows.append(
                {
                    "method": method,
                    "level": level,
                    "share": share,
                    "kinds": name,
                    "n_kinds": len(chosen),
                    **_mean_of_kinds("auroc", areas, resampled),
                    **_mean_of_kinds("raw", np.maximum(areas, 1.0 - areas), np.maximum(resampled, 1.0 - resampled)),
                    "n_below_half": int((areas < 0.5).sum()),
                }
            )
    return rows


def _mean_of_kinds(name: str, areas: Float[np.ndarray, " kind"], resampled: Float[np.ndarray, "kind resample"]) -> Row:
    if not areas.size:
        return {name: None, **_bounds(name, None)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a resample without a copy of any kind has no mean
        of_resamples = np.nanmean(resampled, axis=0)  # a kind of few copies may have none in a resample
    return {name: float(areas.mean()), **_bounds(name, percentile_interval(of_resamples))}
