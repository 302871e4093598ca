"""nnU-Net's raw layout: `DatasetXXX_Name/{dataset.json,imagesTr,labelsTr}`.

Images are `{case}_{channel:04d}{file_ending}`, labels `{case}{file_ending}`; dataset.json may instead name every file
itself in a map `dataset`.
"""

import os
from dataclasses import replace
from pathlib import Path

from auvtool.cases import Case, CaseProblem, Dataset, by_case, problem_of
from auvtool.dataset_json import channel_names, image_file_ending, read_dataset_json, semantic_classes
from auvtool.errors import InputError
from auvtool.image_files import check_channel_files, file_names, group_channels, split_unnameable


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
        images, problems = group_channels(images_folder, file_names(images_folder), ending)
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
    cases, more = check_channel_files(cases, len(channels))
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
        problems=by_case((*problems, *unnameable, *more)),
    )


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
            problem = problem_of(
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
            problem = problem_of(
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
