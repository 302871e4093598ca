"""A public data set as downloaded made into an nnU-Net raw data set: planned, written, resumed."""

import json
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from auvtool.atomic import as_output_error, put_folder_in_place, write_text
from auvtool.cases import CaseProblem
from auvtool.conversion_plan import ConversionPlan, PlannedCase
from auvtool.conversion_records import (
    RECORDS,
    fingerprint,
    finished_cases,
    remove_unfinished,
    take_over,
    write_record,
)
from auvtool.converters.case_files import CaseFiles, CaseTarget, make_case_files
from auvtool.errors import AuvtoolError, InputError, OutputError, one_line
from auvtool.failures import FAILURES_NAME, failure_row, write_failures
from auvtool.manifest import write_manifest
from auvtool.schema import QUIRKS, Row
from auvtool.tables import write_table
from auvtool.worker_pool import WorkerDied
from auvtool.workplace import HERE, Workplace

QUIRKS_NAME = "quirks.csv"

CaseWork: TypeAlias = tuple[PlannedCase, str]  # with its fingerprint


@dataclass(frozen=True)
class CaseOutcome:
    """How a case ended; `fatal` errors are of the disk and end the run."""

    case_id: str
    made: CaseFiles | None = None
    error: AuvtoolError | None = None
    fatal: bool = False


@dataclass(frozen=True)
class ConversionResult:
    """Rows of the QUIRKS and of the FAILURES table, cases by part, and how many of them were there before."""

    quirks: tuple[Row, ...]
    failures: tuple[Row, ...]
    n_training: int
    n_test: int
    n_made_before: int


def write_converted_dataset(
    plan: ConversionPlan,
    *,
    options: Mapping[str, object],
    workplace: Workplace = HERE,
    on_case: Callable[[str], None] = lambda case_id: None,
    on_worker_died: Callable[[list[str]], None] = lambda case_ids: None,
) -> ConversionResult:
    """Write the data set; a run that was killed goes on where it stopped.

    Cases are made in a hidden folder beside the data set, which is renamed when all is done. Beside dataset.json stand
    quirks.csv, with a validation part splits_final.json, and, if cases failed, failures.csv; those cases are not in the
    data set. A data set that is replaced gives its finished cases to the new one.

    Args:
        plan: from `plan_conversion`.
        options: for the manifest.
        workplace: where, and how many cases at once.
        on_case: told of each case as it ends, those made before among them.
        on_worker_died: told which cases were in work when the system killed a worker.

    Raises:
        InputError: every training case failed; no data set is written.
        OutputError: the folder cannot be written.
    """
    folder = plan.folder.absolute()
    parts = folder.with_name(f".{folder.name}.parts")
    target = _target(plan, parts)
    prints = {item.source.case_id: fingerprint(item.source, is_test=item.is_test, target=target) for item in plan.cases}
    with as_output_error(plan.folder):
        (parts / RECORDS).mkdir(parents=True, exist_ok=True)
        if folder.exists():
            take_over(folder, parts, prints)
        finished = finished_cases(parts, prints)
        remove_unfinished(parts, finished)
    for case_id in finished:
        on_case(case_id)
    outcomes = [CaseOutcome(case_id, made) for case_id, made in finished.items()]
    waiting = [(item, prints[item.source.case_id]) for item in plan.cases if item.source.case_id not in finished]
    work = partial(_make_case, target=target)
    with closing(_outcomes(work, waiting, workplace, on_worker_died)) as results:
        for outcome in results:
            if outcome.error is not None and outcome.fatal:
                raise outcome.error
            outcomes.append(outcome)
            on_case(outcome.case_id)
    made = {outcome.case_id: outcome.made for outcome in outcomes if outcome.made is not None}
    result = _result(plan, outcomes, made, n_made_before=len(finished))
    if not result.n_training:
        if not made:
            shutil.rmtree(parts, ignore_errors=True)
        raise InputError(
            plan.source_folder,
            expected="a case that can be trained on",
            found=f"'{result.failures[0]['error']}'" if result.failures else "none",
            cure="correct the cases, then run again",
        )
    with as_output_error(plan.folder):
        _write_tables(plan, parts, result, made, options)
        put_folder_in_place(parts, folder)
    return result


