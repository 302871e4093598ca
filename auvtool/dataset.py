"""A data set opened: nnU-Net's raw layout, or a plain folder of images and one of labels."""

from dataclasses import replace
from pathlib import Path

from auvtool.cases import Dataset, by_case, problem_of
from auvtool.errors import InputError
from auvtool.image_files import file_names
from auvtool.plain_folder import open_plain_folder
from auvtool.raw_dataset import survey_raw_dataset


def open_dataset(folder: Path, *, labels: Path | None = None) -> Dataset:
    """The data set in `folder`; no image is read.

    A folder with a dataset.json is an nnU-Net raw data set; `labels` then takes the place of its labels. Any other
    folder is taken as images, with labels of the same names in `labels`, whose values are read to find the classes
    (see `auvtool.plain_folder`).

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
        dataset = open_plain_folder(folder, names, labels)
    if not dataset.cases:
        first = dataset.problems[0] if dataset.problems else None
        raise InputError(
            folder,
            expected="at least one usable case",
            found=f"{len(dataset.problems)} faulty, the first: '{first.error}'" if first else "no image",
            cure="check the folder and its file ending",
        )
    return dataset


def require_dataset_json(dataset: Dataset, *, what: str) -> None:
    """Refuse a plain folder where `what`, an nnU-Net raw data set, is needed.

    Raises:
        InputError: see above.
    """
    if not dataset.raw:
        raise InputError(
            dataset.folder, expected=what, found="a plain folder", cure="write a dataset.json for it first"
        )


def require_labels(dataset: Dataset) -> Dataset:
    """`dataset` with its cases that have no label moved to the problems.

    Raises:
        InputError: no case has a label.
    """
    missing = tuple(
        problem_of(
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
    return replace(dataset, cases=labelled, problems=by_case((*dataset.problems, *missing)))
