"""One training from data set to checkpoint: workspace, plans, fold, trainer, run folder."""

import json
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auvtool.atomic import as_output_error, holds_anything, write_text
from auvtool.backbones import BACKBONES, require_package, require_scan
from auvtool.cases import CaseProblem, Dataset
from auvtool.device import torch_device
from auvtool.errors import InputError, UsageError
from auvtool.json_text import json_text_of, parse_json
from auvtool.plural import counted
from auvtool.training.folds import Fold, choose_fold, read_or_make_splits, require_every_class, write_fold
from auvtool.training.job import FINAL, LATEST, Job, run_job
from auvtool.training.plans import adapted_plans, read_plans, resolved_configuration
from auvtool.training.preparation import prepare
from auvtool.training.recipe import Recipe
from auvtool.training.workspace import Workspace, choose_workspace

RUN_FILE = "auvtool_run.json"


@dataclass(frozen=True)
class Request:
    """What to train on and where to put it; what is left out of `Recipe` because it does not change the result.

    Attributes:
        dataset: labelled cases.
        run: the results folder to write.
        recipe: all that decides the result.
        kept: ids to train on (None: all).
        fold: nnU-Net's fold to start from.
        val_cases: ids to validate on, instead of a fold's.
        workspace: folder for nnU-Net's files (None: see `choose_workspace`).
        device: cpu, cuda, cuda:N.
        n_processes: that share each batch, one a GPU.
        threads: of torch, in each process.
        compile: the network, on a GPU; None: nnU-Net's default.
        augmentation_workers: processes; None: none on a CPU, nnU-Net's number on a GPU.
        jobs: cases planned and preprocessed at once.
        validate: run nnU-Net's validation on the whole scans in the end.
        force: throw away what `run` holds.
        intensity_samples: see `prepare`.
    """

    dataset: Dataset
    run: Path
    recipe: Recipe
    kept: Collection[str] | None = None
    fold: int = 0
    val_cases: Sequence[str] | None = None
    workspace: Path | None = None
    device: str = "cpu"
    n_processes: int = 1
    threads: int = 1
    compile: bool | None = None
    augmentation_workers: int | None = None
    jobs: int = 1
    validate: bool = False
    force: bool = False
    intensity_samples: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What a training left behind.

    Attributes:
        checkpoint: the final one.
        fold: the cases it was trained and validated on.
        problems: cases that could not be used.
        resumed_at: the epoch that it went on from; None: from the start; the last: there was nothing left to do.
    """

    checkpoint: Path
    fold: Fold
    problems: tuple[CaseProblem, ...]
    resumed_at: int | None


@dataclass(frozen=True)
class Outlook:
    """What `train` would do, as far as it can be known without planning.

    Attributes:
        workspace: nnU-Net's folders.
        fold: the cases; None: they depend on which can be read.
        patch_size, batch_size: None before planning.
        is_resumed: the run has a checkpoint to go on from.
    """

    workspace: Workspace
    fold: Fold
    patch_size: tuple[int, ...] | None
    batch_size: int | None
    is_resumed: bool


def look_ahead(request: Request) -> Outlook:
    """What `train` would do; nothing is written.

    Raises:
        UsageError, InputError: what `train` would refuse before it starts.
    """
    workspace = choose_workspace(request.dataset, folder=request.workspace, run=request.run)
    _check_record(request)
    _require_backbone(request, request.recipe.patch_size)
    _check_device(request)
    fold = _choose_fold(request, workspace, [case.case_id for case in request.dataset.cases])
    plans_file = workspace.dataset_folder / f"{request.recipe.plans_name}.json"
    patch_size, batch_size = request.recipe.patch_size, request.recipe.batch_size
    if plans_file.is_file():
        plans = adapted_plans(read_plans(plans_file), request.recipe)
        configuration = resolved_configuration(plans, request.recipe.configuration)
        _require_backbone(request, configuration["patch_size"])
        patch_size, batch_size = tuple(configuration["patch_size"]), configuration["batch_size"]
    folder = request.run / f"fold_{fold.number}"
    is_resumed = not request.force and any((folder / name).is_file() for name in (FINAL, LATEST))
    return Outlook(workspace, fold, patch_size, batch_size, is_resumed)


def train(
    request: Request,
    *,
    say: Callable[[str], None] = lambda _: None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Outcome:
    """Plan, preprocess, train and export; each only as far as it is not done yet.

    `request.run` becomes a results folder that stock nnU-Net predicts from. The same request again goes on from the
    last epoch, or returns at once when there is nothing left to do.

    Args:
        request: what to do.
        say: told each step before it starts.
        on_epoch: given the log's row of each epoch.

    Raises:
        UsageError: `run` holds a training with other options; see also `choose_fold`.
        InputError: the data set cannot be trained on, or the loss is not finite.
        OutputError: the disk is full, or the like.
    """
    dataset, recipe = request.dataset, request.recipe
    workspace = choose_workspace(dataset, folder=request.workspace, run=request.run)
    _check_record(request)
    _check_device(request)  # before hours of preprocessing
    _require_backbone(request, recipe.patch_size)
    with workspace.lock():
        prepared = prepare(
            dataset,
            workspace,
            configuration=recipe.configuration,
            plans_name=recipe.plans_name,
            jobs=request.jobs,
            intensity_samples=request.intensity_samples,
            say=say,
        )
        plans = adapted_plans(prepared.plans, recipe)
        configuration = resolved_configuration(plans, recipe.configuration)
        _require_backbone(request, configuration["patch_size"])
        _check_processes(request, batch_size=configuration["batch_size"])
        splits = read_or_make_splits(workspace.splits_file, prepared.case_ids)
        fold = _choose_fold(request, workspace, prepared.case_ids)
        require_every_class(workspace.dataset_folder / configuration["data_identifier"], fold, dataset.classes)
        write_fold(workspace.splits_file, splits, fold)
    _open_run(request, fold)
    final = request.run / f"fold_{fold.number}" / FINAL
    is_validated = not request.validate or (final.parent / "validation" / "summary.json").is_file()
    if final.is_file() and is_validated:
        return Outcome(final, fold, prepared.problems, recipe.epochs)
    n_asked = sum(request.kept is not None and case_id not in request.kept for case_id in fold.val)
    unchanged = f", {n_asked} of which the keep list drops: they stay" if n_asked else ""
    say(
        f"training on {counted(len(fold.train), 'case')}, validating on {len(fold.val)}{unchanged} (fold {fold.number})"
    )
    planned = recipe.patch_size or resolved_configuration(prepared.plans, recipe.configuration)["patch_size"]
    if list(planned) != list(configuration["patch_size"]):
        say(f"patch {_sides(configuration['patch_size'])}: {_sides(planned)} rounded up to what the network can halve")
    workers = request.augmentation_workers
    job = Job(
        run=request.run,
        workspace=workspace,
        recipe=recipe,
        plans=plans,
        dataset_json=prepared.dataset_json,
        fold=fold,
        class_names=tuple(class_names(dataset)),
        device=request.device,
        n_processes=request.n_processes,
        threads=request.threads,
        augmentation_workers=0 if workers is None and request.device == "cpu" else workers,
        compile=request.compile,
        validate=request.validate,
    )
    return Outcome(final, fold, prepared.problems, run_job(job, on_epoch))


def _sides(patch_size: Sequence[int]) -> str:
    return " x ".join(map(str, patch_size))


def _require_backbone(request: Request, patch_size: Sequence[int] | None) -> None:
    name = request.recipe.backbone
    if name in BACKBONES:
        require_package(BACKBONES[name].network_class_name)
    if patch_size is not None:
        require_scan(name, patch_size=patch_size, device=request.device)


def _choose_fold(request: Request, workspace: Workspace, case_ids: Sequence[str]) -> Fold:
    return choose_fold(
        read_or_make_splits(workspace.splits_file, case_ids),
        case_ids=set(case_ids),
        number=request.fold,
        val_cases=request.val_cases,
        kept=request.kept,
    )


def _check_device(request: Request) -> None:
    """Raise if the device cannot do what is asked of it."""
    if request.device == "cpu" and request.recipe.amp == "fp16":
        raise UsageError("--amp: expected bf16 or off on a CPU, got fp16; choose one of them")
    if request.device == "cpu" and request.compile:
        raise UsageError("--compile: expected a GPU, got a CPU, for which nnU-Net compiles nothing; leave it out")
    if request.device != "cpu":
        torch_device(request.device)
    _check_processes(request, batch_size=request.recipe.batch_size)


def _check_processes(request: Request, *, batch_size: int | None) -> None:
    if request.n_processes > 1:
        from auvtool.training.processes import check_processes

        check_processes(request.n_processes, device=request.device, batch_size=batch_size)


def class_names(dataset: Dataset) -> list[str]:
    """Names of the foreground classes in the order of the network's outputs."""
    classes = dataset.classes if dataset.has_regions else sorted(dataset.classes, key=lambda item: item.class_id)
    return [item.name for item in classes]


