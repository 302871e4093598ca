"""A filtered nnU-Net raw data set that holds no image: its dataset.json names the files of the one it comes from."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from auvtool.atomic import write_text
from auvtool.cases import Dataset
from auvtool.dataset import require_dataset_json, require_labels
from auvtool.errors import InputError, UsageError
from auvtool.keep_list import KeepList


@dataclass(frozen=True)
class ReferenceDataset:
    """What will stand in dataset.json.

    `case_ids` are the cases in it, `unlisted` those among them that the keep list (a table) does not name, and
    `unusable` those that were not to be dropped, but miss an image or a label.
    """

    folder: Path
    text: str
    case_ids: tuple[str, ...]
    unlisted: tuple[str, ...]
    unusable: tuple[str, ...]


def reference_dataset(folder: Path, source: Dataset, keep: KeepList, *, force: bool) -> ReferenceDataset:
    """The data set `folder` with the cases of `source` that `keep` keeps; nothing is written.

    Paths are relative where both data sets lie in one folder (nnUNet_raw can then be moved), else absolute.

    Raises:
        UsageError: `folder` is not named as nnU-Net wants it, is there already, or its number is taken beside it.
        InputError: `source` has no dataset.json, or none of the cases is kept.
    """
    _check_folder(folder, source, force=force)
    require_dataset_json(source, what="an nnU-Net raw data set (--dataset)")
    labelled = require_labels(source)
    kept = [case for case in labelled.cases if keep.keeps(case.case_id)]
    if not kept:
        raise InputError(
            source.folder,
            expected="cases that the keep list keeps",
            found=f"none of {len(labelled.cases)}",
            cure="are both of the same data set?",
        )
    beside = folder.absolute().parent == source.folder.absolute().parent
    entries = {
        case.case_id: {
            "images": [reference_to(path, folder, relative=beside) for path in case.images],
            "label": None if case.label is None else reference_to(case.label, folder, relative=beside),
        }
        for case in kept
    }
    record = {**source.raw, "numTraining": len(kept), "dataset": entries}
    named = keep.kept | (keep.dropped or frozenset())
    return ReferenceDataset(
        folder=folder,
        text=json.dumps(record, indent=1, ensure_ascii=False) + "\n",
        case_ids=tuple(case.case_id for case in kept),
        unlisted=tuple(case.case_id for case in kept if case.case_id not in named),
        unusable=tuple(problem.case_id for problem in labelled.problems if keep.keeps(problem.case_id)),
    )


def write_reference_dataset(dataset: ReferenceDataset) -> None:
    """Write the folder and its dataset.json.

    Raises:
        OutputError: the folder cannot be written.
    """
    dataset.folder.mkdir(exist_ok=True)
    write_text(dataset.folder / "dataset.json", dataset.text, force=True)


def check_dataset_name(folder: Path, *, option: str) -> None:
    """Refuse a new data set that nnU-Net would not find, or would take for another.

    Raises:
        UsageError: `folder` is not named DatasetXXX_Name, the folder that it is to lie in does not exist, or another
            data set there has its number.
    """
    name = folder.absolute().name
    match = re.fullmatch(r"Dataset(\d{3})_.+", name)
    if not match:
        raise UsageError(f"{option}: expected a folder DatasetXXX_Name, XXX three digits, got {name}; rename it")
    parent = folder.absolute().parent
    if not parent.is_dir():
        raise UsageError(f"{folder}: expected an existing folder {parent}, got none; create it first (mkdir -p)")
    taken = sorted(path.name for path in parent.glob(f"Dataset{match[1]}_*") if path.is_dir() and path.name != name)
    if taken:
        raise UsageError(f"{option}: expected a number not taken beside it, got {match[1]} of {taken[0]}; take another")


def reference_to(path: Path, folder: Path, *, relative: bool) -> str:
    """How dataset.json of the data set `folder` names a file."""
    absolute = os.path.abspath(path)  # noqa: PTH100  # Path.resolve would follow links
    return Path(os.path.relpath(absolute, folder.absolute())).as_posix() if relative else absolute


def _check_folder(folder: Path, source: Dataset, *, force: bool) -> None:
    check_dataset_name(folder, option="--new-dataset")
    if folder.exists():
        held = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
        held = {name for name in held if not name.startswith(".tmp-")}  # of a run that was killed
        others = held - {"dataset.json"}
        if others or (held and not force) or folder.absolute() == source.folder.absolute():
            cure = "choose another name" if others else "add --force to replace its dataset.json"
            raise UsageError(f"{folder}: expected no data set yet, got an existing one; {cure}")
