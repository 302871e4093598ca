"""A data set checked: every case in a worker, then the cases against one another."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

from auvtool.cases import Case, Dataset
from auvtool.checks import Finding
from auvtool.checks.case_facts import CaseFacts
from auvtool.checks.class_order import changed_places
from auvtool.checks.comparisons import class_comparisons, unused_classes
from auvtool.checks.copies import duplicate_images, duplicate_labels, equal_channels, labels_of_others
from auvtool.checks.files import file_findings
from auvtool.checks.geometry import lost_geometry, refused_headers, unusual_orientation
from auvtool.checks.intensities import ct_units
from auvtool.checks.one_case import check_case
from auvtool.checks.sides import left_right
from auvtool.schema import Row
from auvtool.visible_text import visible
from auvtool.worker_pool import WorkerDied
from auvtool.workplace import HERE, Workplace


def check_dataset(
    dataset: Dataset | Finding,
    *,
    codes: frozenset[str],
    workplace: Workplace = HERE,
    on_case: Callable[[str], None] = lambda case_id: None,
    on_worker_died: Callable[[list[str]], None] = lambda case_ids: None,
) -> Generator[Finding, None, None]:
    """What is wrong with a data set, as it is found: files, then case by case in their order, then the cases together.

    The order does not depend on where the work is done.

    Args:
        dataset: from `auvtool.checks.files.survey`.
        codes: rules that are looked for.
        workplace: where, and how many cases at once.
        on_case: told of each case as it ends.
        on_worker_died: told which cases were in work when the system killed a worker.
    """
    if isinstance(dataset, Finding):
        yield from _chosen([dataset], codes)
        return
    yield from _chosen(file_findings(dataset), codes)
    facts: list[CaseFacts] = []
    with closing(_in_order(dataset, codes, workplace, on_case, on_worker_died)) as results:
        for case in results:
            yield from _chosen(case.findings, codes)
            facts.append(replace(case, findings=()))
    yield from _chosen(_together(facts, dataset), codes)


def finding_row(finding: Finding) -> Row:
    """A finding as a row of the FINDINGS table."""
    return {
        "case": finding.case_id,
        "code": finding.code,
        "name": finding.rule.name,
        "severity": finding.rule.severity,
        "what": finding.what,
        "file": finding.file and visible(finding.file),
        "class_name": finding.class_name,
        "slice": finding.place,
        "cure": finding.cure or finding.rule.cure,
    }


def _together(facts: Sequence[CaseFacts], dataset: Dataset) -> Iterator[Finding]:
    names = [one.name for one in dataset.classes]
    yield from refused_headers(facts)
    yield from lost_geometry(facts)
    if not str(dataset.raw.get("overwrite_image_reader_writer", "")).endswith("WithReorient"):
        yield from unusual_orientation(facts)
    yield from ct_units(facts, dataset.channel_names)
    yield from class_comparisons(facts)
    yield from changed_places(facts, names)
    yield from unused_classes(facts, names)
    yield from duplicate_images(facts)
    yield from equal_channels(facts)
    yield from duplicate_labels(facts)
    yield from labels_of_others(facts)
    yield from left_right(facts, names)


def _chosen(findings: Iterator[Finding] | Sequence[Finding], codes: frozenset[str]) -> Iterator[Finding]:
    return (finding for finding in findings if finding.code in codes)


def _in_order(
    dataset: Dataset,
    codes: frozenset[str],
    workplace: Workplace,
    on_case: Callable[[str], None],
    on_worker_died: Callable[[list[str]], None],
) -> Generator[CaseFacts, None, None]:
    """The facts of each case in the order of the cases, each as soon as those before it are there."""
    work = partial(check_case, dataset=dataset.without_cases(), codes=codes)
    cases = dataset.cases

    def died(lost: list[Case]) -> None:
        on_worker_died([case.case_id for case in lost])

    early: dict[str, CaseFacts] = {}
    waiting = iter(cases)
    expected = next(waiting)
    with closing(workplace.results(work, cases, on_worker_died=died, size=Case.image_bytes)) as results:
        for case, result in results:
            early[case.case_id] = _killed(case) if isinstance(result, WorkerDied) else result
            on_case(case.case_id)
            while expected.case_id in early:
                yield early.pop(expected.case_id)
                expected = next(waiting, Case("", (), None))


def _killed(case: Case) -> CaseFacts:
    what = "expected a case that can be checked, got its worker process killed"
    return CaseFacts(
        case.case_id, findings=(Finding("F011", what, case.case_id, cure="is memory short? use fewer --jobs"),)
    )
