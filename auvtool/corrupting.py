"""A raw data set of which a known share of the cases is dirty: planned, written, and its answer key."""

import json
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from auvtool.atomic import as_output_error, put_folder_in_place, remove_folder, write_text
from auvtool.cases import Case, CaseProblem, Dataset, Fault
from auvtool.corruption.cases import Level
from auvtool.corruption.kinds import KINDS
from auvtool.corruption_records import MadeCase, Parts, fingerprint, parts_of
from auvtool.dataset import require_dataset_json, require_labels
from auvtool.errors import AuvtoolError, InputError, OutputError, UsageError, one_line
from auvtool.experiment_schema import ANSWER_KEY
from auvtool.failures import FAILURES_NAME, failure_row, write_failures
from auvtool.faults import FaultyVolume, put_fault
from auvtool.manifest import write_manifest
from auvtool.reference_dataset import check_dataset_name, reference_to
from auvtool.schema import Row
from auvtool.tables import write_table
from auvtool.volume import CaseVolume, read_case
from auvtool.volume_writing import file_ending, write_like
from auvtool.worker_pool import WorkerDied
from auvtool.workplace import HERE, Workplace

LevelChoice: TypeAlias = Level | Literal["mixed"]

ANSWER_KEY_NAME = "answer_key.csv"
DEFAULT_KINDS = tuple(name for name, kind in KINDS.items() if not kind.null_test)


@dataclass(frozen=True)
class DirtyCase:
    """A case to spoil: with the first of its faults that changes anything in it, which mostly is the first."""

    case: Case
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class CorruptionPlan:
    """What will be written; `clean` cases are named by reference, `problems` left out."""

    source: Dataset
    folder: Path
    clean: tuple[Case, ...]
    dirty: tuple[DirtyCase, ...]
    problems: tuple[CaseProblem, ...]
    force: bool

    def n_of_kind(self) -> dict[str, int]:
        """Cases dealt to each kind that has some, in the order of KINDS."""
        counts = Counter(item.faults[0].kind for item in self.dirty)
        return {kind: counts[kind] for kind in KINDS if counts[kind]}


@dataclass(frozen=True)
class SpoiltCase:
    """How a dirty case ended: its row of the answer key and entry of dataset.json, or its error."""

    case_id: str
    row: Row | None = None
    entry: Mapping[str, object] | None = None
    error: AuvtoolError | None = None
    fatal: bool = False
    is_substitute: bool = False


@dataclass(frozen=True)
class CorruptionResult:
    """The answer key, the failed cases (rows of the FAILURES table), and cases that took another kind than dealt.

    `n_made_before` dirty cases were there from a run that was killed.
    """

    key: tuple[Row, ...]
    failures: tuple[Row, ...]
    substituted: tuple[str, ...]
    n_made_before: int = 0


