"""An extractor run over a data set: one shard a case, resumed by case, joined to one file at the end."""

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path

from auvtool.atomic import as_output_error, remove_folder
from auvtool.case_extraction import (
    CaseOutcome,
    CaseTask,
    ReadCase,
    not_extracted,
    read_files,
    shard_path,
    work_on_case,
)
from auvtool.cases import Case
from auvtool.errors import InputError
from auvtool.extraction_plan import ExtractionPlan, check_space
from auvtool.failures import failure_row, failures_path, write_failures
from auvtool.feature_writer import assemble, require_shards
from auvtool.schema import Row
from auvtool.worker_pool import WorkerDied
from auvtool.workplace import HERE, Workplace


@dataclass(frozen=True)
class ExtractionResult:
    """Counts of a finished run, and its failed cases (rows of the FAILURES table)."""

    n_cases: int
    n_resumed: int
    failures: tuple[Row, ...]


def run_extraction(
    plan: ExtractionPlan,
    *,
    workplace: Workplace = HERE,
    keep_going: bool = True,
    force: bool = False,
    on_case: Callable[[CaseOutcome], None] = lambda outcome: None,
    on_worker_died: Callable[[list[str]], None] = lambda case_ids: None,
    on_written: Callable[[ExtractionResult], None] = lambda result: None,
) -> ExtractionResult:
    """Extract what is waiting, then join the shards to the output.

    With failed cases the output holds the others, the failures stand in `failures_path`, and the shards stay, so that
    the same command does the failed cases only.

    Args:
        plan: from `plan_extraction`.
        workplace: where, and how many cases at once.
        keep_going: go on after a failed case.
        force: replace an existing output.
        on_case: told of each case as it ends.
        on_worker_died: told which cases were in work when the system killed a worker.
        on_written: told the result when the output stands, before the shards go: for its manifest, without which a
            killed run does not count as finished.

    Raises:
        AuvtoolError: a case failed and `keep_going` is off, the disk is full, or the model cannot be loaded.
    """
    check_space(plan)
    with as_output_error(plan.output):
        plan.parts.mkdir(exist_ok=True)
    failures = [failure_row(problem.case_id, "read", problem.error) for problem in plan.problems]
    if failures and not keep_going:
        raise InputError(
            plan.problems[0].case_id,
            expected="a usable case",
            found=f"'{plan.problems[0].error}'",
            cure="leave it out, or run with --keep-going",
        )
    try:
        with closing(_outcomes(plan, workplace, on_worker_died)) as outcomes:
            failures += _failures(outcomes, keep_going=keep_going, on_case=on_case)
    except BaseException:
        _remove_if_empty(plan.parts)  # a model that cannot be loaded, or a cluster not reached, leaves no trace
        raise
    failed = {row["case"] for row in failures}
    sources = {
        case.case_id: shard_path(plan.parts, case.case_id) for case in plan.dataset.cases if case.case_id not in failed
    }
    require_shards(sources.values())
    failures.sort(key=lambda row: str(row["case"]))
    write_failures(failures, failures_path(plan.output))
    result = ExtractionResult(len(sources), len(plan.finished), tuple(failures))
    if sources:
        assemble(sources, plan.output, plan.header, force=force or plan.is_unfinished)
        on_written(result)
    if not failures:
        _remove_shards(plan)
    return result


def _failures(
    outcomes: Iterable[CaseOutcome], *, keep_going: bool, on_case: Callable[[CaseOutcome], None]
) -> list[Row]:
    """Rows of the cases that failed, when all are through."""
    failures = []
    for outcome in outcomes:
        if outcome.error is not None:
            if outcome.fatal or not keep_going:
                raise outcome.error
            failures.append(failure_row(outcome.case_id, "extract", str(outcome.error)))
        on_case(outcome)
    return failures


def _remove_shards(plan: ExtractionPlan) -> None:
    """Remove the shards that the output now holds, and what killed workers left; other cases' shards stay."""
    own = {shard_path(plan.parts, case.case_id) for case in plan.dataset.cases} | {*plan.parts.glob(".tmp-*")}
    if own >= {*plan.parts.iterdir()}:
        remove_folder(plan.parts)
        return
    for path in own:
        path.unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # it holds finished cases, or is gone
        folder.rmdir()


def _outcomes(
    plan: ExtractionPlan, workplace: Workplace, on_worker_died: Callable[[list[str]], None]
) -> Generator[CaseOutcome, None, None]:
    waiting, work = plan.waiting(), partial(work_on_case, task=plan.task)
    if workplace.is_here(len(waiting)):
        yield from _one_after_the_other(waiting, plan.task)
        return

    def died(cases: list[Case]) -> None:
        on_worker_died([case.case_id for case in cases])

    with closing(
        workplace.results(work, waiting, on_worker_died=died, size=Case.image_bytes, shared=plan.parts)
    ) as results:
        for case, result in results:
            if isinstance(result, WorkerDied):
                reason, cure = "its worker process was killed", "is memory short? use fewer --jobs"
                yield CaseOutcome(case.case_id, not_extracted(case.case_id, reason, cure))
            else:
                yield result


def _one_after_the_other(cases: Sequence[Case], task: CaseTask) -> Iterator[CaseOutcome]:
    """Cases in this process; the next one is read while the extractor works on one.

    The first is read when the extractor is loaded: libraries that catch warnings while they load do it for all threads.
    """
    ahead: Future[ReadCase] | None = None
    with ThreadPoolExecutor(max_workers=1) as reader:

        def read(case: Case, following: Case | None) -> ReadCase:
            nonlocal ahead
            own = reader.submit(read_files, case, task) if ahead is None else ahead
            ahead = None if following is None else reader.submit(read_files, following, task)
            return own.result()

        for case, following in zip_longest(cases, cases[1:]):
            yield work_on_case(case, task=task, read=partial(read, case, following))
