"""What finds which fault, as Markdown: means over kinds of fault, then each kind at one level."""

from collections.abc import Iterable, Sequence

from auvtool.schema import Cell, Row

FOUND = 0.8  # from here on a fault counts as found: printed bold
_GROUPS = ("all", "image", "label")


def detection_report(summary: Sequence[Row], detection: Sequence[Row], *, level: str, share: float) -> str:
    """Markdown: the means of each level, and below them the kinds at one level, both at one share of dirty cases.

    Methods stand in the order of their mean over all kinds at that level, the best first.

    Args:
        summary: DETECTION_SUMMARY rows.
        detection: DETECTION rows.
        level: of the table of kinds.
        share: of both.

    Raises:
        ValueError: there is no DETECTION row of that level and share.
    """
    chosen = [row for row in detection if row["level"] == level and row["share"] == share]
    if not chosen:
        raise ValueError(f"expected rows of level {level} and share {share:g}, got none")
    means = [row for row in summary if row["share"] == share]
    levels = list(dict.fromkeys(str(row["level"]) for row in means))
    methods = ranked_methods([row for row in means if row["level"] == level], chosen)
    dirty, clean = (max(float(str(row[name])) for row in chosen) for name in ("n_dirty", "n_clean"))
    blocks = [
        f"AUROC: the probability that a dirty case is more suspect than a clean one, with {share:.0%} of the cases "
        f"dirty (at most {dirty:g} beside {clean:g} clean ones), mean over the draws of which they are. 1: all dirty "
        f"cases ahead; 0.5: blind; below 0.5 (in italics) dirty cases look cleaner; {FOUND:g} and more is bold. In "
        "brackets 95 % bootstrap intervals over cases. A case without a value counts half.",
        *(_summary_block([row for row in means if row["level"] == one], one, methods) for one in levels),
        _kinds_block(chosen, level, methods),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def ranked_methods(summary: Sequence[Row], detection: Sequence[Row]) -> list[str]:
    """Methods of some DETECTION rows, the best mean over all kinds in their SUMMARY rows first; ties as they come."""
    mean_of = {str(row["method"]): row["auroc"] for row in summary if row["kinds"] == "all"}

    def shortfall(method: str) -> float:
        mean = mean_of.get(method)
        return -float(mean) if isinstance(mean, float) else 1.0

    return sorted(dict.fromkeys(str(row["method"]) for row in detection), key=shortfall)


def areas_of(detection: Sequence[Row]) -> dict[tuple[str, str], float | None]:
    """AUROC by kind and method of DETECTION rows of one level and share."""
    return {
        (str(row["kind"]), str(row["method"])): float(row["auroc"]) if isinstance(row["auroc"], float) else None
        for row in detection
    }


def _summary_block(rows: Sequence[Row], level: str, methods: Sequence[str]) -> str:
    of_method = {(str(row["method"]), str(row["kinds"])): row for row in rows}
    n_kinds = {
        group: max((int(str(row["n_kinds"])) for row in rows if row["kinds"] == group), default=0) for group in _GROUPS
    }
    lines = []
    for method in methods:
        groups = [of_method.get((method, group), {}) for group in _GROUPS]
        overall = groups[0]
        fewer = overall and overall["n_kinds"] != n_kinds["all"]
        below = f"{overall['n_below_half']} of {overall['n_kinds']}" + " (!)" * bool(fewer) if overall else "-"
        lines.append([_plain(method), *map(_with_interval, groups), _with_interval(overall, "raw"), below])
    header = ["method", *(f"{group} kinds ({n_kinds[group]})" for group in _GROUPS), "sign known", "below 0.5"]
    return (
        f"### Level {level}: mean over kinds\n\n{_table(header, lines)}\n\n"
        "Null tests are in no mean. *Sign known* is the mean of max(AUROC, 1 - AUROC), which is above 0.5 for a blind "
        "method too. (!): not all kinds are in the mean, which then does not compare with others."
    )


def _kinds_block(rows: Sequence[Row], level: str, methods: Sequence[str]) -> str:
    areas = areas_of(rows)
    kinds = dict.fromkeys(str(row["kind"]) for row in rows)
    of = {str(row["kind"]): str(row["of"] or "-") for row in rows}
    lines = [
        [_plain(kind), of[kind], *(_emphasised(areas.get((kind, method))) for method in methods)] for kind in kinds
    ]
    return f"### Level {level}: each kind\n\n{_table(['kind', 'of', *map(_plain, methods)], lines)}"


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---"] * len(header)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *lines))


def _with_interval(row: Row, name: str = "auroc") -> str:
    value, low, high = (row.get(f"{name}{end}") for end in ("", "_low", "_high"))
    if not isinstance(value, float):
        return "-"
    interval = f" [{_digits(low)}, {_digits(high)}]" if low is not None and high is not None else ""
    return f"{_emphasised(value)}{interval}"


def _emphasised(value: Cell) -> str:
    """By the digits that are printed, so that no .80 stands beside a bold one."""
    if not isinstance(value, float):
        return "-"
    digits = _digits(value)
    if float(digits) >= FOUND:
        return f"**{digits}**"
    return f"*{digits}*" if value < 0.5 else digits


def _digits(value: Cell) -> str:
    return f"{float(str(value)):.2f}"


def _plain(name: str) -> str:
    """A name that a Markdown table shows as it is."""
    return "".join(f"\\{letter}" if letter in "|*_`<[\\" else letter for letter in " ".join(name.split()))
