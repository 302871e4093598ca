"""A plain folder of images, with labels of the same names in another one, without a dataset.json.

A `_0000` ending marks a channel if the names without it are those of the labels or, without labels, if every case has
the channels 0, 1, ....
"""

from collections import defaultdict
from pathlib import Path

import numpy as np

from auvtool.cases import Case, CaseProblem, Dataset, by_case
from auvtool.dataset_json import FILE_ENDINGS, SemanticClass
from auvtool.errors import InputError
from auvtool.image_files import check_channel_files, file_names, group_channels, split_unnameable, strip_channel


def open_plain_folder(folder: Path, names: list[str], labels_folder: Path | None) -> Dataset:
    """The data set of a folder's files `names`; the values of all labels are its classes (`class_1`, ...).

    Raises:
        InputError: the files are of no image format, or of several; or the labels' folder cannot be read.
    """
    ending = _common_ending(folder, names)
    stems = [name.removesuffix(ending) for name in names if name.endswith(ending)]
    label_names = set() if labels_folder is None else set(file_names(labels_folder))
    label_stems = {name.removesuffix(ending) for name in label_names if name.endswith(ending)}
    problems: tuple[CaseProblem, ...] = ()
    if _names_channels(stems, label_stems):
        images, problems = group_channels(folder, names, ending)
    else:
        images = {stem: (folder / (stem + ending),) for stem in stems}
    cases = [
        Case(case_id, files, labels_folder / (case_id + ending) if labels_folder and case_id in label_stems else None)
        for case_id, files in images.items()
    ]
    cases, unnameable = split_unnameable(cases)
    n_channels = max((len(case.images) for case in cases), default=1)
    cases, more = check_channel_files(cases, n_channels)
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
        problems=by_case((*problems, *unnameable, *more, *unreadable)),
    )


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
    from auvtool.volume import read_label  # SimpleITK and nibabel, which a raw data set does not need

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
