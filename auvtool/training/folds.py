"""nnU-Net's folds (splits_final.json), with a filtered fold appended for a keep list."""

import json
import pickle
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auvtool.atomic import write_text
from auvtool.dataset_json import SemanticClass
from auvtool.errors import InputError, UsageError
from auvtool.json_text import json_text_of, parse_json
from auvtool.split_fold import is_fold


@dataclass(frozen=True)
class Fold:
    """A split of the cases, and its number in splits_final.json."""

    number: int
    train: tuple[str, ...]
    val: tuple[str, ...]
    dropped: tuple[str, ...] = ()


def read_or_make_splits(splits_file: Path, case_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The folds on disk, or nnU-Net's own rule: five folds, seed 12345, over the sorted ids. Nothing is written.

    Raises:
        InputError: the file is broken, or there are fewer than five cases to split.
    """
    if splits_file.is_file():
        try:
            splits = parse_json(json_text_of(splits_file))
            well_formed = isinstance(splits, list) and all(is_fold(split) for split in splits)
        except (OSError, ValueError):
            well_formed = False
        if not well_formed:
            raise InputError(
                splits_file,
                expected="a list of folds with train and val",
                found="other content",
                cure="remove the file",
            )
        return list(splits)
    if len(case_ids) < 5:
        return []
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    # Plain str: its lists hold numpy strings.
    return [
        {part: [str(case_id) for case_id in split[part]] for part in ("train", "val")}
        for split in generate_crossval_split(sorted(case_ids), seed=12345, n_splits=5)
    ]


def choose_fold(
    splits: Sequence[dict[str, Any]],
    *,
    case_ids: Collection[str],
    number: int,
    val_cases: Sequence[str] | None = None,
    kept: Collection[str] | None = None,
) -> Fold:
    """The fold to train on; its number is that of an equal fold of `splits`, or one past them.

    Args:
        splits: the folds there are.
        case_ids: the cases that can be used; others are left out of train and val.
        number: the fold to start from, unless there are `val_cases`.
        val_cases: validate on these and train on all others.
        kept: train only on these. The validation cases stay what they are, or runs could not be compared.

    Raises:
        UsageError: no such fold; val cases that are not in the data set.
        InputError: no case is left to train or to validate on.
    """
    if val_cases is not None:
        unknown = sorted(set(val_cases) - set(case_ids))
        if unknown:
            raise UsageError(
                f"--val-cases: expected ids of the data set's cases, got {', '.join(unknown[:5])}; correct the list"
            )
        val = sorted(set(val_cases))
        train = sorted(set(case_ids) - set(val))
    elif not splits:
        raise UsageError(
            f"--fold: expected at least 5 cases to make folds of, got {len(case_ids)}; name some with --val-cases"
        )
    elif not 0 <= number < len(splits):
        # nnU-Net would train on a random 80:20 split of all cases.
        raise UsageError(f"--fold: expected a number from 0 to {len(splits) - 1}, got {number}; choose one of them")
    else:
        val = [case_id for case_id in splits[number]["val"] if case_id in case_ids]
        train = [case_id for case_id in splits[number]["train"] if case_id in case_ids]
    dropped = tuple(case_id for case_id in train if kept is not None and case_id not in kept)
    train = [case_id for case_id in train if case_id not in dropped]
    for part, cases in (("train", train), ("validate", val)):
        if not cases:
            raise InputError(
                "the fold", expected=f"a case to {part} on", found="none", cure="check the keep list and --val-cases"
            )
    same = [
        place
        for place, split in enumerate(splits)
        if set(split["train"]) == set(train) and set(split["val"]) == set(val)
    ]
    place = number if number in same and val_cases is None else (same or [len(splits)])[0]
    return Fold(place, tuple(train), tuple(val), dropped)


def write_fold(splits_file: Path, splits: Sequence[dict[str, Any]], fold: Fold) -> None:
    """Append `fold` to splits_final.json unless it is there; the folds before it stay as they are."""
    folds = [*splits]
    if fold.number == len(folds):
        folds.append({"train": list(fold.train), "val": list(fold.val)})
    if not splits_file.is_file() or len(folds) > len(splits):
        write_text(splits_file, json.dumps(folds, indent=4, ensure_ascii=False) + "\n", force=True)


def require_every_class(preprocessed: Path, fold: Fold, classes: Sequence[SemanticClass]) -> None:
    """Raise if dropping cases has left a class without a training case.

    Args:
        preprocessed: nnU-Net's folder of preprocessed cases, whose .pkl files say where each class is.
        fold: the fold; a class that its dropped cases lack too was absent before.
        classes: foreground classes.

    Raises:
        InputError: as said.
    """
    if not fold.dropped:
        return
    lacking = _absent(preprocessed, fold.train, {item.labels: item.name for item in classes})
    lost = {key: name for key, name in lacking.items() if key not in _absent(preprocessed, fold.dropped, lacking)}
    if lost:
        raise InputError(
            "the keep list",
            expected="a training case of every class",
            found=f"none of {', '.join(lost.values())}",
            cure="keep more cases (a higher quantile, or another rule)",
        )


def _absent(
    preprocessed: Path, case_ids: Sequence[str], classes: dict[tuple[int, ...], str]
) -> dict[tuple[int, ...], str]:
    """Those of `classes` (names by label values) that none of the cases has."""
    absent = dict(classes)
    for case_id in case_ids:
        if not absent:
            break
        with (preprocessed / f"{case_id}.pkl").open("rb") as file:
            # Written by nnU-Net on this machine, and read by its trainer in the same way.
            locations = pickle.load(file)["class_locations"]  # noqa: S301
        for key, voxels in locations.items():
            if len(voxels):
                absent.pop(key if isinstance(key, tuple) else (key,), None)
    return absent