def _target(plan: ConversionPlan, parts: Path) -> CaseTarget:
    source = plan.source
    return CaseTarget(
        folder=parts,
        final=plan.folder.absolute(),
        relative=plan.folder.absolute().parent == plan.source_folder.absolute().parent,
        link=plan.link,
        n_channels=len(source.channel_names),
        file_ending=source.file_ending,
        label_values=source.label_values(),
        header_quirks=source.header_quirks,
    )


def _make_case(work: CaseWork, *, target: CaseTarget) -> CaseOutcome:
    """A case and its fingerprint in a worker; errors are returned, so that one bad case never ends the run."""
    item, fingerprint_now = work
    case_id = item.source.case_id
    try:
        made = make_case_files(item.source, is_test=item.is_test, target=target)
        with as_output_error(target.final):
            write_record(target.folder, case_id, made, fingerprint_now)
    except OutputError as error:
        return CaseOutcome(case_id, error=error, fatal=True)
    except AuvtoolError as error:
        return CaseOutcome(case_id, error=error)
    except Exception as error:  # becomes this case's row of the failure table
        return CaseOutcome(case_id, error=_not_made(case_id, f"{type(error).__name__}: {one_line(error)}"))
    return CaseOutcome(case_id, made)


def _outcomes(
    work: Callable[[CaseWork], CaseOutcome],
    items: Sequence[CaseWork],
    workplace: Workplace,
    on_worker_died: Callable[[list[str]], None],
) -> Generator[CaseOutcome, None, None]:

    def died(lost: list[CaseWork]) -> None:
        on_worker_died([item.source.case_id for item, _ in lost])

    with closing(workplace.results(work, items, on_worker_died=died)) as results:
        for (item, _), result in results:
            if isinstance(result, WorkerDied):
                case_id = item.source.case_id
                yield CaseOutcome(case_id, error=_not_made(case_id, "its worker process was killed; is memory short?"))
            else:
                yield result


def _result(
    plan: ConversionPlan, outcomes: Sequence[CaseOutcome], made: Mapping[str, CaseFiles], *, n_made_before: int
) -> ConversionResult:
    quirks: list[Row] = [
        {"case": case_id, "quirk": quirk.name, "text": quirk.text, "detail": quirk.detail or None}
        for case_id, case in sorted(made.items())
        for quirk in case.quirks
    ]
    failures = [*plan.source.problems]
    failures += [CaseProblem(outcome.case_id, str(outcome.error)) for outcome in outcomes if outcome.error is not None]
    test = {item.source.case_id for item in plan.cases if item.is_test}
    return ConversionResult(
        quirks=tuple(quirks),
        failures=tuple(
            failure_row(problem.case_id, "convert", problem.error)
            for problem in sorted(failures, key=lambda problem: problem.case_id)
        ),
        n_training=len(made.keys() - test),
        n_test=len(made.keys() & test),
        n_made_before=n_made_before,
    )


def _write_tables(
    plan: ConversionPlan,
    folder: Path,
    result: ConversionResult,
    made: Mapping[str, CaseFiles],
    options: Mapping[str, object],
) -> None:
    test = {item.source.case_id for item in plan.cases if item.is_test}
    training = {case_id: case for case_id, case in sorted(made.items()) if case_id not in test}
    source = plan.source
    record: dict[str, object] = {
        "name": plan.name,
        "channel_names": {str(number): name for number, name in enumerate(source.channel_names)},
        "labels": dict(source.labels),
        **source.more,
        "numTraining": len(training),
        "file_ending": source.file_ending,
    }
    if not plan.link:
        record["dataset"] = {
            case_id: {"images": list(case.images), "label": case.label} for case_id, case in training.items()
        }
    validation = sorted(plan.validation & training.keys())
    if validation:
        fold = {"train": sorted(training.keys() - plan.validation), "val": validation}
        write_text(folder / "splits_final.json", json.dumps([fold], indent=1) + "\n", force=True)
    write_table(result.quirks, QUIRKS, folder / QUIRKS_NAME, force=True)
    write_failures(result.failures, folder / FAILURES_NAME)
    path = folder / "dataset.json"
    write_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n", force=True)
    write_manifest(
        path,
        command="convert",
        options=options,
        inputs=[plan.source_folder],
        counts={"training": result.n_training, "test": result.n_test, "failed": len(result.failures)},
    )


def _not_made(case_id: str, found: str) -> InputError:
    return InputError(case_id, expected="a case to convert", found=f"'{found}'", cure="look at it, or leave it out")
