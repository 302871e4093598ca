"""Data sets as nnU-Net keeps them (raw layout), or plain folders of images and labels.

Raw layout: `DatasetXXX_Name/{dataset.json,imagesTr,labelsTr}` with images `{case}_{channel:04d}{file_ending}` and
labels `{case}{file_ending}`; dataset.json may instead name every file itself in a map `dataset`.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from auvtool.case_id import case_id_fault
from auvtool.dataset_json import (
    FILE_ENDINGS,
    SemanticClass,
    channel_names,
    image_file_ending,
    read_dataset_json,
    semantic_classes,
)
from auvtool.errors import InputError
from auvtool.visible_text import visible


@dataclass(frozen=True)
class Fault:
    """A fault that is put into a case as it is read (auvtool.faults).

    Attributes:
        kind: its name in auvtool.corruption.kinds.
        level: one of that kind's levels.
        seed: of what is drawn at random for it.
        donor: the label file of another case, for the kind that takes one.
    """

    kind: str
    level: str
    seed: int
    donor: Path | None = None


@dataclass(frozen=True)
class Case:
    """One scan with its label; a file for each channel, or one file that holds them all.

    With `fault`, the files are clean, and what `auvtool.faults.read_case_with_fault` makes of them is not.
    """

    case_id: str
    images: tuple[Path, ...]
    label: Path | None
    fault: Fault | None = None

    def image_bytes(self) -> int:
        """Size of its image files: the case that takes most memory is mostly the largest."""
        return sum(path.stat().st_size for path in self.images if path.is_file())


# A name without a channel number, or with an id that no file name can hold; channel files that are not there; a broken
# entry of the map `dataset`; a file that it names and that is not there; no label; a label that cannot be read.
ProblemReason: TypeAlias = Literal["name", "channels", "entry", "file", "no label", "unreadable"]


@dataclass(frozen=True)
class CaseProblem:
    """A case that cannot be used, and why: one row of the FAILURES table.

    Attributes:
        case_id: the case, or what its file name seems to say.
        error: one line.
        reason: what is wrong, for `auvtool.checks`.
        fault: the parts of `error`.
    """

    case_id: str
    error: str
    reason: ProblemReason | None = field(default=None, compare=False)
    fault: InputError | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Dataset:
    """Cases and what their labels mean.

    `cases` holds only usable cases, sorted by id; the others stand in `problems`, so that a run can make failure rows
    of them and go on. `classes` are in dataset.json's order, which for regions is part of their meaning; empty where
    there are no labels. `raw` is dataset.json as read (empty for a plain folder).
    """

    folder: Path
    name: str
    cases: tuple[Case, ...]
    classes: tuple[SemanticClass, ...]
    ignore_label: int | None
    channel_names: tuple[str, ...]
    file_ending: str
    has_regions: bool
    raw: dict[str, Any] = field(hash=False, repr=False)
    problems: tuple[CaseProblem, ...] = ()

    def label_values(self) -> frozenset[int]:
        """Every value that a label map may hold: background, classes, ignore label."""
        values = {0, *(value for semantic_class in self.classes for value in semantic_class.labels)}
        return frozenset(values if self.ignore_label is None else values | {self.ignore_label})

    def without_cases(self) -> "Dataset":
        """What a worker needs beside its case: what the cases mean, and no list of them, in dataset.json neither."""
        raw = {key: value for key, value in self.raw.items() if key != "dataset"}
        return replace(self, cases=(), problems=(), raw=raw)


def open_dataset(folder: Path, *, labels: Path | None = None) -> Dataset:
    """The data set in `folder`; no image is read.

    A folder with a dataset.json is an nnU-Net raw data set; `labels` then takes the place of its labels. Any other
    folder is taken as images, with labels of the same names in `labels`, whose values are read to find the classes
    (`class_1`, ...). In a plain folder a `_0000` ending marks a channel if the names without it are those of the labels
    or, without labels, if every case has the channels 0, 1, ....

    Raises:
        InputError: the folder cannot be read, dataset.json is missing, broken or lacks a key, its labels are not valid,
            or no case is usable. A fault of some cases only is no error: see `Dataset.problems`.
    """
    names = file_names(folder)
    if "dataset.json" in names:
        dataset = survey_raw_dataset(folder, labels=labels)
    elif (folder / "imagesTr").is_dir():
        raise InputError(
            folder, expected="a dataset.json beside imagesTr", found="none", cure="write one as nnU-Net describes it"
        )
    else:
        dataset = _open_plain(folder, names, labels)
    if not dataset.cases:
        first = dataset.problems[0] if dataset.problems else None
        raise InputError(
            folder,
            expected="at least one usable case",
            found=f"{len(dataset.problems)} faulty, the first: '{first.error}'" if first else "no image",
            cure="check the folder and its file ending",
        )
    return dataset


def require_labels(dataset: Dataset) -> Dataset:
    """`dataset` with its cases that have no label moved to the problems.

    Raises:
        InputError: no case has a label.
    """
    missing = tuple(
        _problem(
            case.case_id,
            "no label",
            case.images[0],
            expected="a label for this image",
            found="none",
            cure="add the label, or take the image out",
        )
        for case in dataset.cases
        if case.label is None
    )
    labelled = tuple(case for case in dataset.cases if case.label is not None)
    if not labelled:
        raise InputError(
            dataset.folder,
            expected="labels for the images",
            found="none",
            cure="add labelsTr, or name a folder of labels",
        )
    return replace(dataset, cases=labelled, problems=_by_case((*dataset.problems, *missing)))


def strip_channel(name: str) -> tuple[str, int] | None:
    """`("case", 1)` of `"case_0001"`, the name of an image file without its ending; None if no channel is named."""
    match = re.fullmatch(r"(.+)_([0-9]{4})", name, re.DOTALL)
    return (match[1], int(match[2])) if match else None


def survey_raw_dataset(folder: Path, *, labels: Path | None = None) -> Dataset:
    """As `open_dataset` of an nnU-Net raw data set, but that no case is usable is no error.

    Raises:
        InputError: a folder cannot be read, or dataset.json is missing, broken or lacks a key.
    """
    labels_folder = labels
    raw = read_dataset_json(folder)
    where = folder / "dataset.json"
    classes, ignore_label, has_regions = semantic_classes(raw, where)
    channels = channel_names(raw, where)
    ending = image_file_ending(raw, where)
    if "dataset" in raw:
        cases, problems = _mapped_cases(folder, raw["dataset"], where)
    else:
        images_folder = folder / "imagesTr"
        images, problems = _group_channels(images_folder, file_names(images_folder), ending)
        cases = [Case(case_id, files, None) for case_id, files in images.items()]
        if labels_folder is None and (folder / "labelsTr").exists():
            labels_folder = folder / "labelsTr"
    cases, unnameable = split_unnameable(cases)
    if labels_folder is not None:
        known = set(file_names(labels_folder))
        cases = [
            replace(case, label=labels_folder / (case.case_id + ending) if case.case_id + ending in known else None)
            for case in cases
        ]
    cases, more = _check_channel_files(cases, len(channels))
    return Dataset(
        folder=folder,
        name=folder.absolute().name,
        cases=tuple(sorted(cases, key=lambda case: case.case_id)),
        classes=classes,
        ignore_label=ignore_label,
        channel_names=channels,
        file_ending=ending,
        has_regions=has_regions,
        raw=raw,
        problems=_by_case((*problems, *unnameable, *more)),
    )


def _open_plain(folder: Path, names: list[str], labels_folder: Path | None) -> Dataset:
    ending = _common_ending(folder, names)
    stems = [name.removesuffix(ending) for name in names if name.endswith(ending)]
    label_names = set() if labels_folder is None else set(file_names(labels_folder))
    label_stems = {name.removesuffix(ending) for name in label_names if name.endswith(ending)}
    problems: tuple[CaseProblem, ...] = ()
    if _names_channels(stems, label_stems):
        images, problems = _group_channels(folder, names, ending)
    else:
        images = {stem: (folder / (stem + ending),) for stem in stems}
    cases = [
        Case(case_id, files, labels_folder / (case_id + ending) if labels_folder and case_id in label_stems else None)
        for case_id, files in images.items()
    ]
    cases, unnameable = split_unnameable(cases)
    n_channels = max((len(case.images) for case in cases), default=1)
    cases, more = _check_channel_files(cases, n_channels)
    cases, values, unreadable = _scan_labels(cases)
    return Dataset(
        folder=folder,
        name=folder.absolute().name,
        cases=tuple(sorted(cases, key=lambda case: case.case_id)),
        classes=tuple(SemanticClass(value, f"class_{value}", (value,)) for value in values),
        ignore_label=None,
        channel_names=tuple(f"channel_{channel}" for channel in range(n_channels)),
        file_ending=ending,
        has_regions=False,
        raw={},
        problems=_by_case((*problems, *unnameable, *more, *unreadable)),
    )


def split_unnameable(cases: Iterable[Case]) -> tuple[list[Case], tuple[CaseProblem, ...]]:
    """Cases whose id can be part of a file name, and a problem for each other one (see `case_id_fault`)."""
    usable, problems = [], []
    for case in cases:
        fault = case_id_fault(case.case_id)
        if fault is None:
            usable.append(case)
        else:
            problem = _problem(
                case.case_id,
                "name",
                case.images[0],
                expected="a case id that can be part of a file name",
                found=f"{fault} in {case.case_id!r:.80}" if case.case_id else fault,
                cure="rename the case",
            )
            problems.append(problem)
    return usable, tuple(problems)


def file_names(folder: Path) -> list[str]:
    """Names in `folder`, sorted, without dotfiles (among them the `._*` that macOS leaves on other file systems).

    Raises:
        InputError: it cannot be read.
    """
    try:
        return sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(
            folder, expected="a readable folder", found=f"'{error.strerror}'", cure="check the path and its rights"
        ) from error


def _group_channels(
    folder: Path, names: Iterable[str], ending: str
) -> tuple[dict[str, tuple[Path, ...]], tuple[CaseProblem, ...]]:
    """Image files by case id, in channel order; a fault in the channel numbers is a problem of that case."""
    channels: dict[str, dict[int, Path]] = defaultdict(dict)
    problems = []
    for name in names:
        if not name.endswith(ending):
            continue
        stem = name.removesuffix(ending)
        split = strip_channel(stem)
        if split is None:
            problem = _problem(
                stem,
                "name",
                folder / name,
                expected=f"a channel number in the name (CASE_0000{ending})",
                found="none",
                cure="rename it, nnU-Net skips it",
            )
            problems.append(problem)
        else:
            channels[split[0]][split[1]] = folder / name
    images = {}
    for case_id, files in channels.items():
        numbers = sorted(files)
        if numbers == list(range(len(numbers))):
            images[case_id] = tuple(files[number] for number in numbers)
        else:
            lacking = next(number for number in range(len(numbers)) if number not in files)
            problem = _problem(
                case_id,
                "channels",
                folder / f"{case_id}_{lacking:04d}{ending}",
                expected="an image for every channel from 0000 on",
                found=f"only {', '.join(f'{number:04d}' for number in numbers)}",
                cure="add the missing file",
            )
            problems.append(problem)
    return images, tuple(problems)


def _mapped_cases(folder: Path, mapped: object, where: Path) -> tuple[list[Case], tuple[CaseProblem, ...]]:
    """Cases of dataset.json's map `dataset`; paths are relative to the data set and may hold environment variables."""
    if not isinstance(mapped, dict):
        raise InputError(
            where, expected="a map of case ids in 'dataset'", found=type(mapped).__name__, cure="correct dataset.json"
        )
    cases, problems = [], []
    for case_id, entry in mapped.items():
        images = entry.get("images") if isinstance(entry, dict) else None
        label = entry.get("label") if isinstance(entry, dict) else None
        well_formed = isinstance(images, list) and images and all(isinstance(item, str) for item in images)
        if not well_formed or not (label is None or isinstance(label, str)):
            problem = _problem(
                case_id,
                "entry",
                f"{where}: {case_id}",
                expected='{"images": [paths], "label": path}',
                found=f"{entry!r:.80}",
                cure="correct dataset.json",
            )
            problems.append(problem)
            continue
        image_paths = tuple(_mapped_path(folder, item) for item in images or ())
        label_path = None if label is None else _mapped_path(folder, label)
        missing = [path for path in (*image_paths, label_path) if path is not None and not path.is_file()]
        if missing:
            problem = _problem(
                case_id,
                "file",
                missing[0],
                expected="the file that dataset.json names",
                found="none",
                cure="check its path and its variables",
            )
            problems.append(problem)
        else:
            cases.append(Case(case_id, image_paths, label_path))
    return cases, tuple(problems)


