"""nnU-Net's split file (splits_final.json) with a filtered copy of one of its folds."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auvtool.atomic import write_text
from auvtool.errors import InputError, UsageError, one_line
from auvtool.json_text import json_text_of, parse_json
from auvtool.keep_list import KeepList


@dataclass(frozen=True)
class FilteredFold:
    """A copy of a fold without the cases to drop.

    Attributes:
        splits: all folds of the file as they stand, with the copy at `number`.
        number: place of the copy; an equal fold that was there is found again, not doubled.
        is_new: whether the copy is not in the file yet.
        train: its training cases; `dropped` those that the copied fold has more.
        val_asked: validation cases that were to be dropped and are not: the comparison of two folds needs the same.
        unknown: cases that were to be dropped and are in neither part of the fold.
        unlisted: training cases that the keep list does not name; they are kept if it is a table.
    """

    splits: tuple[dict[str, Any], ...]
    number: int
    is_new: bool
    train: tuple[str, ...]
    dropped: tuple[str, ...]
    val_asked: tuple[str, ...]
    unknown: tuple[str, ...]
    unlisted: tuple[str, ...]


def filtered_fold(path: Path, keep: KeepList, *, fold: int = 0) -> FilteredFold:
    """The copy of fold `fold` of the split file `path` that trains only on what `keep` keeps; nothing is written.

    Raises:
        InputError: the file is no list of folds, or no training case is left.
        UsageError: it has no fold `fold` (nnU-Net would silently train on a random split of all cases).
    """
    splits = _read_splits(path)
    if not 0 <= fold < len(splits):
        raise UsageError(
            f"--fold: expected 0 to {len(splits) - 1}, the folds of {path}, got {fold}; choose one of them"
        )
    train, val = splits[fold]["train"], splits[fold]["val"]
    kept = [case_id for case_id in train if keep.keeps(case_id)]
    if not kept:
        raise InputError(
            path,
            expected=f"training cases of fold {fold} that the keep list keeps",
            found=f"none of {len(train)}",
            cure="are both of the same data set?",
        )
    equal = [
        number
        for number, split in enumerate(splits)
        if set(split["train"]) == set(kept) and set(split["val"]) == set(val)
    ]
    named = keep.kept | (keep.dropped or frozenset())
    return FilteredFold(
        splits=(*splits, *([] if equal else [{"train": kept, "val": list(val)}])),
        number=equal[0] if equal else len(splits),
        is_new=not equal,
        train=tuple(kept),
        dropped=tuple(case_id for case_id in train if not keep.keeps(case_id)),
        val_asked=tuple(case_id for case_id in val if not keep.keeps(case_id)),
        unknown=tuple(sorted((keep.dropped or frozenset()) - set(train) - set(val))),
        unlisted=tuple(case_id for case_id in train if case_id not in named),
    )


def append_fold(path: Path, fold: FilteredFold) -> None:
    """Write the split file with the new fold, atomically, as nnU-Net indents it; nothing happens if it is there.

    Raises:
        OutputError: the file cannot be written.
    """
    if fold.is_new:
        # The file itself, where `path` is a link to it: renaming would put a file in place of the link.
        write_text(path.resolve(), json.dumps(fold.splits, indent=4, ensure_ascii=False) + "\n", force=True)


def _read_splits(path: Path) -> list[dict[str, Any]]:
    try:
        splits = parse_json(json_text_of(path))
    except OSError as error:
        raise InputError(
            path,
            expected="a readable splits_final.json",
            found=f"'{error.strerror}'",
            cure="nnU-Net writes it beside the preprocessed data at the first training",
        ) from error
    except ValueError as error:
        raise InputError(path, expected="valid JSON", found=f"'{one_line(error)}'", cure="correct the file") from error
    if not isinstance(splits, list) or not splits or not all(is_fold(split) for split in splits):
        raise InputError(
            path,
            expected='a list of folds {"train": [ids], "val": [ids]}',
            found="other JSON",
            cure="give nnU-Net's splits_final.json",
        )
    return splits


def is_fold(split: object) -> bool:
    """Whether this is `{"train": [case ids], "val": [case ids]}`."""
    if not isinstance(split, dict):
        return False
    parts = (split.get("train"), split.get("val"))
    return all(isinstance(part, list) and all(isinstance(case_id, str) for case_id in part) for part in parts)
