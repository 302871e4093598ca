"""The downstream experiment from a data set to its metrics: train, predict and eval of every arm, as commands."""

import json
import re
import shlex
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from auvtool.atomic import as_output_error, holds_anything, write_text
from auvtool.benchmark.downstream_plan import LOSS_OPTIONS, LOSS_PARTS, Candidates, Plan, Training, worst_first
from auvtool.benchmark.marker import differing
from auvtool.cases import Dataset
from auvtool.command_chain import Step, run_chains
from auvtool.errors import InputError, UsageError
from auvtool.json_text import json_text_of, parse_json
from auvtool.manifest import input_digest, manifest_path
from auvtool.schema import KEEP_LIST, METRICS, Row
from auvtool.tables import read_table, write_table
from auvtool.training.folds import read_or_make_splits
from auvtool.training.loss_options import without_idle

MARKER = "downstream.json"
FOLDERS = ("keep", "runs", "predictions", "metrics", "logs")
# What the experiment says itself, or what would make the arms differ.
_OWN_OPTION = re.compile(
    r"-[ojfnqvh].*|--(output|keep|workspace|fold|folds|val-cases|loss|(no-)?reweight|(no-)?denoise|seed|device|jobs|force|dry-run|quiet|verbose|config|help)"
    r"(=.*)?"
)


@dataclass(frozen=True)
class Experiment:
    """One experiment, ready to run.

    Attributes:
        folder: where everything is put.
        dataset: with its dirty cases.
        test_images, test_labels: the clean test set.
        validation: the clean cases that every training validates on, and none trains on.
        plan: what is trained.
        train_options: of `train`, the same for every arm; those of DUO's loss only where the arm has that part of it.
        device: to train and predict on.
        jobs: trainings at once.
    """

    folder: Path
    dataset: Dataset
    test_images: Path
    test_labels: Path
    validation: tuple[str, ...]
    plan: Plan
    train_options: tuple[str, ...] = ()
    device: str = "cpu"
    jobs: int = 1

    def metrics(self, training: Training) -> Path:
        """METRICS table of a training, on the test cases."""
        return self.folder / "metrics" / f"{training.name}.csv"

    def run_folder(self, training: Training) -> Path:
        """Results folder of a training."""
        return self.folder / "runs" / training.name

    def keep_list(self, training: Training) -> Path:
        """KEEP_LIST table of a training."""
        return self.folder / "keep" / f"{training.name}.csv"


def parse_train_options(text: str) -> tuple[str, ...]:
    """The words of --train.

    Raises:
        UsageError: a quote is not closed, or an option that the experiment sets itself.
    """
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"--train: expected options of auvtool train in quotes, got '{text}'; {error}") from error
    for word in words:
        if _OWN_OPTION.fullmatch(word):
            raise UsageError(
                f"--train: expected options that are the same for every arm, got {word}; leave it out, bench sets it"
            )
    return words


def choose_validation(dataset: Dataset, dirty: Collection[str], *, named: Sequence[str] | None) -> tuple[str, ...]:
    """The clean cases to validate on: those named, else the clean ones of fold 0.

    Fold 0 is that of the data set's splits_final.json, or nnU-Net's own. Its dirty cases are trained on: they are what
    the arms differ in. Nothing is chosen by validation, because the last checkpoint is what predicts.

    Raises:
        UsageError: a case named is dirty or not in the data set, or fold 0 has no clean case.
    """
    case_ids = [case.case_id for case in dataset.cases]
    if named is not None:
        wrong = sorted(set(named) - set(case_ids)) or sorted(set(named) & set(dirty))
        if wrong:
            raise UsageError(
                f"--val-cases: expected clean cases of {dataset.name}, got {', '.join(wrong[:5])}; correct the list"
            )
        return tuple(sorted(set(named)))
    splits = read_or_make_splits(dataset.folder / "splits_final.json", case_ids)
    clean = sorted(set(splits[0]["val"] if splits else ()) & set(case_ids) - set(dirty))
    if not clean:
        raise UsageError(
            f"{dataset.folder}: expected a clean validation case in fold 0, got none; name some with --val-cases"
        )
    return tuple(clean)


def find_candidates(
    dataset: Dataset, key: Sequence[Row], scores: Mapping[str, Sequence[Row]], *, named: Sequence[str] | None
) -> tuple[Candidates, tuple[str, ...]]:
    """The cases that may be trained on, and those to validate on (`choose_validation`).

    Raises:
        InputError: a case of the data set cannot be used or is not in the key, a table is of another data set, or no
            case that may be trained on is dirty, or none is clean.
    """
    if dataset.problems:
        raise InputError(
            dataset.folder,
            expected="cases that can all be used",
            found=f"'{dataset.problems[0].error}'",
            cure="correct or remove it",
        )
    case_ids = {case.case_id for case in dataset.cases}
    for name, rows in {"the answer key": key, **scores}.items():
        listed = {str(row["case"]) for row in rows}
        missing = sorted(case_ids - listed) if rows is key else []
        if missing or listed - case_ids:
            raise InputError(
                name,
                expected=f"the cases of {dataset.name}",
                found=f"no row of {missing[0]}" if missing else f"others, such as {min(listed - case_ids)}",
                cure="give the table of this data set",
            )
    dirty = worst_first(key)
    validation = choose_validation(dataset, dirty, named=named)
    candidates = Candidates(
        tuple(sorted(case_ids - set(validation))),
        tuple(case_id for case_id in dirty if case_id in case_ids),
        scores,
    )
    if not 0 < len(candidates.severity) < len(candidates.case_ids):
        raise InputError(
            "the answer key",
            expected="dirty and clean cases to train on",
            found=f"{len(candidates.severity)} dirty of {len(candidates.case_ids)}",
            cure="give the key that auvtool corrupt wrote",
        )
    return candidates, validation


