"""nnU-Net's own fingerprint, plans and preprocessed cases, each made only where it is missing."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial as partial_function
from pathlib import Path
from typing import Any

from auvtool.atomic import atomic_path, move_into_place, require_writable
from auvtool.cases import Case, CaseProblem, Dataset
from auvtool.errors import InputError, one_line
from auvtool.interrupts import kept_from_children
from auvtool.json_text import json_text_of, parse_json
from auvtool.plural import counted
from auvtool.training.captured_output import captured_output
from auvtool.training.plans import read_plans
from auvtool.training.workspace import Workspace, leave_out, nnunet_dataset_json, refer_to_dataset
from auvtool.volume import read_case
from auvtool.worker_pool import WorkerDied, run_in_workers

DEFAULT_PLANS = "nnUNetPlans"
_PARTIAL = ".auvtool-"  # begin of the name of a hidden folder, in which cases are preprocessed
_CASE_ENDINGS = (".b2nd", "_seg.b2nd", ".pkl")  # the last one completes a case


@dataclass(frozen=True)
class Prepared:
    """A data set ready to train on.

    Attributes:
        plans: nnU-Net's plans as in their file.
        dataset_json: as the trainer takes it.
        case_ids: preprocessed cases, sorted.
        problems: cases that could not be read or preprocessed.
    """

    plans: dict[str, Any]
    dataset_json: dict[str, Any]
    case_ids: tuple[str, ...]
    problems: tuple[CaseProblem, ...]


def prepare(
    dataset: Dataset,
    workspace: Workspace,
    *,
    configuration: str,
    plans_name: str = DEFAULT_PLANS,
    jobs: int = 1,
    intensity_samples: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Prepared:
    """Plan `dataset` and preprocess its cases for `configuration`: all cases, so that runs on any keep list share them.

    Args:
        dataset: every case has a label.
        workspace: where to.
        configuration: of the plans, such as 3d_fullres.
        plans_name: of a plans file that exists, or nnU-Net's default.
        jobs: processes, each on one case.
        intensity_samples: voxels of the whole data set drawn for nnU-Net's intensity statistics (None: its own 1e8).
        say: told each step before it starts.

    Raises:
        InputError: no case is left, no such plans or configuration, or nnU-Net fails and no case explains it.
        OutputError: the disk is full, the folder is gone, or the like; no case is left out for that.
    """
    problems = refer_to_dataset(workspace, dataset)
    _remove_half_written(workspace, plans_name)
    usable = _without(dataset, problems)
    with workspace.environment(), captured_output(workspace.log):
        if not (workspace.dataset_folder / "dataset_fingerprint.json").is_file():
            found = _faulty_cases(usable, jobs=jobs, say=say)
            if found and (not workspace.is_own or len(found) == len(usable.cases)):
                raise InputError(
                    dataset.folder,
                    expected="cases that can be read",
                    found=found[0].error,
                    cure="correct or remove them",
                )
            if found:
                problems = (*problems, *found)
                leave_out(workspace, dataset, problems)
                usable = _without(dataset, problems)
            _fingerprint(usable, workspace, jobs=jobs, intensity_samples=intensity_samples, say=say)
        plans = _plans(workspace, plans_name, say)
        if configuration not in plans["configurations"]:
            raise InputError(
                f"{plans_name}.json of {workspace.dataset_name}",
                expected=f"a configuration among {', '.join(plans['configurations'])}",
                found=configuration,
                cure="choose one with --configuration",
            )
        failed = _preprocess(usable, workspace, plans, configuration=configuration, jobs=jobs, say=say)
    usable, problems = _without(usable, failed), (*problems, *failed)
    if not usable.cases:
        raise InputError(
            dataset.folder, expected="a case that can be preprocessed", found=problems[0].error, cure="check the files"
        )
    return Prepared(plans, nnunet_dataset_json(dataset), tuple(case.case_id for case in usable.cases), problems)


def _remove_half_written(workspace: Workspace, plans_name: str) -> None:
    """Remove what a killed run left in the middle: nnU-Net writes its JSON files in place and takes what is there.

    The workspace is locked. In folders of the user's own nnU-Net only what is ours is removed.
    """
    for partial in workspace.dataset_folder.glob(f"{_PARTIAL}*"):
        shutil.rmtree(partial)
    if workspace.is_own:
        for name in ("dataset_fingerprint.json", f"{plans_name}.json"):
            path = workspace.dataset_folder / name
            if path.is_file() and not _is_json(path):
                path.unlink()


def _is_json(path: Path) -> bool:
    try:
        parse_json(json_text_of(path))
    except ValueError:
        return False
    return True


def _without(dataset: Dataset, problems: Sequence[CaseProblem]) -> Dataset:
    lost = {problem.case_id for problem in problems}
    return replace(dataset, cases=tuple(case for case in dataset.cases if case.case_id not in lost))


def _faulty_cases(dataset: Dataset, *, jobs: int, say: Callable[[str], None]) -> tuple[CaseProblem, ...]:
    """Cases that cannot be read whole. nnU-Net would train on a file that a broken download cut off."""
    say(f"checking {counted(len(dataset.cases), 'case')}")
    return _problems(partial_function(_check_case, dataset=dataset), dataset.cases, jobs)


def _check_case(case: Case, *, dataset: Dataset) -> CaseProblem | None:
    try:
        read_case(case, dataset)
    except InputError as error:
        return CaseProblem(case.case_id, str(error))
    return None


def _problems(
    function: Callable[[Case], CaseProblem | None], cases: Sequence[Case], jobs: int
) -> tuple[CaseProblem, ...]:
    """What `function` finds at each case, in the order of the cases."""
    if jobs == 1 or len(cases) < 2:
        results = [function(case) for case in cases]
        return tuple(problem for problem in results if problem is not None)
    found: dict[str, CaseProblem] = {}
    for case, result in run_in_workers(function, cases, jobs=jobs, on_worker_died=lambda _: None):
        if isinstance(result, WorkerDied):
            found[case.case_id] = CaseProblem(
                case.case_id, f"{case.case_id}: the process that worked on it was killed; is memory short?"
            )
        elif result is not None:
            found[case.case_id] = result
    return tuple(found[case.case_id] for case in cases if case.case_id in found)


def _fingerprint(
    dataset: Dataset, workspace: Workspace, *, jobs: int, intensity_samples: int | None, say: Callable[[str], None]
) -> None:
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    say(f"nnU-Net: fingerprint of {counted(len(dataset.cases), 'case')}")
    extractor = DatasetFingerprintExtractor(workspace.dataset_name, num_processes=jobs)
    extractor.show_progress_bar = False
    if intensity_samples is not None:
        extractor.num_foreground_voxels_for_intensitystats = intensity_samples
    try:
        with kept_from_children():  # it has a pool of processes
            extractor.run(overwrite_existing=False)
    except Exception as error:
        require_writable(workspace.dataset_folder)
        raise InputError(
            dataset.folder,
            expected="cases that nnU-Net can read",
            found=f"'{one_line(error)}'",
            cure=f"see {workspace.log}",
        ) from error


def _files(case: Case) -> tuple[list[str], str]:
    return [str(path.absolute()) for path in case.images], str(case.label.absolute() if case.label else "")


def _plans(workspace: Workspace, plans_name: str, say: Callable[[str], None]) -> dict[str, Any]:
    path = workspace.dataset_folder / f"{plans_name}.json"
    if not path.is_file():
        if plans_name != DEFAULT_PLANS:
            raise InputError(
                path, expected="nnU-Net's plans", found="none", cure="make them with nnUNetv2_plan_experiment"
            )
        import torch
        from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

        say("nnU-Net: plans")
        n_threads = torch.get_num_threads()
        try:
            ExperimentPlanner(workspace.dataset_name).plan_experiment()
        except OSError:
            require_writable(workspace.dataset_folder)
            raise
        torch.set_num_threads(n_threads)
    return read_plans(path)


def _preprocess(
    dataset: Dataset,
    workspace: Workspace,
    plans: dict[str, Any],
    *,
    configuration: str,
    jobs: int,
    say: Callable[[str], None],
) -> tuple[CaseProblem, ...]:
    """Preprocess the cases that are not yet; a case appears whole or not at all."""
    folder = workspace.dataset_folder / plans["configurations"][configuration]["data_identifier"]
    folder.mkdir(exist_ok=True)
    missing = [
        case
        for case in dataset.cases
        if not all((folder / f"{case.case_id}{ending}").is_file() for ending in _CASE_ENDINGS)
    ]
    for case in dataset.cases:
        _copy_reference(case, workspace.dataset_folder / "gt_segmentations", dataset.file_ending)
    if not missing:
        return ()
    say(f"nnU-Net: preprocessing of {counted(len(missing), 'case')} for {configuration}")
    # Not inside `folder`, of which nnU-Net expects nothing but cases; on its disk, to be renamed.
    with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=workspace.dataset_folder) as partial:
        preprocess = partial_function(
            _preprocess_case,
            folder=folder,
            partial=Path(partial),
            plans=plans,
            configuration=configuration,
            dataset_json=nnunet_dataset_json(dataset),
        )
        failed = _problems(preprocess, missing, jobs)
        if failed:
            require_writable(Path(partial))
        return failed


def _preprocess_case(
    case: Case, *, folder: Path, partial: Path, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]
) -> CaseProblem | None:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans)
    settings = manager.get_configuration(configuration)
    try:
        settings.preprocessor_class(verbose=False).run_case_save(
            str(partial / case.case_id), *_files(case), manager, settings, dataset_json
        )
        for ending in _CASE_ENDINGS:
            move_into_place(partial / f"{case.case_id}{ending}", folder / f"{case.case_id}{ending}")
    except Exception as error:  # whatever nnU-Net stumbles over is that case's fault, if the disk is not to blame
        return CaseProblem(case.case_id, f"{case.case_id}: nnU-Net cannot preprocess it: {one_line(error)}")
    return None


def _copy_reference(case: Case, folder: Path, file_ending: str) -> None:
    """nnU-Net keeps the labels beside the preprocessed cases, for its own validation."""
    folder.mkdir(exist_ok=True)
    target = folder / f"{case.case_id}{file_ending}"
    if case.label is not None and (not target.is_file() or target.stat().st_mtime_ns < case.label.stat().st_mtime_ns):
        with atomic_path(target, force=True) as temporary:
            shutil.copy2(case.label, temporary)
