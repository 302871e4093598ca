"""Which case of a public data set goes where in the nnU-Net raw data set to write, and whether it can be written."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from auvtool.conversion_records import RECORDS
from auvtool.converters import CONVERTERS, ConverterName, SourceCase, SourceDataset, SplitChoice, find_cases
from auvtool.errors import InputError, UsageError
from auvtool.reference_dataset import check_dataset_name


@dataclass(frozen=True)
class PlannedCase:
    """A case to make, in the training or in the test part of the data set."""

    source: SourceCase
    is_test: bool


@dataclass(frozen=True)
class ConversionPlan:
    """What will be written.

    Attributes:
        name: of the converter.
        source_folder: the data set as downloaded.
        source: what is in it.
        folder: the data set to write.
        split: how test cases are chosen.
        cases: to make, sorted by id.
        validation: ids of the own split's validation cases; with some, splits_final.json is written.
        notes: what is true of the whole data set and what is left out, a line each.
        link: training cases as symbolic links and not by reference.
        force: replace a data set that convert made before.
    """

    name: ConverterName
    source_folder: Path
    source: SourceDataset
    folder: Path
    split: SplitChoice
    cases: tuple[PlannedCase, ...]
    validation: frozenset[str]
    notes: tuple[str, ...]
    link: bool
    force: bool

    @property
    def n_test(self) -> int:
        return sum(case.is_test for case in self.cases)


def plan_conversion(
    name: ConverterName,
    source_folder: Path,
    folder: Path,
    *,
    split: SplitChoice | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    link: bool = False,
    force: bool = False,
) -> ConversionPlan:
    """Which case goes where; no image is read and nothing is written.

    Args:
        name: of the converter.
        source_folder: the data set as downloaded.
        folder: DatasetXXX_Name to write.
        split: own (as published), random (a share of the published training and validation cases is drawn), none (all
            of those to train on), or None for what the paper did with this data set.
        test_share: of the random split, above 0 and below 1; rounded, at least one case.
        seed: of the random split.
        link: see `ConversionPlan`.
        force: see `ConversionPlan`.

    Raises:
        UsageError: a share out of range, or `folder` cannot become a data set.
        InputError: `source_folder` does not hold the data set, or its own split is not known.
    """
    if not 0.0 < test_share < 1.0:
        raise UsageError(f"--test-share: expected a number above 0 and below 1, got {test_share:g}; 0.2 is the paper's")
    check_dataset_name(folder, option="DST")
    split = split or CONVERTERS[name].split
    source = find_cases(name, source_folder)
    _check_replaceable(folder, source, force=force)
    _check_ids(source, source_folder)
    if split == "own" and source.why_no_own_split:
        raise InputError(
            source_folder,
            expected="the split that the data set was published with",
            found=f"none ({source.why_no_own_split})",
            cure="get that file, or choose --split random",
        )
    test = _test_ids(source, split, test_share, seed)
    published_test = {case.case_id for case in source.cases if case.part == "test"}
    left_out = sorted(published_test - test)
    notes = list(source.notes)
    if left_out:
        notes.append(
            f"{len(left_out)} published test cases are left out (first {left_out[0]}); --split own takes them as test"
        )
    planned = tuple(
        PlannedCase(case, case.case_id in test)
        for case in sorted(source.cases, key=lambda case: case.case_id)
        if case.case_id not in left_out
    )
    if all(case.is_test for case in planned):
        raise InputError(
            source_folder, expected="cases to train on", found="none", cure="unpack all of it, or choose --split none"
        )
    validation = {case.case_id for case in source.cases if case.part == "val"} if split == "own" else set()
    return ConversionPlan(
        name=name,
        source_folder=source_folder,
        source=source,
        folder=folder,
        split=split,
        cases=planned,
        validation=frozenset(validation),
        notes=tuple(notes),
        link=link,
        force=force,
    )


def _test_ids(source: SourceDataset, split: SplitChoice, share: float, seed: int) -> frozenset[str]:
    if split == "own":
        return frozenset(case.case_id for case in source.cases if case.part == "test")
    if split == "none":
        return frozenset()
    # With the cases that cannot be used: the draw stays what it is when they are put right.
    usable = {case.case_id for case in source.cases if case.part != "test" and case.is_labelled}
    ids = sorted(usable | {problem.case_id for problem in source.problems})
    n_test = max(1, round(share * len(ids)))
    drawn = np.random.default_rng(seed).permutation(len(ids))[:n_test]
    return frozenset(ids[position] for position in drawn) & usable


def _check_replaceable(folder: Path, source: SourceDataset, *, force: bool) -> None:
    if not folder.exists():
        return
    holds_source = any(case.image.absolute().is_relative_to(folder.absolute()) for case in source.cases)
    if not (folder / RECORDS).is_dir() or holds_source:
        raise UsageError(f"{folder}: expected no data set yet, got one that convert did not make; choose another name")
    if not force:
        raise UsageError(
            f"{folder}: expected no data set yet, got an existing one; add --force to replace it (finished cases stay)"
        )


def _check_ids(source: SourceDataset, folder: Path) -> None:
    ids = [case.case_id for case in source.cases]
    twice = sorted({case_id for case_id in ids if ids.count(case_id) > 1}) if len(set(ids)) < len(ids) else []
    if twice:
        raise InputError(
            folder, expected="each case once", found=f"{twice[0]} more than once", cure="leave one of its copies"
        )