def _mapped_path(folder: Path, text: str) -> Path:
    # As nnU-Net does it: no symbolic link is followed.
    return Path(os.path.abspath(folder / os.path.expandvars(text)))  # noqa: PTH100  # Path.resolve would follow links


def _check_channel_files(cases: list[Case], n_channels: int) -> tuple[list[Case], tuple[CaseProblem, ...]]:
    """Cases with as many files as the fullest one; a lone file may hold all channels, which only reading it tells."""
    expected = min(max((len(case.images) for case in cases), default=0), n_channels)
    problems = tuple(
        _problem(
            case.case_id,
            "channels",
            case.images[0],
            expected=f"{expected} channel files",
            found=len(case.images),
            cure="add or remove channel files",
        )
        for case in cases
        if len(case.images) != expected
    )
    return [case for case in cases if len(case.images) == expected], problems


def _common_ending(folder: Path, names: list[str]) -> str:
    endings = {next((ending for ending in FILE_ENDINGS if name.endswith(ending)), "") for name in names} - {""}
    if len(endings) != 1:
        raise InputError(
            folder,
            expected="a dataset.json, or images of one file ending",
            found=", ".join(sorted(endings)) or "no image",
            cure=f"name a folder of images ({', '.join(FILE_ENDINGS)})",
        )
    return endings.pop()


