"""Keep list: made from scores, and read back as a table or as plain ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from auvtool.errors import InputError, UsageError
from auvtool.filtering import Combination, auv_threshold, filter_by_class, filter_cases
from auvtool.schema import ALL_CLASSES, KEEP_LIST, Row
from auvtool.tables import STANDARD_STREAM, parse_table, read_content


@dataclass(frozen=True)
class KeepList:
    """Which cases to train on.

    `dropped` is None where only the kept ids were given; then every case that is not named is dropped. With a table, a
    case that it does not name was not judged, and is kept.
    """

    kept: frozenset[str]
    dropped: frozenset[str] | None

    def keeps(self, case_id: str) -> bool:
        return case_id in self.kept if self.dropped is None else case_id not in self.dropped


@dataclass(frozen=True)
class ClassLoss:
    """What a filter takes from one class.

    Attributes:
        class_name: 'all' stands for whole cases.
        n_kept: cases that hold it and stay; n_dropped those that go.
        median_ml_kept: their median volume in ml; None where it is not known.
        median_ml_dropped: the same of those that go.
        tertiles: for the smallest, middle and largest third of the cases that hold it, by its volume: (dropped, all).
            Cases of equal volume are in one third. Empty where a volume is not known.
    """

    class_name: str
    n_kept: int
    n_dropped: int
    median_ml_kept: float | None
    median_ml_dropped: float | None
    tertiles: tuple[tuple[int, int], ...] = ()


def read_keep_list(path: Path) -> KeepList:
    """The keep list in `path` ('-': standard input): a KEEP_LIST table of any format, or kept ids one a line.

    Raises:
        InputError: it cannot be read, a case is named twice, or no case is kept.
    """
    where = "standard input" if path == STANDARD_STREAM else str(path)
    content = read_content(path)
    if _is_table(content):
        rows = parse_table(content, KEEP_LIST, where)
        ids = [str(row["case"]) for row in rows]
        kept = frozenset(str(row["case"]) for row in rows if row["keep"])
        dropped = frozenset(ids) - kept
    else:
        ids = _plain_ids(content, where)
        kept, dropped = frozenset(ids), None
    twice = sorted({case_id for case_id in ids if ids.count(case_id) > 1}) if len(set(ids)) < len(ids) else []
    if twice:
        raise InputError(where, expected="every case once", found=f"{twice[0]} twice", cure="correct the keep list")
    if not kept:
        raise InputError(
            where, expected="at least one case to keep", found="none", cure="filter with a larger --quantile"
        )
    return KeepList(kept, dropped)


def plain_ids(case_ids: Sequence[str]) -> str:
    """Ids one a line, which `read_keep_list` takes as well.

    Raises:
        InputError: an id would not come back from there: a comma, a leading #, a line feed, a space at an end; or at
            the beginning of the list what begins a table.
    """
    lost = [case_id for case_id in case_ids if _plain_or_none(case_id) != [case_id]]
    if not lost and _is_table("\n".join(case_ids).encode("utf-8")):
        lost = list(case_ids)
    if lost:
        raise InputError(
            "--ids",
            expected="ids that can stand one a line",
            found=f"'{lost[0]}'",
            cure="write the table instead (without --ids), or rename the case",
        )
    return "".join(f"{case_id}\n" for case_id in case_ids)


def _plain_or_none(case_id: str) -> list[str] | None:
    try:
        return _plain_ids(case_id.encode("utf-8"), "")
    except (InputError, UnicodeEncodeError):
        return None


def keep_list(rows: Sequence[Row]) -> KeepList:
    """The keep list of KEEP_LIST rows."""
    kept = frozenset(str(row["case"]) for row in rows if row["keep"])
    return KeepList(kept, frozenset(str(row["case"]) for row in rows) - kept)


def judge(
    scores: Sequence[Row],
    quantile: float,
    *,
    per_class: Combination | None = None,
    classes: Sequence[str] = (),
) -> list[Row]:
    """KEEP_LIST rows from SCORES rows, in the order of the cases there.

    Without `per_class` the whole-case AUV decides (eq. 8), with it the classes do (eq. 9): all of them, or those of
    `classes` (names or ids). A case that has no AUV is kept, and `reason` says so.

    Raises:
        InputError: a row stands twice, or the rows that are needed are missing.
        UsageError: `classes` names one that the scores do not have.
    """
    cases = _whole_cases(scores)
    whole = np.array([_number(row["auv"]) for row in cases.values()])
    if per_class is None:
        keep = filter_cases(whole, quantile)
        limit = auv_threshold(whole, quantile)
        reasons = [
            f"not judged: {row['status']}"
            if np.isnan(value)
            else f"AUV {value:.4g} above {limit:.4g}" + (f"; {row['reason']}" if row.get("reason") else "")
            for row, value in zip(cases.values(), whole, strict=True)
        ]
        shown = np.isnan(whole) | ~keep
    else:
        names, table = _class_table(scores, list(cases), classes)
        keep = filter_by_class(table, quantile, combination=per_class)
        limits = [auv_threshold(column, quantile) for column in table.T]
        reasons = [_class_reason(names, values, limits) for values in table]
        shown = np.isnan(table).all(axis=1) | ~keep
    return [
        {"case": case_id, "keep": bool(kept), "auv": row["auv"], "reason": reason if show else None}
        for (case_id, row), kept, reason, show in zip(cases.items(), keep, reasons, shown, strict=True)
    ]


def judged_auv(
    scores: Sequence[Row], *, by_class: bool, classes: Sequence[str] = ()
) -> dict[str, Float[np.ndarray, " case"]]:
    """The AUVs that `judge` compares with their quantile, by name: of whole cases, or of each class that decides."""
    cases = _whole_cases(scores)
    if not by_class:
        return {ALL_CLASSES: np.array([_number(row["auv"]) for row in cases.values()])}
    names, table = _class_table(scores, list(cases), classes)
    return dict(zip(names, table.T, strict=True))


def class_presence(scores: Sequence[Row]) -> dict[str, frozenset[str]]:
    """The cases that hold each class, by class name, from SCORES rows."""
    present: dict[str, set[str]] = {}
    for row in scores:
        if row["class_id"] is not None:
            holders = present.setdefault(str(row["class_name"]), set())
            if row["status"] != "absent":
                holders.add(str(row["case"]))
    return {name: frozenset(holders) for name, holders in present.items()}


def refuse_lost_class(presence: Mapping[str, frozenset[str]], before: frozenset[str], after: frozenset[str]) -> None:
    """Raise if a class that a case of `before` holds is in no case of `after`.

    Raises:
        InputError: a class would be left without a training case.
    """
    lost = [name for name, holders in presence.items() if holders & before and not holders & after]
    if lost:
        raise InputError(
            "filter",
            expected="a training case left for every class",
            found=f"none for {', '.join(lost)}",
            cure="use a larger --quantile, or --per-class union",
        )


def class_losses(scores: Sequence[Row], kept: frozenset[str]) -> list[ClassLoss]:
    """What dropping all but `kept` takes from each class, then from whole cases (a filter may choose by size)."""
    volumes: dict[tuple[bool, str], dict[str, float]] = {}
    for row in scores:
        key = (row["class_id"] is None, str(row["class_name"]))
        if isinstance(row.get("volume_ml"), int | float):
            volumes.setdefault(key, {})[str(row["case"])] = _number(row["volume_ml"])
    groups = [((False, name), holders) for name, holders in class_presence(scores).items()]
    groups.append(((True, ALL_CLASSES), frozenset(_whole_cases(scores))))
    return [_class_loss(key[1], holders, kept, volumes.get(key, {})) for key, holders in groups]


def _class_loss(name: str, holders: frozenset[str], kept: frozenset[str], volumes: Mapping[str, float]) -> ClassLoss:
    sides = [[volumes[case] for case in group if case in volumes] for group in (holders & kept, holders - kept)]
    medians = [float(np.median(values)) if values else None for values in sides]
    tertiles: list[tuple[int, int]] = []
    if holders <= volumes.keys() and holders:
        together = [volumes[case] for case in sorted(holders)]
        third = np.searchsorted(np.quantile(together, (1 / 3, 2 / 3), method="inverted_cdf"), together)
        gone = np.array([case not in kept for case in sorted(holders)])
        tertiles = [(int(gone[third == part].sum()), int((third == part).sum())) for part in range(3)]
    return ClassLoss(name, len(holders & kept), len(holders - kept), medians[0], medians[1], tuple(tertiles))


def _is_table(content: bytes) -> bool:
    """Whether this is a KEEP_LIST table and not a list of ids; its csv header names at least these two columns."""
    if content[:4] == b"PAR1":
        return True
    text = content.removeprefix(b"\xef\xbb\xbf").lstrip()
    header = text.split(b"\n", 1)[0].strip().replace(b"\t", b",").replace(b'"', b"").split(b",")
    return text[:1] in {b"[", b"{"} or {b"case", b"keep"} <= set(header)


def _plain_ids(content: bytes, where: str) -> list[str]:
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(
            where, expected="a keep list", found="bytes that are not UTF-8 text", cure="check the file"
        ) from error
    ids = [line for line in lines if line and not line.startswith("#")]
    if any("," in case_id or "\t" in case_id for case_id in ids):
        raise InputError(
            where,
            expected="a table with columns case and keep, or ids one a line",
            found=f"the line '{next(case_id for case_id in ids if ',' in case_id or chr(9) in case_id)}'",
            cure="give the file that filter wrote",
        )
    return ids


def _whole_cases(scores: Sequence[Row]) -> dict[str, Row]:
    seen: set[tuple[object, object]] = set()
    for row in scores:
        key = (row["case"], row["class_id"])
        if key in seen:
            raise InputError(
                f"scores: {row['case']}",
                expected=f"one row for {row['class_name']}",
                found="two",
                cure="do not join scores of two runs",
            )
        seen.add(key)
    cases = {str(row["case"]): row for row in scores if row["class_id"] is None}
    without = sorted({str(row["case"]) for row in scores} - set(cases))
    if without:
        raise InputError(
            f"scores: {without[0]}", expected="a row for the whole case (no class_id)", found="none", cure="score again"
        )
    return cases


def _class_table(scores: Sequence[Row], cases: Sequence[str], classes: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Names of the classes, and the AUV of each case and class (nan where there is none)."""
    known = {str(row["class_id"]): str(row["class_name"]) for row in scores if row["class_id"] is not None}
    if not known:
        raise InputError("scores", expected="rows of classes", found="whole cases only", cure="leave out --per-class")
    unknown = [name for name in classes if name not in known and name not in known.values()]
    if unknown:
        raise UsageError(
            f"--classes: expected classes among {', '.join(known.values())}, got {', '.join(unknown)}; correct them"
        )
    names = set(known.values())  # an id is tried where no class has that name
    chosen = [
        key for key, name in known.items() if not classes or name in classes or (key in classes and key not in names)
    ]
    table = np.full((len(cases), len(chosen)), np.nan)
    row_of = {case_id: index for index, case_id in enumerate(cases)}
    column_of = {key: index for index, key in enumerate(chosen)}
    for row in scores:
        if str(row["class_id"]) in column_of:
            table[row_of[str(row["case"])], column_of[str(row["class_id"])]] = _number(row["auv"])
    if np.isnan(table).all() and not all(np.isnan(_number(row["auv"])) for row in scores):
        raise InputError(
            "scores",
            expected="an AUV of some class for a filter by class",
            found="AUVs of whole cases only",
            cure="leave out --per-class and --classes",
        )
    return [known[key] for key in chosen], table


def _class_reason(names: Sequence[str], values: np.ndarray, limits: Sequence[float]) -> str:
    above = [
        f"{name} AUV {value:.4g} above {limit:.4g}"
        for name, value, limit in zip(names, values, limits, strict=True)
        if value > limit
    ]
    return "; ".join(above) or "not judged: no class with an AUV"


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
