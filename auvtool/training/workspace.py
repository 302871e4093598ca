"""Where nnU-Net keeps a data set: its raw, preprocessed and results folders."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auvtool.atomic import as_output_error, holds_anything, write_text
from auvtool.cases import Case, CaseProblem, Dataset
from auvtool.errors import InputError, UsageError
from auvtool.json_text import json_text_of, parse_json
from auvtool.training.folds import read_or_make_splits

_VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
_SOURCE_FILE = "auvtool_source.json"


@dataclass(frozen=True)
class Workspace:
    """nnU-Net's three folders for one data set.

    Attributes:
        raw, preprocessed, results: what the nnUNet_* variables name.
        dataset_name: the data set's folder in each of them.
        is_own: auvtool made it, and may write it again when the data set changes.
    """

    raw: Path
    preprocessed: Path
    results: Path
    dataset_name: str
    is_own: bool

    @property
    def dataset_folder(self) -> Path:
        """The preprocessed data set."""
        return self.preprocessed / self.dataset_name

    @property
    def splits_file(self) -> Path:
        """nnU-Net's folds."""
        return self.dataset_folder / "splits_final.json"

    @property
    def log(self) -> Path:
        """What nnU-Net prints while it plans and preprocesses."""
        return self.dataset_folder / "auvtool_planning.log"

    @contextmanager
    def environment(self, *, augmentation_workers: int | None = 1, compiles: bool | None = None) -> Iterator[None]:
        """nnU-Net's environment variables for the block; nnU-Net reads its folders from them at each use.

        Args:
            augmentation_workers: processes that augment batches; 0, in this process, breaks its planner. None: as many
                as nnU-Net takes.
            compiles: whether nnU-Net compiles the network; None: as it takes it.
        """
        wanted = {
            "nnUNet_raw": str(self.raw),
            "nnUNet_preprocessed": str(self.preprocessed),
            "nnUNet_results": str(self.results),
            # Read once, at the first import of nnU-Net: its threads and processes.
            "nnUNet_def_n_proc": os.environ.get("nnUNet_def_n_proc", "1"),  # noqa: SIM112  # its name
        }
        if augmentation_workers is not None:
            wanted["nnUNet_n_proc_DA"] = str(augmentation_workers)
        if compiles is not None:
            wanted["nnUNet_compile"] = "true" if compiles else "false"
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Only one process at a time plans, preprocesses and appends folds; ends with the process that holds it."""
        with as_output_error(self.preprocessed):
            self.preprocessed.mkdir(parents=True, exist_ok=True)
        # Beside the folder, which may be removed and made again.
        with (self.preprocessed / f".{self.dataset_name}.lock").open("a") as file:
            try:
                import fcntl
            except ImportError:  # Windows has none: there, do not start two runs at once in a new workspace
                yield
                return
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def choose_workspace(dataset: Dataset, *, folder: Path | None, run: Path) -> Workspace:
    """`folder` if given; else the nnUNet_* variables if the data set lies in nnUNet_raw; else a folder beside `run`.

    Nothing is written yet.

    Raises:
        UsageError: `folder` is a file.
    """
    if folder is None and all(os.environ.get(name) for name in _VARIABLES):
        raw, preprocessed, results = (Path(os.environ[name]) for name in _VARIABLES)
        if dataset.folder.resolve().parent == raw.resolve() and _is_nnunet_name(dataset.name):
            return Workspace(raw, preprocessed, results, dataset.name, is_own=False)
    folder = run.parent / "nnUNet_workspace" if folder is None else folder
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: expected a folder for nnU-Net's files, got a file; name another --workspace")
    folder = folder.absolute()
    raw, preprocessed, results = (folder / name for name in _VARIABLES)
    name = dataset.name if _is_nnunet_name(dataset.name) else f"Dataset000_{_plain(dataset.name)}"
    return Workspace(raw, preprocessed, results, name, is_own=True)


def _is_nnunet_name(name: str) -> bool:
    return re.fullmatch(r"Dataset\d{3}_[^/]+", name) is not None


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_") or "data"


def nnunet_dataset_json(dataset: Dataset) -> dict[str, Any]:
    """dataset.json as nnU-Net's trainer and predictor need it: the user's own, without the map of files.

    Raises:
        InputError: a plain folder whose label values are not consecutive from 1.
    """
    if dataset.raw:
        return {key: value for key, value in dataset.raw.items() if key != "dataset"}
    values = [semantic_class.class_id for semantic_class in dataset.classes]
    if values != list(range(1, len(values) + 1)) or not values:
        raise InputError(
            dataset.folder,
            expected="label values 1, 2, ... without a gap",
            found=", ".join(map(str, values)) or "none",
            cure="renumber the labels, or give the folder a dataset.json",
        )
    return {
        "channel_names": {str(channel): name for channel, name in enumerate(dataset.channel_names)},
        "labels": {"background": 0, **{item.name: item.class_id for item in dataset.classes}},
        "numTraining": len(dataset.cases),
        "file_ending": dataset.file_ending,
    }


def refer_to_dataset(workspace: Workspace, dataset: Dataset) -> tuple[CaseProblem, ...]:
    """Make the data set known in an own workspace by reference: a dataset.json that names the user's files.

    No scan is copied or linked. When cases have changed since the last time, what was preprocessed is removed.

    Returns:
        The cases that an earlier run had to leave out (`leave_out`).

    Raises:
        UsageError: the workspace holds a data set of that name that auvtool did not put there.
    """
    if not workspace.is_own:
        return ()
    source_file = workspace.dataset_folder / _SOURCE_FILE
    record = _read_record(source_file)
    problems: tuple[CaseProblem, ...] = ()
    if record is not None and record["sha256"] == _source_digest(dataset):
        problems = tuple(CaseProblem(case_id, error) for case_id, error in record["left_out"].items())
    elif workspace.dataset_folder.exists():
        if record is None and holds_anything(workspace.dataset_folder):
            raise UsageError(
                f"{workspace.dataset_folder}: expected a folder of auvtool, got another; name another --workspace"
            )
        shutil.rmtree(workspace.dataset_folder)
    leave_out(workspace, dataset, problems)
    _take_splits(workspace, dataset.folder / "splits_final.json")
    return problems


def _take_splits(workspace: Workspace, source: Path) -> None:
    """Copy the data set's own folds, or see that the workspace's, which may have more at the end, are still these."""
    if not source.is_file():
        return
    wanted, held = (read_or_make_splits(path, ()) for path in (source, workspace.splits_file))
    if held[: len(wanted)] == wanted:
        return
    if wanted[: len(held)] != held:
        raise UsageError(
            f"{workspace.splits_file}: expected the folds of {source}, got others; name another --workspace"
        )
    write_text(workspace.splits_file, source.read_text(encoding="utf-8"), force=True)


def leave_out(workspace: Workspace, dataset: Dataset, problems: Sequence[CaseProblem]) -> None:
    """Write the reference to `dataset` (all its cases) without those that cannot be used, and remember these."""
    raw_folder = workspace.raw / workspace.dataset_name
    for path in (raw_folder, workspace.dataset_folder, workspace.results):
        path.mkdir(parents=True, exist_ok=True)
    left_out = {problem.case_id: problem.error for problem in problems}
    record = {"sha256": _source_digest(dataset), "left_out": left_out}
    # Before all else: a folder that holds other files but not this one is not ours.
    write_text(workspace.dataset_folder / _SOURCE_FILE, _json(record), force=True)
    files = {
        case.case_id: {"images": [str(path.absolute()) for path in case.images], "label": str(_label(case).absolute())}
        for case in dataset.cases
        if case.case_id not in left_out
    }
    described = {**nnunet_dataset_json(dataset), "numTraining": len(files), "dataset": files}
    write_text(raw_folder / "dataset.json", _json(described), force=True)


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = parse_json(json_text_of(path))
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _label(case: Case) -> Path:
    if case.label is None:
        raise ValueError(f"{case.case_id}: a training case needs a label")
    return case.label


def _source_digest(dataset: Dataset) -> str:
    """Of everything that planning and preprocessing depend on: dataset.json, and name, size and time of each file."""
    files = [
        (case.case_id, path.name, path.stat().st_size, path.stat().st_mtime_ns)
        for case in dataset.cases
        for path in (*case.images, _label(case))
    ]
    text = json.dumps([nnunet_dataset_json(dataset), files], sort_keys=False)
    return hashlib.sha256(text.encode()).hexdigest()
