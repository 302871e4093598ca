"""Rules of files: dataset.json, names, and which files are there. No volume is read."""

import os
from collections.abc import Iterator
from pathlib import Path

from auvtool.cases import Dataset, ProblemReason
from auvtool.checks import Finding
from auvtool.dataset_json import FILE_ENDINGS
from auvtool.errors import InputError
from auvtool.image_files import file_names
from auvtool.raw_dataset import survey_raw_dataset

_CODES: dict[ProblemReason, str] = {
    "name": "F003",
    "channels": "F004",
    "entry": "F001",
    "file": "F009",
    "no label": "F005",
    "unreadable": "F008",
}


def survey(folder: Path) -> Dataset | Finding:
    """The data set with all that can be told of it by its names, or what is wrong with its dataset.json.

    Raises:
        InputError: there is no such folder, or no dataset.json in it.
    """
    if "dataset.json" not in file_names(folder):
        raise InputError(
            folder,
            expected="an nnU-Net raw data set (dataset.json, imagesTr, labelsTr)",
            found="a folder without dataset.json",
            cure="name the folder DatasetXXX_Name, or write its dataset.json first",
        )
    try:
        return survey_raw_dataset(folder)
    except InputError as error:
        code = "F001" if "dataset.json" in error.where else "F009"
        return Finding(code, _expected(error), file=shown_path(Path(error.where), folder), cure=error.cure)


def file_findings(dataset: Dataset) -> Iterator[Finding]:
    """What is wrong with the files as a whole, then with those of each case."""
    yield from _number_of_cases(dataset)
    if not dataset.cases and not dataset.problems:
        yield Finding("F009", f"expected images CASE_0000{dataset.file_ending}, got none", file="imagesTr")
    yield from _other_endings(dataset)
    of_cases = [*_problems(dataset), *_missing_labels(dataset), *_missing_images(dataset)]
    yield from sorted(of_cases, key=lambda finding: (finding.case_id or "", finding.code))


def shown_path(path: Path, folder: Path) -> str:
    """A path as a finding names it: from the data set's folder where it lies in it."""
    absolute, root = os.path.abspath(path), os.path.abspath(folder)  # noqa: PTH100  # Path.resolve would follow links
    return os.path.relpath(absolute, root) if Path(absolute).is_relative_to(root) else absolute


def _number_of_cases(dataset: Dataset) -> Iterator[Finding]:
    problems = {problem.case_id for problem in dataset.problems}
    n_cases, told = len({case.case_id for case in dataset.cases} | problems), dataset.raw["numTraining"]
    if told != n_cases:
        yield Finding("F002", f"expected numTraining to be {n_cases}, the number of cases, got {told}", file=_JSON)


def _other_endings(dataset: Dataset) -> Iterator[Finding]:
    if "dataset" in dataset.raw:
        return
    for part in ("imagesTr", "labelsTr"):
        for name in file_names(dataset.folder / part) if (dataset.folder / part).is_dir() else []:
            other = name.lower().endswith(FILE_ENDINGS) and not name.endswith(dataset.file_ending)
            if other:
                yield Finding("F007", f"expected the ending {dataset.file_ending}, got {name}", file=f"{part}/{name}")


def _problems(dataset: Dataset) -> Iterator[Finding]:
    for problem in dataset.problems:
        if problem.reason is None or problem.fault is None:
            yield Finding("F011", problem.error, problem.case_id)
            continue
        file = shown_path(Path(problem.fault.where), dataset.folder)
        yield Finding(
            _CODES[problem.reason], _expected(problem.fault), problem.case_id, file=file, cure=problem.fault.cure
        )


def _missing_labels(dataset: Dataset) -> Iterator[Finding]:
    for case in dataset.cases:
        if case.label is None:
            file = shown_path(case.images[0], dataset.folder)
            yield Finding("F005", "expected a label for this image, got none", case.case_id, file=file)


def _missing_images(dataset: Dataset) -> Iterator[Finding]:
    folder = dataset.folder / "labelsTr"
    if "dataset" in dataset.raw or not folder.is_dir():
        return
    known = {case.case_id for case in dataset.cases} | {problem.case_id for problem in dataset.problems}
    for name in file_names(folder):
        case_id = name.removesuffix(dataset.file_ending)
        if name.endswith(dataset.file_ending) and case_id not in known:
            yield Finding("F006", "expected an image for this label, got none", case_id, file=f"labelsTr/{name}")


def _expected(error: InputError) -> str:
    return f"expected {error.expected}, got {error.found}"


_JSON = "dataset.json"
