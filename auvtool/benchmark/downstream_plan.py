"""Which cases each arm of the downstream experiment trains on, by the answer key, scores and chance."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from auvtool import keep_list
from auvtool.errors import InputError, UsageError
from auvtool.filtering import filter_cases
from auvtool.schema import Row
from auvtool.training.loss_options import Part, parts_of

ALL = "all"  # every case
RANDOM = "random"  # as many cases dropped blindly as the filter drops
VOLUME = "volume"  # the smallest cases dropped
ORACLE = "oracle"  # the worst dirty cases dropped, by the answer key
CLEAN = "clean"  # every dirty case dropped, and no other
DUO = "duo"  # every case, with the DUO loss
# Its ablations (Table 6): weights alone, denoised labels alone, and neither, which is the loss that both change.
DUO_RW, DUO_EN, DUO_BASE = "duo-rw", "duo-en", "duo-base"
ABLATIONS = (DUO_RW, DUO_EN, DUO_BASE)
FIXED_ARMS = (ALL, RANDOM, VOLUME, ORACLE, CLEAN, DUO, *ABLATIONS)
WITHOUT_RATIO = (ALL, CLEAN, DUO, *ABLATIONS)

Loss: TypeAlias = Literal["plain", "duo", "duo-rw", "duo-en", "duo-base"]
# As `train` takes them.
LOSS_OPTIONS: Mapping[Loss, tuple[str, ...]] = {
    "plain": ("--loss", "plain"),
    "duo": ("--loss", "duo"),
    "duo-rw": ("--loss", "duo", "--no-denoise"),
    "duo-en": ("--loss", "duo", "--no-reweight"),
    "duo-base": ("--loss", "classwise"),
}
LOSS_PARTS: Mapping[Loss, frozenset[Part]] = {
    "plain": parts_of("plain", reweight=True, denoise=True),
    "duo": parts_of("duo", reweight=True, denoise=True),
    "duo-rw": parts_of("duo", reweight=True, denoise=False),
    "duo-en": parts_of("duo", reweight=False, denoise=True),
    "duo-base": parts_of("classwise", reweight=True, denoise=True),
}
_LOSS_OF_ARM: Mapping[str, Loss] = {DUO: "duo", DUO_RW: "duo-rw", DUO_EN: "duo-en", DUO_BASE: "duo-base"}


@dataclass(frozen=True)
class Candidates:
    """The cases that may be trained on: all of the data set but the validation cases.

    Attributes:
        case_ids: sorted.
        severity: the dirty ones among them, the worst first (`worst_first`).
        scores: SCORES rows by the name of their table.
    """

    case_ids: tuple[str, ...]
    severity: tuple[str, ...]
    scores: Mapping[str, Sequence[Row]]

    @property
    def share_clean(self) -> float:
        """The largest ratio at which the filter drops as many cases as are dirty."""
        n = len(self.case_ids)
        ratio = (n - len(self.severity)) / n
        while n_dropped(n, ratio) < len(self.severity):  # 7 / 25 * 25 is above 7 in floating point
            ratio = math.nextafter(ratio, 0.0)
        return ratio

    def arms(self) -> tuple[str, ...]:
        """Every arm that there can be, in the order of the tables."""
        return (ALL, RANDOM, *self.scores, VOLUME, ORACLE, CLEAN, DUO, *ABLATIONS)

    def usual_arms(self) -> tuple[str, ...]:
        """Those that are run where none is named: without the ablations of DUO."""
        return tuple(arm for arm in self.arms() if arm not in ABLATIONS)


@dataclass(frozen=True)
class Training:
    """One training; arms that keep the same cases at one seed share it.

    Attributes:
        name: of its files.
        kept: the cases it trains on, sorted.
        loss: a key of LOSS_OPTIONS.
        seed: of weights, batches and augmentation.
    """

    name: str
    kept: tuple[str, ...]
    loss: Loss
    seed: int


@dataclass(frozen=True)
class Run:
    """An arm at a ratio (None: it has none) and a seed, and the training that stands for it."""

    arm: str
    ratio: float | None
    seed: int
    training: Training
    n_dirty_left: int


@dataclass(frozen=True)
class Plan:
    """What is trained.

    Attributes:
        runs: arms in the order asked for, then ratios, then seeds.
        n_candidates: cases that may be trained on.
        n_dirty: dirty ones among them.
        notes: what a reader of the result should know: filters that drop another number than asked for.
    """

    runs: tuple[Run, ...]
    n_candidates: int
    n_dirty: int
    notes: tuple[str, ...] = ()

    @property
    def trainings(self) -> tuple[Training, ...]:
        """Each once, in the order of the runs."""
        return tuple(dict.fromkeys(run.training for run in self.runs))


def worst_first(key: Sequence[Row]) -> list[str]:
    """The dirty cases of an ANSWER_KEY table by severity: lowest label Dice, then lowest PSNR of the image, then id.

    A missing value means that the fault is not of that kind: the label is the clean one (Dice 1), or the image is.

    Raises:
        InputError: a case stands twice.
    """
    seen: set[str] = set()
    for row in key:
        if (case_id := str(row["case"])) in seen:
            raise InputError(
                f"the answer key: {case_id}", expected="one row", found="two", cure="give the key of one data set"
            )
        seen.add(case_id)

    def severity(row: Row) -> tuple[float, float, str]:
        dice, psnr = _number(row["dice"]), _number(row.get("psnr"))
        return (1.0 if dice is None else dice, math.inf if psnr is None else psnr, str(row["case"]))

    return [str(row["case"]) for row in sorted((row for row in key if row["dirty"]), key=severity)]


def n_dropped(n_cases: int, ratio: float) -> int:
    """Cases that the filter (eq. 8) drops at a quantile when all are judged and no two AUVs are equal."""
    return int((~filter_cases(np.arange(n_cases, dtype=np.float64), ratio)).sum())


def score_drop(rows: Sequence[Row], case_ids: Sequence[str], ratio: float) -> frozenset[str]:
    """What `filter --quantile` drops of these cases; one without a row or an AUV is kept."""
    among = set(case_ids)
    judged = keep_list.judge([row for row in rows if row["case"] in among], ratio)
    return frozenset(str(row["case"]) for row in judged if not row["keep"])


def random_drop(case_ids: Sequence[str], number: int, *, seed: int) -> frozenset[str]:
    """`number` cases drawn blindly; at one seed, the draws of larger numbers hold those of smaller ones."""
    order = np.random.default_rng([seed, 0]).permutation(len(case_ids))
    return frozenset(case_ids[place] for place in order[:number])


def oracle_drop(candidates: Candidates, number: int, *, seed: int) -> frozenset[str]:
    """`number` cases, the worst dirty ones first; when there are no more of them, clean ones drawn blindly."""
    dirty = candidates.severity[:number]
    clean = [case_id for case_id in candidates.case_ids if case_id not in set(candidates.severity)]
    return frozenset(dirty) | random_drop(clean, number - len(dirty), seed=seed)


def volume_drop(rows: Sequence[Row], case_ids: Sequence[str], number: int) -> frozenset[str]:
    """The `number` smallest cases by `volume_ml` of the whole case, equal ones by id; a case without one is kept.

    Raises:
        InputError: fewer cases than that have a volume.
    """
    among = set(case_ids)
    volumes = [
        (volume, str(row["case"]))
        for row in rows
        if row["class_id"] is None and row["case"] in among and (volume := _number(row.get("volume_ml"))) is not None
    ]
    if len(volumes) < number:
        raise InputError(
            "arm volume",
            expected=f"volume_ml of at least {number} whole cases in the first --scores",
            found=len(volumes),
            cure="score with a table that has it, or leave the arm out with --arms",
        )
    return frozenset(case_id for _, case_id in sorted(volumes)[:number])


def make_plan(candidates: Candidates, *, arms: Sequence[str], ratios: Sequence[float], seeds: Sequence[int]) -> Plan:
    """The runs of the experiment.

    Every control drops as many cases at a ratio as the first table's filter does there.

    Raises:
        UsageError: an arm that there cannot be.
        InputError: an arm would leave no case, or a class without one; see also `volume_drop`.
    """
    unknown = [arm for arm in arms if arm not in candidates.arms()]
    if unknown:
        raise UsageError(
            f"--arms: expected arms among {', '.join(candidates.arms())}, got {', '.join(unknown)}; correct them"
        )
    first = next(iter(candidates.scores.values()))
    notes: list[str] = []
    numbers: dict[float | None, int] = {None: 0}
    for share in ratios:
        numbers[share] = len(score_drop(first, candidates.case_ids, share))
        notes += _filter_notes(candidates, share, numbers[share])
    presence = keep_list.class_presence(first)
    trainings: dict[tuple[tuple[str, ...], Loss, int], Training] = {}
    runs: list[Run] = []
    for arm in arms:
        of_arm: Sequence[float | None] = [None] if arm in WITHOUT_RATIO else ratios
        for ratio in of_arm:
            for seed in seeds:
                dropped = _dropped(candidates, arm, ratio, number=numbers[ratio], seed=seed)
                kept = tuple(case_id for case_id in candidates.case_ids if case_id not in dropped)
                where = f"arm {arm}" + ("" if ratio is None else f" at ratio {ratio:g}")
                _check_kept(where, kept, candidates.case_ids, presence)
                loss = _LOSS_OF_ARM.get(arm, "plain")
                name = f"{arm}{'' if ratio is None else f'_{ratio:g}'}_seed{seed}"
                training = trainings.setdefault((kept, loss, seed), Training(name, kept, loss, seed))
                runs.append(Run(arm, ratio, seed, training, len(set(candidates.severity) & set(kept))))
    return Plan(tuple(runs), len(candidates.case_ids), len(candidates.severity), tuple(notes))


def _dropped(candidates: Candidates, arm: str, ratio: float | None, *, number: int, seed: int) -> frozenset[str]:
    first = next(iter(candidates.scores.values()))
    if arm == CLEAN:
        return frozenset(candidates.severity)
    if ratio is None:
        return frozenset()
    rules: dict[str, Callable[[], frozenset[str]]] = {
        RANDOM: lambda: random_drop(candidates.case_ids, number, seed=seed),
        VOLUME: lambda: volume_drop(first, candidates.case_ids, number),
        ORACLE: lambda: oracle_drop(candidates, number, seed=seed),
    }
    if arm in rules:
        return rules[arm]()
    return score_drop(candidates.scores[arm], candidates.case_ids, ratio)


def _filter_notes(candidates: Candidates, ratio: float, number: int) -> list[str]:
    nominal = n_dropped(len(candidates.case_ids), ratio)
    first, *others = candidates.scores
    notes = []
    if number == 0:
        notes.append(f"ratio {ratio:g} drops no case of {len(candidates.case_ids)} by {first}: its arms are `all`")
    elif number != nominal:
        notes.append(
            f"at ratio {ratio:g} {first} drops {number} cases and not {nominal} (equal AUVs, or cases without one); "
            "the controls drop as many as it does"
        )
    for name in others:
        own = len(score_drop(candidates.scores[name], candidates.case_ids, ratio))
        if own != number:
            notes.append(
                f"at ratio {ratio:g} {name} drops {own} cases, {first} and the controls {number} (equal AUVs, or cases "
                "without one): the arm does not compare quite fairly"
            )
    return notes


def _check_kept(
    where: str, kept: Sequence[str], candidates: Sequence[str], presence: Mapping[str, frozenset[str]]
) -> None:
    before, after = frozenset(candidates), frozenset(kept)
    lost = [name for name, holders in presence.items() if holders & before and not holders & after]
    if lost or not kept:
        raise InputError(
            where,
            expected="a training case left for every class",
            found=f"none for {', '.join(lost) or 'any'}",
            cure="use larger --ratios, or leave the arm out with --arms",
        )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