def plan_corruption(
    source: Dataset,
    folder: Path,
    *,
    share: float,
    kinds: Sequence[str] = DEFAULT_KINDS,
    level: LevelChoice = "mixed",
    seed: int = 0,
    force: bool = False,
) -> CorruptionPlan:
    """Which cases get which fault; no image is read and nothing is written.

    A share of the labelled cases (rounded, at least one) is drawn blindly. The kinds are dealt to them evenly: no two
    differ by more than one case. With "mixed" each kind goes through its levels in random order; a kind that has one
    level has that one, whatever is asked for.

    Raises:
        UsageError: the share is not in (0, 1], a kind is unknown or given twice, or `folder` cannot become a data set.
        InputError: `source` is no nnU-Net raw data set, or none of its cases has a label.
    """
    if not 0.0 < share <= 1.0:
        raise UsageError(f"--share: expected a number above 0 and up to 1, got {share:g}; 0.2 spoils one case in five")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds or len(set(kinds)) < len(kinds):
        wrong = ", ".join(unknown) or ("one twice" if kinds else "none")
        raise UsageError(f"--kinds: expected some of {', '.join(KINDS)}, each once, got {wrong}; correct them")
    check_dataset_name(folder, option="-o")
    _check_replaceable(folder, source, force=force)
    require_dataset_json(source, what="an nnU-Net raw data set")
    labelled = require_labels(source)
    generator = np.random.default_rng(seed)
    n_dirty = max(1, round(share * len(labelled.cases)))
    chosen = generator.permutation(len(labelled.cases))[:n_dirty]
    order = {kind: generator.permutation(len(KINDS[kind].levels)) for kind in kinds}
    cards = [str(kind) for _ in range(-(-n_dirty // len(kinds))) for kind in generator.permutation(list(kinds))]
    n_dealt: Counter[str] = Counter()
    dirty = []
    for position, kind in zip(chosen, cards, strict=False):
        case = labelled.cases[position]
        others = [str(other) for other in generator.permutation([other for other in kinds if other != kind])]
        faults = []
        for candidate in (kind, *others):
            levels = KINDS[candidate].levels
            turn = n_dealt[kind] if candidate == kind else int(generator.integers(len(levels)))
            drawn = levels[order[candidate][turn % len(levels)]]
            faults.append(
                Fault(candidate, _level(level, levels, drawn), seed, _donor(candidate, int(position), labelled, seed))
            )
        n_dealt[kind] += 1
        dirty.append(DirtyCase(case, tuple(faults)))
    spoilt = {item.case.case_id for item in dirty}
    return CorruptionPlan(
        source=labelled,
        folder=folder,
        clean=tuple(case for case in labelled.cases if case.case_id not in spoilt),
        dirty=tuple(sorted(dirty, key=lambda item: item.case.case_id)),
        problems=labelled.problems,
        force=force,
    )


def write_corrupt_dataset(
    plan: CorruptionPlan,
    *,
    options: Mapping[str, object],
    workplace: Workplace = HERE,
    on_case: Callable[[SpoiltCase], None] = lambda outcome: None,
    on_worker_died: Callable[[list[str]], None] = lambda case_ids: None,
) -> CorruptionResult:
    """Write the data set: what a fault changed as files of its own, all else by reference to the source.

    Beside dataset.json stand answer_key.csv with its manifest and, if cases failed, failures.csv; those cases are not
    in the data set. The folder appears whole or not at all; a run that was killed goes on where it stopped.

    Args:
        plan: from `plan_corruption`.
        options: for the manifest.
        workplace: where, and how many cases at once.
        on_case: told of each dirty case as it ends.
        on_worker_died: told which cases were in work when the system killed a worker.

    Raises:
        InputError: every dirty case failed; nothing is written.
        OutputError: the folder cannot be written.
    """
    parts = parts_of(plan.folder)
    with as_output_error(plan.folder):
        parts.open()
        meaning = plan.source.meaning()
        prints = {item.case.case_id: fingerprint(item.case, item.faults, parts, meaning=meaning) for item in plan.dirty}
        finished = parts.finished(prints)
    spoilt = [
        SpoiltCase(case_id, made.row, made.entry, is_substitute=made.is_substitute)
        for case_id, made in finished.items()
    ]
    for outcome in spoilt:
        on_case(outcome)
    waiting = [item for item in plan.dirty if item.case.case_id not in finished]
    with closing(_outcomes(plan, waiting, workplace, on_worker_died)) as outcomes:
        for outcome in outcomes:
            if outcome.error is not None and outcome.fatal:
                raise outcome.error
            spoilt.append(outcome)
            on_case(outcome)
    result = replace(_result(plan, spoilt), n_made_before=len(finished))
    if not any(row["dirty"] for row in result.key):
        remove_folder(parts.folder)
        raise InputError(
            plan.source.folder,
            expected="a case that a fault can be put into",
            found=f"'{result.failures[0]['error']}'",
            cure="choose other --kinds",
        )
    with as_output_error(plan.folder):
        _write_tables(plan, parts.dataset, result, {outcome.case_id: outcome.entry for outcome in spoilt}, options)
        put_folder_in_place(parts.dataset, plan.folder.absolute())
        remove_folder(parts.folder)
    return result


def spoil_case(item: DirtyCase, *, plan: CorruptionPlan, parts: Parts) -> SpoiltCase:
    """A dirty case in a worker: its files in `parts`; errors are returned, so that one bad case never ends the run."""
    case = item.case
    try:
        print_now = fingerprint(case, item.faults, parts, meaning=plan.source.meaning())
        volume = read_case(case, plan.source)
        faulty, fault = _put_first(volume, item, plan.source)
        row: Row = {
            "case": case.case_id,
            "dirty": True,
            "kind": fault.kind,
            "level": fault.level,
            "parameters": json.dumps(faulty.parameters, sort_keys=True),
            "dice": faulty.dice,
            "psnr": faulty.psnr,
        }
        with as_output_error(plan.folder):
            work = parts.work_folder(case.case_id)
            entry = _write_case(case, faulty.volume, KINDS[fault.kind].of, plan, work)
            made = MadeCase(row, entry, is_substitute=fault != item.faults[0])
            parts.take(case.case_id, made, print_now)
    except OutputError as error:
        return SpoiltCase(case.case_id, error=error, fatal=True)
    except AuvtoolError as error:
        return SpoiltCase(case.case_id, error=error)
    except Exception as error:  # becomes this case's row of the failure table
        return SpoiltCase(case.case_id, error=_not_spoilt(case.case_id, f"{type(error).__name__}: {one_line(error)}"))
    return SpoiltCase(case.case_id, row, entry, is_substitute=made.is_substitute)


def _level(asked: LevelChoice, levels: tuple[Level, ...], drawn: Level) -> Level:
    if asked == "mixed" or asked not in levels:
        return drawn
    return asked


def _donor(kind: str, position: int, source: Dataset, seed: int) -> Path | None:
    """The label of another case than that at `position`, for the kind that puts one in."""
    if kind != "other-label" or len(source.cases) < 2:
        return None
    step = int(np.random.default_rng([seed, position]).integers(1, len(source.cases)))
    return source.cases[(position + step) % len(source.cases)].label


def _check_replaceable(folder: Path, source: Dataset, *, force: bool) -> None:
    if not folder.exists():
        return
    holds_source = any(
        path.absolute().is_relative_to(folder.absolute()) for case in source.cases for path in case.images
    )
    if not (folder / ANSWER_KEY_NAME).is_file() or holds_source or folder.samefile(source.folder):
        raise UsageError(f"{folder}: expected no data set yet, got one that corrupt did not make; choose another name")
    if not force:
        raise UsageError(f"{folder}: expected no data set yet, got an existing one; add --force to replace it")


def _outcomes(
    plan: CorruptionPlan,
    items: Sequence[DirtyCase],
    workplace: Workplace,
    on_worker_died: Callable[[list[str]], None],
) -> Generator[SpoiltCase, None, None]:
    parts = parts_of(plan.folder)
    light = replace(plan, source=plan.source.without_cases(), clean=(), dirty=(), problems=())
    work = partial(spoil_case, plan=light, parts=parts)

    def died(lost: list[DirtyCase]) -> None:
        on_worker_died([item.case.case_id for item in lost])

    with closing(
        workplace.results(
            work, items, on_worker_died=died, size=lambda item: item.case.image_bytes(), shared=parts.folder
        )
    ) as results:
        for item, result in results:
            if isinstance(result, WorkerDied):
                error = _not_spoilt(item.case.case_id, "its worker process was killed; is memory short?")
                yield SpoiltCase(item.case.case_id, error=error)
            else:
                yield result


def _put_first(volume: CaseVolume, item: DirtyCase, source: Dataset) -> tuple[FaultyVolume, Fault]:
    """The case with the first fault that changes it; the error of the first one where none does."""
    first_error: InputError | None = None
    for fault in item.faults:
        try:
            return put_fault(volume, fault, source), fault
        except InputError as error:
            first_error = first_error or error
    raise first_error or _not_spoilt(item.case.case_id, "no fault was given")


def _write_case(
    case: Case, volume: CaseVolume, of: Literal["image", "label"], plan: CorruptionPlan, folder: Path
) -> dict[str, object]:
    """The files that the fault changed, and the case's entry of dataset.json."""
    own_axes = str(plan.source.raw.get("overwrite_image_reader_writer", "")).endswith("WithReorient")
    beside = _lie_together(plan)
    images = [reference_to(path, plan.folder, relative=beside) for path in case.images]
    label = None if case.label is None else reference_to(case.label, plan.folder, relative=beside)
    if of == "image":
        per_file = len(volume.image) // len(case.images)
        for number, source in enumerate(case.images):
            images[number] = f"imagesTr/{case.case_id}_{number:04d}{file_ending(source)}"
            voxels = volume.image[number * per_file : (number + 1) * per_file]
            write_like(folder / images[number], source, voxels, volume.geometry, own_axes=own_axes)
    elif case.label is not None and volume.label is not None:
        label = f"labelsTr/{case.case_id}{file_ending(case.label)}"
        voxels = volume.label[None]
        write_like(folder / label, case.label, voxels, volume.geometry, own_axes=own_axes, is_label=True)
    return {"images": images, "label": label}


def _lie_together(plan: CorruptionPlan) -> bool:
    """Whether both data sets lie in one folder, which can then be moved as a whole."""
    return plan.folder.absolute().parent == plan.source.folder.absolute().parent


def _result(plan: CorruptionPlan, spoilt: Sequence[SpoiltCase]) -> CorruptionResult:
    key: list[Row] = [{"case": case.case_id, "dirty": False, "dice": 1.0} for case in plan.clean]
    key += [outcome.row for outcome in spoilt if outcome.row is not None]
    failures = [failure_row(problem.case_id, "read", problem.error) for problem in plan.problems]
    failures += [
        failure_row(outcome.case_id, "corrupt", str(outcome.error)) for outcome in spoilt if outcome.error is not None
    ]
    return CorruptionResult(
        key=tuple(sorted(key, key=lambda row: str(row["case"]))),
        failures=tuple(sorted(failures, key=lambda row: str(row["case"]))),
        substituted=tuple(sorted(outcome.case_id for outcome in spoilt if outcome.is_substitute)),
    )


def _write_tables(
    plan: CorruptionPlan,
    folder: Path,
    result: CorruptionResult,
    entries: Mapping[str, Mapping[str, object] | None],
    options: Mapping[str, object],
) -> None:
    beside = _lie_together(plan)
    mapped: dict[str, object] = {
        case.case_id: {
            "images": [reference_to(path, plan.folder, relative=beside) for path in case.images],
            "label": None if case.label is None else reference_to(case.label, plan.folder, relative=beside),
        }
        for case in plan.clean
    }
    mapped |= {case_id: entry for case_id, entry in entries.items() if entry is not None}
    record = {**plan.source.raw, "numTraining": len(mapped), "dataset": dict(sorted(mapped.items()))}
    write_text(folder / "dataset.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n", force=True)
    write_table(result.key, ANSWER_KEY, folder / ANSWER_KEY_NAME, force=True)
    write_failures(result.failures, folder / FAILURES_NAME)
    write_manifest(
        folder / ANSWER_KEY_NAME,
        command="corrupt",
        options=options,
        inputs=[plan.source.folder],
        counts={
            "cases": len(result.key),
            "dirty": sum(bool(row["dirty"]) for row in result.key),
            "failed": len(result.failures),
        },
    )


def _not_spoilt(case_id: str, found: str) -> InputError:
    return InputError(case_id, expected="a case to spoil", found=f"'{found}'", cure="look at the case, or leave it out")
