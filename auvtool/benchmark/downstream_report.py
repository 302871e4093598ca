"""What the downstream experiment found, in plain words and in tables to read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from auvtool.benchmark.downstream_plan import (
    ALL,
    CLEAN,
    DUO,
    DUO_BASE,
    DUO_EN,
    DUO_RW,
    ORACLE,
    RANDOM,
    VOLUME,
)
from auvtool.benchmark.downstream_tables import Arm
from auvtool.downstream_statistics import Estimate
from auvtool.schema import ALL_CLASSES, Cell, Row

FEWEST_SEEDS = 3  # below, one sign at all of them is a toss of one or two coins


@dataclass(frozen=True)
class Setting:
    """What a reader of the report has to know of the experiment beside its tables."""

    dataset_name: str
    n_candidates: int
    n_dirty: int
    n_validation: int
    n_test: int
    train_options: str
    device: str
    notes: tuple[str, ...] = ()


def shown_rows(rows: Sequence[Row], summary: Sequence[Row], *, class_name: str = ALL_CLASSES) -> list[Row]:
    """The summary of one class as a person reads it, intervals in brackets."""
    of_arm: dict[Arm, list[Row]] = {}
    for row in rows:
        if row["class_name"] == class_name:
            of_arm.setdefault(_arm(row), []).append(row)
    shown: list[Row] = []
    for row in summary:
        if row["class_name"] != class_name:
            continue
        runs = of_arm[_arm(row)]
        deviation = row["dice_sd"]
        shown.append(
            {
                "arm": row["arm"],
                "ratio": None if row["ratio"] is None else f"{row['ratio']:.3g}",
                "cases": _span(runs, "n_training"),
                "dirty left": _span(runs, "n_dirty_left"),
                "dice": _text(row["dice"], "{:.3f}") + ("" if deviation is None else f" (sd {deviation:.3f})"),
                "against all": _with_interval(row, "difference_all", "{:+.3f}"),
                "against random": _with_interval(row, "difference_random", "{:+.3f}"),
                "recovered": _with_interval(row, "recovered", "{:.2f}"),
            }
        )
    return shown


_WITHOUT_RATIO = {
    CLEAN: "Training on the clean cases alone",
    DUO: "The DUO loss on all cases",
    DUO_RW: "DUO's weights alone (duo-rw) on all cases",
    DUO_EN: "DUO's denoised labels alone (duo-en) on all cases",
    DUO_BASE: "The loss of DUO without weights and without denoising (duo-base) on all cases",
}


def findings(rows: Sequence[Row], summary: Sequence[Row], setting: Setting) -> list[str]:
    """What the mean of the classes shows and does not show, a paragraph an item."""
    whole = {_arm(row): row for row in summary if row["class_name"] == ALL_CLASSES}
    of_seed = {(*_arm(row), row["seed"]): row["dice"] for row in rows if row["class_name"] == ALL_CLASSES}
    dirty = {_arm(row): row for row in rows if row["class_name"] == ALL_CLASSES}
    ratios = list(dict.fromkeys(ratio for _, ratio in whole if ratio is not None))
    lines: list[str] = []
    for arm, what in _WITHOUT_RATIO.items():
        if (arm, None) in whole:
            lines += _compared(whole[arm, None], of_seed, "all", (ALL, None), what=what)
    for ratio in ratios:
        at = f"at ratio {ratio:.3g}"
        base = (RANDOM, ratio)
        if (ORACLE, ratio) in whole and base in whole:
            row = whole[ORACLE, ratio]
            lines += _compared(row, of_seed, "random", base, what=f"Dropping the worst dirty cases (oracle) {at}")
            if not _estimate(row, "difference_random").is_above_zero:
                lines.append(
                    f"So {at} the answer key itself is not shown to beat a blind drop: there is no gain that a score "
                    "could have recovered, and the recovered fraction is left empty."
                )
        for arm in (arm for arm, of in whole if of == ratio and arm not in {RANDOM, ORACLE}):
            what = (
                f"Dropping the smallest cases (volume, a control) {at}" if arm == VOLUME else f"Dropping by {arm} {at}"
            )
            row = whole[arm, ratio]
            lines += _compared(row, of_seed, "random", base, what=what)
            lines += _compared(row, of_seed, "all", (ALL, None), what=what)
            if arm != VOLUME:
                lines += _caution(dirty[arm, ratio], whole, setting)
    n_seeds = int(str(next(iter(whole.values()))["n_seeds"]))
    lines.append(
        f"{_count(n_seeds, 'seed')}, {_count(setting.n_test, 'test case')}, one data set, one kind of network: this "
        "says nothing of others. The intervals draw pairs of seed and test case as if they were independent; cases of "
        "one seed share a training, so they are too narrow for what another seed would do. Only a difference whose "
        "interval leaves 0 out and that has one sign at every one of at least three seeds is called shown here; "
        "several arms are compared, and no correction is made for their number."
    )
    return lines


def report(rows: Sequence[Row], summary: Sequence[Row], setting: Setting) -> str:
    """The text of downstream.md."""
    names = [name for name in dict.fromkeys(str(row["class_name"]) for row in summary) if name != ALL_CLASSES]
    parts = [
        "# Does dropping suspect cases help a training?",
        f"{setting.dataset_name}: {setting.n_candidates} cases to train on, {setting.n_dirty} of them dirty; the same "
        f"{_count(setting.n_validation, 'clean case')} to validate on in every arm, which no arm trains on. Every arm "
        "is trained with the same options and seeds, and judged on the same clean test cases; arms that keep the same "
        "cases share a training.",
        f"`train` options: `{setting.train_options or '(defaults)'}`, device {setting.device}.",
        *setting.notes,
        "## Mean of the classes",
        _markdown_table(shown_rows(rows, summary)),
        "Dice is the mean over seeds and test cases (sd: over seeds). Differences have 95 % bootstrap intervals over "
        "pairs of seed and test case. Recovered is (Dice - random) / (oracle - random): 0 is a blind drop, 1 the "
        "answer key; it is empty where the interval of oracle - random is not above 0.",
        "## What this shows and does not show",
        *(f"- {line}" for line in findings(rows, summary, setting)),
    ]
    for name in names:
        parts += [f"## {name}", _markdown_table(shown_rows(rows, summary, class_name=name))]
    return "\n\n".join(parts).replace("\n\n- ", "\n- ") + "\n"


def _compared(
    row: Row, of_seed: Mapping[tuple[str, float | None, Cell], Cell], rival: str, base: Arm, *, what: str
) -> list[str]:
    """One sentence: the difference, its interval, its sign at each seed, and what that amounts to."""
    column = f"difference_{rival}"
    estimate = _estimate(row, column)
    if estimate.value is None:
        return []
    arm = _arm(row)
    own = [
        (value, of_seed.get((*base, seed))) for (name, ratio, seed), value in of_seed.items() if (name, ratio) == arm
    ]
    changes = [value - other for value, other in own if isinstance(value, float) and isinstance(other, float)]
    above, below = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
    if estimate.is_above_zero and above == len(changes) >= FEWEST_SEEDS:
        verdict = "a gain is shown"
    elif estimate.is_below_zero and below == len(changes) >= FEWEST_SEEDS:
        verdict = "a loss is shown"
    else:
        verdict = "neither a gain nor a loss is shown"
    against = "training on all cases" if rival == ALL else "dropping as many blindly"
    by_seed = f" (by seed {min(changes):+.3f} to {max(changes):+.3f})" if len(changes) > 1 else ""
    return [
        f"{what}, against {against}: Dice {_with_interval(row, column, '{:+.3f}')}{by_seed}, better at {above} of "
        f"{_count(len(changes), 'seed')}: {verdict}."
    ]


def _caution(run: Row, whole: Mapping[Arm, Row], setting: Setting) -> list[str]:
    """A better Dice must not be read as a find, nor a choice by size as a choice by quality."""
    arm, ratio = _arm(run)
    lines = []
    n_dropped = setting.n_candidates - int(str(run["n_training"]))
    found, chance = setting.n_dirty - int(str(run["n_dirty_left"])), n_dropped * setting.n_dirty / setting.n_candidates
    if found <= chance:
        lines.append(
            f"{arm} dropped {found} dirty cases among {n_dropped}, a blind drop {chance:.1f} on average: whatever its "
            "Dice is, it is not because dirty cases were found."
        )
    own, by_volume = whole[arm, ratio]["dice"], whole.get((VOLUME, ratio), {}).get("dice")
    if isinstance(own, float) and isinstance(by_volume, float) and by_volume >= own:
        lines.append(f"Dropping the smallest cases did as well as {arm} or better: {by_volume:.3f} to {own:.3f}.")
    return lines


def _arm(row: Row) -> Arm:
    ratio = row["ratio"]
    return str(row["arm"]), float(ratio) if isinstance(ratio, int | float) else None


def _estimate(row: Row, column: str) -> Estimate:
    value, low, high = (row[name] for name in (column, f"{column}_low", f"{column}_high"))
    return Estimate(*(item if isinstance(item, float) else None for item in (value, low, high)))


def _with_interval(row: Row, column: str, form: str) -> str | None:
    estimate = _estimate(row, column)
    if estimate.value is None:
        return None
    if estimate.low is None or estimate.high is None:
        return form.format(estimate.value)
    return f"{form} [{form}, {form}]".format(estimate.value, estimate.low, estimate.high)


def _span(runs: Sequence[Row], column: str) -> str:
    """The number, or the smallest and largest over the seeds."""
    values = [int(str(row[column])) for row in runs]
    return str(values[0]) if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _text(value: object, form: str) -> str:
    return form.format(value) if isinstance(value, float) else "-"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _markdown_table(rows: Sequence[Row]) -> str:
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join("-" if value is None else str(value) for value in row.values()) + " |" for row in rows]
    return "\n".join(lines)