def chain(experiment: Experiment, training: Training, *, prepare_jobs: int = 1) -> tuple[Step, ...]:
    """The commands of one training: train, predict the test images, eval."""
    run, keep = experiment.run_folder(training), experiment.keep_list(training)
    predictions, metrics = experiment.folder / "predictions" / training.name, experiment.metrics(training)
    train = (
        *("train", experiment.dataset.folder, "--keep", keep, "-o", run),
        # One workspace, so that the data set is planned and preprocessed once.
        *("--workspace", experiment.folder / "workspace", "--val-cases", experiment.folder / "val_cases.txt"),
        *LOSS_OPTIONS[training.loss],
        *("--seed", training.seed, "--device", experiment.device, "-j", prepare_jobs),
        *("--no-validate", *without_idle(experiment.train_options, LOSS_PARTS[training.loss])),
    )
    predict = ("predict", run, experiment.test_images, "-o", predictions, "--device", experiment.device)
    classes = ("-d", experiment.dataset.folder) if experiment.dataset.raw else ()
    evaluate = ("eval", predictions, experiment.test_labels, *classes, "-o", metrics)
    outputs = (manifest_path(run), manifest_path(predictions), metrics)
    return tuple(
        Step(f"{arguments[0]}_{training.name}", tuple(map(str, arguments)), output)
        for arguments, output in zip((train, predict, evaluate), outputs, strict=True)
    )


def open_folder(experiment: Experiment, *, force: bool) -> None:
    """Make the experiment's folder with its keep lists, or find the same experiment in it, to go on with.

    Args:
        experiment: what will be run.
        force: remove what an earlier experiment left; only a folder that one made is ever removed.

    Raises:
        UsageError: the folder holds something else, or an experiment with another plan.
    """
    folder, record = experiment.folder, _record(experiment)
    marker = folder / MARKER
    check_folder(experiment, force=force)
    if marker.is_file() and force:
        shutil.rmtree(folder)
    with as_output_error(folder):
        folder.mkdir(exist_ok=True)
    if not marker.is_file():  # before all else: a folder that holds other files but not this one is not ours
        write_text(marker, json.dumps(record, indent=1, ensure_ascii=False) + "\n", force=False)
    with as_output_error(folder):
        for name in FOLDERS:
            (folder / name).mkdir(exist_ok=True)
    write_text(folder / "val_cases.txt", "".join(f"{name}\n" for name in experiment.validation), force=True)
    for training in experiment.plan.trainings:
        keeps = {*training.kept, *experiment.validation}
        rows: list[Row] = [{"case": case.case_id, "keep": case.case_id in keeps} for case in experiment.dataset.cases]
        write_table(rows, KEEP_LIST, experiment.keep_list(training), force=True)


def check_folder(experiment: Experiment, *, force: bool) -> None:
    """Raise if `open_folder` would; nothing is written."""
    folder, record = experiment.folder, _record(experiment)
    marker = folder / MARKER
    if marker.is_file():
        others = differing(marker, record)
        if others and not force:
            raise UsageError(
                f"{folder}: expected an experiment with the same plan, got one with other {', '.join(others)}; "
                "name another folder, or add --force to start again"
            )
    elif folder.exists() and (not folder.is_dir() or holds_anything(folder)):
        raise UsageError(f"{folder}: expected no folder yet, got one that no experiment made; name another with -o")
    if not folder.parent.is_dir():
        raise UsageError(f"{folder}: expected an existing folder {folder.parent}, got none; create it first")


def _record(experiment: Experiment) -> dict[str, object]:
    """All that decides the result."""
    plan = experiment.plan
    return {
        "data set": [experiment.dataset.name, input_digest(experiment.dataset.folder)],
        "test set": [input_digest(experiment.test_images), input_digest(experiment.test_labels)],
        "validation cases": list(experiment.validation),
        "training options": list(experiment.train_options),
        "device": experiment.device,
        "arms": [[run.arm, run.ratio, run.seed, run.training.name, run.n_dirty_left] for run in plan.runs],
        "training cases": {training.name: list(training.kept) for training in plan.trainings},
    }


def n_done(experiment: Experiment) -> int:
    """Trainings that have their metrics."""
    return sum(experiment.metrics(training).exists() for training in experiment.plan.trainings)


def run(experiment: Experiment, *, show: bool, say: Callable[[str], None]) -> None:
    """Run what is not done yet; the folder is open (`open_folder`).

    The first training runs alone: it plans and preprocesses all cases in the workspace, where the others, `jobs` at a
    time, find them. `train` locks the workspace while it prepares and appends a fold, so those do not disturb each
    other.

    Raises:
        StepFailed: a command ended with an error.
    """
    first, *others = experiment.plan.trainings
    logs = experiment.folder / "logs"
    run_chains([chain(experiment, first, prepare_jobs=experiment.jobs)], logs=logs, at_once=1, show=show, say=say)
    run_chains(
        [chain(experiment, training) for training in others], logs=logs, at_once=experiment.jobs, show=show, say=say
    )


def read_metrics(experiment: Experiment) -> dict[str, list[Row]]:
    """METRICS rows of each training, by its name.

    Raises:
        InputError: a training had other cases than planned, because some could not be used.
    """
    for training in experiment.plan.trainings:
        path = manifest_path(experiment.run_folder(training))
        counts = parse_json(json_text_of(path))["counts"]
        if counts["train"] != len(training.kept):
            raise InputError(
                path,
                expected=f"a training on {len(training.kept)} cases",
                found=counts["train"],
                cure=f"read {experiment.folder / 'logs'}, correct the data set and start again with --force",
            )
    return {training.name: read_table(experiment.metrics(training), METRICS) for training in experiment.plan.trainings}