def _names_channels(stems: list[str], label_stems: set[str]) -> bool:
    """Whether the `_0000` of plain image names are channels; the names of the labels decide where there are some."""
    split = [strip_channel(stem) for stem in stems]
    if label_stems:
        with_channel = sum(item is not None and item[0] in label_stems for item in split)
        return with_channel > sum(stem in label_stems for stem in stems)
    channels = defaultdict(set)
    for item in split:
        if item is None:
            return False
        channels[item[0]].add(item[1])
    return all(numbers == set(range(len(numbers))) for numbers in channels.values())


def _scan_labels(cases: list[Case]) -> tuple[list[Case], list[int], tuple[CaseProblem, ...]]:
    """The foreground values of all labels, and the cases whose label can be read."""
    from auvtool.volume import read_label  # volume imports this module for its types

    values: set[int] = set()
    usable, problems = [], []
    for case in cases:
        try:
            if case.label is not None:
                label, _ = read_label(case.label)
                values.update(int(value) for value in np.unique(label))
            usable.append(case)
        except InputError as error:
            problems.append(CaseProblem(case.case_id, str(error), "unreadable", error))
    return usable, sorted(values - {0}), tuple(problems)


def _problem(
    case_id: str, reason: ProblemReason, where: object, *, expected: str, found: object, cure: str
) -> CaseProblem:
    fault = InputError(where, expected=expected, found=found, cure=cure)
    shown = visible(case_id).replace("\n", "\\n").replace("\t", "\\t")
    return CaseProblem(shown, str(fault), reason, fault)


def _by_case(problems: Iterable[CaseProblem]) -> tuple[CaseProblem, ...]:
    return tuple(sorted(problems, key=lambda problem: problem.case_id))