def _record(request: Request) -> dict[str, Any]:
    """What must be the same for a run to be resumed, or to get another fold."""
    return {
        "recipe": request.recipe.to_dict(),
        "dataset": request.dataset.name,
        "kept": None if request.kept is None else sorted(request.kept),
        "val_cases": None if request.val_cases is None else sorted(request.val_cases),
    }


def _check_record(request: Request) -> None:
    """Raise if `run` holds anything but the same training."""
    path = request.run / RUN_FILE
    if request.run.exists() and not request.run.is_dir():
        raise UsageError(f"{request.run}: expected a folder to write, got a file; name a folder")
    if request.force or not request.run.is_dir():
        return
    if not path.is_file():
        if holds_anything(request.run):
            raise UsageError(
                f"{request.run}: expected a new folder or a run of auvtool, got another; name a new folder"
            )
        return
    held = _read_record(path)
    wanted = _record(request)
    named = {"dataset": "data set", "kept": "keep list", "val_cases": "val cases"}
    differing = [name for key, name in named.items() if held.get(key) != wanted[key]]
    # Options that an older version did not know were at their defaults.
    old, new = Recipe.from_dict(held.get("recipe", {})).to_dict(), wanted["recipe"]
    differing += [
        key if isinstance(new[key] or old[key], dict) else f"{key} {old[key]} (now {new[key]})"
        for key in new
        if old[key] != new[key]
    ]
    if differing:
        raise UsageError(
            f"{request.run}: expected a run with the same options, got others: {', '.join(differing)}; "
            "name another folder, or add --force to start again"
        )


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = parse_json(json_text_of(path))
    except (OSError, ValueError) as error:
        raise InputError(path, expected="the record of a run", found="other content", cure="add --force") from error
    return record if isinstance(record, dict) else {}


def _open_run(request: Request, fold: Fold) -> None:
    """Write the run's record, with this fold; with `force`, first remove the folds that an earlier record names."""
    path = request.run / RUN_FILE
    split = {"train": list(fold.train), "val": list(fold.val), "dropped": list(fold.dropped)}
    folds = _read_record(path).get("folds", {}) if path.is_file() else {}
    if request.force:
        for number in {*folds, fold.number}:
            shutil.rmtree(request.run / f"fold_{number}", ignore_errors=True)
        folds = {}
    elif folds.get(str(fold.number), split) != split:
        raise UsageError(
            f"{request.run}: expected fold {fold.number} as it was, got other cases; "
            "name another folder, or add --force to start again"
        )
    record = {**_record(request), "folds": {**folds, str(fold.number): split}}
    with as_output_error(request.run):
        request.run.mkdir(parents=True, exist_ok=True)
        # Before all else: a folder that holds other files but not this one is not ours.
        write_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n", force=True)
        (request.run / f"fold_{fold.number}").mkdir(exist_ok=True)
