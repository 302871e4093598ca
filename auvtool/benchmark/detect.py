"""Does a score find faults? Copies of clean cases with one known fault each, through an extractor, then the tables."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from auvtool.atomic import as_output_error, holds_anything, write_text
from auvtool.benchmark.marker import differing
from auvtool.case_extraction import CaseOutcome, ExtractionSettings, inputs_digest
from auvtool.case_features import FeatureHeader
from auvtool.cases import Case, Dataset
from auvtool.corruption.kinds import KINDS
from auvtool.errors import InputError, UsageError
from auvtool.evidence import MODEL_GROUPS
from auvtool.experiment_schema import ANSWER_KEY
from auvtool.extraction import ExtractionResult, run_extraction
from auvtool.extraction_plan import ExtractionPlan, plan_extraction
from auvtool.faults import put_fault, split_copy_id
from auvtool.faulty_copies import choose_cases, donors, fault_combinations, faulty_copies
from auvtool.feature_store import FeatureFile
from auvtool.manifest import recorded_option, write_manifest
from auvtool.quantification import read_cases
from auvtool.schema import Row
from auvtool.tables import read_table, write_table
from auvtool.volume import read_case
from auvtool.workplace import Workplace

if TYPE_CHECKING:
    from auvtool.detection_methods import Item, Method

KEY_NAME = "answer_key.csv"
MARKER = "bench_detect.json"


@dataclass(frozen=True)
class DetectPlan:
    """What is measured.

    Attributes:
        dataset: holds the clean cases.
        folder: to fill.
        clean: the cases used; copies: with a fault each.
        settings: of the extraction.
        seed: of the choice of cases, of the faults, and of the draws.
    """

    dataset: Dataset
    folder: Path
    clean: tuple[Case, ...]
    copies: tuple[Case, ...]
    settings: ExtractionSettings
    seed: int

    @property
    def features(self) -> Path:
        """The features file; one for each extractor and input, so that variants share the folder and the key."""
        prompted = "" if self.settings.prompt == "mask-box" else f".{self.settings.prompt}"
        return self.folder / f"features.{self.settings.extractor}.{self.settings.input}{prompted}.h5"

    @property
    def variant(self) -> str:
        """What the tables of this extractor and input are called."""
        return self.features.name.removeprefix("features.").removesuffix(".h5")


def plan_detect(
    dataset: Dataset,
    folder: Path,
    settings: ExtractionSettings,
    *,
    n_cases: int | None,
    n_copies: int,
    kinds: Sequence[str],
    seed: int,
    only: Sequence[str] = (),
) -> DetectPlan:
    """Which cases and which copies of them.

    Raises:
        InputError: fewer than four cases have a label.
        UsageError: `only` names a case that is not there.
    """
    unknown = sorted(set(only) - {case.case_id for case in dataset.cases})
    if unknown:
        raise UsageError(f"--only: expected case ids of {dataset.folder}, got {', '.join(unknown)}; check them")
    if only:
        dataset = replace(dataset, cases=tuple(case for case in dataset.cases if case.case_id in only))
    clean = choose_cases(dataset, n_cases, seed=seed)
    if len(clean) < 4:
        raise InputError(
            dataset.folder, expected="at least 4 labelled cases", found=len(clean), cure="give a larger data set"
        )
    combinations = fault_combinations(kinds)
    copies = faulty_copies(clean, combinations, n_copies=min(n_copies, len(combinations)), seed=seed)
    return DetectPlan(dataset, folder, clean, copies, settings, seed)


def claim_folder(plan: DetectPlan) -> None:
    """Make the folder, or find in it the same data set, cases and copies to go on with; variants share it.

    Raises:
        UsageError: it holds something else, which is left as it is, or its parent is missing.
    """
    record = {
        "data set": plan.dataset.name,
        "seed": plan.seed,
        "cases": [case.case_id for case in plan.clean],
        "copies": sorted(copy.case_id for copy in plan.copies),
    }
    marker = plan.folder / MARKER
    if marker.is_file():
        others = differing(marker, record)
        if others:
            raise UsageError(
                f"{plan.folder}: expected the folder of these cases and copies, got one with other "
                f"{', '.join(others)}; name another with -o"
            )
        return
    if plan.folder.exists() and (not plan.folder.is_dir() or holds_anything(plan.folder)):
        raise UsageError(
            f"{plan.folder}: expected no folder yet, got one that bench detect did not make; name another with -o"
        )
    if not plan.folder.parent.is_dir():
        raise UsageError(f"{plan.folder}: expected an existing folder {plan.folder.parent}, got none; create it first")
    with as_output_error(plan.folder):
        plan.folder.mkdir(exist_ok=True)
    write_text(marker, json.dumps(record, indent=1, ensure_ascii=False) + "\n", force=False)


def write_key(plan: DetectPlan) -> list[str]:
    """The answer key: each case, and each copy with what its fault came to; one line for each that cannot be made.

    A copy that its fault leaves as it was, or that cannot be read, is not in the key.

    Raises:
        OutputError: the folder cannot be written.
    """
    rows: list[Row] = []
    problems: list[str] = []
    of_case: dict[str, list[Case]] = {}
    for copy in plan.copies:
        of_case.setdefault(_clean_id(copy), []).append(copy)
    for case in plan.clean:
        try:
            volume = read_case(case, plan.dataset)
        except InputError as error:
            problems.append(str(error))
            continue
        rows.append({"case": case.case_id, "dirty": False, "dice": 1.0})
        for copy in of_case.get(case.case_id, []):
            if copy.fault is None:
                raise ValueError(f"{copy.case_id} has no fault")
            try:
                faulty = put_fault(volume, copy.fault, plan.dataset)
            except InputError as error:
                problems.append(str(error))
                continue
            rows.append(
                {
                    "case": copy.case_id,
                    "dirty": True,
                    "kind": copy.fault.kind,
                    "level": copy.fault.level,
                    "parameters": json.dumps(faulty.parameters, sort_keys=True),
                    "dice": faulty.dice,
                    "psnr": faulty.psnr,
                }
            )
    write_table(rows, ANSWER_KEY, plan.folder / KEY_NAME, force=True)
    return problems


def extraction_plan(plan: DetectPlan, *, force: bool) -> ExtractionPlan:
    """The extraction of the cases and copies in the key; each case stands before its copies, which share its image.

    Without prompts from labels, copies with a fault of the label are left out: nothing of it would be seen.
    """
    known = {str(row["case"]) for row in read_table(plan.folder / KEY_NAME, ANSWER_KEY)}
    order = {case.case_id: place for place, case in enumerate(plan.clean)}
    everything = sorted((*plan.clean, *plan.copies), key=lambda case: order[_clean_id(case)])
    blind = plan.settings.prompt == "none"
    cases = tuple(
        case
        for case in everything
        if case.case_id in known and not (blind and case.fault and KINDS[case.fault.kind].of == "label")
    )
    return plan_extraction(replace(plan.dataset, cases=cases, problems=()), plan.settings, plan.features, force=force)


def extract_features(
    plan: ExtractionPlan, *, workplace: Workplace, on_case: Callable[[CaseOutcome], None]
) -> ExtractionResult:
    """Run or resume it; an existing file of the same plan is kept as it is.

    Raises:
        AuvtoolError: see `run_extraction`.
    """

    def write(result: ExtractionResult) -> None:
        write_manifest(
            plan.output,
            command="bench detect",
            options={**vars(plan.settings), "inputs_sha256": inputs_digest(plan.dataset)},
            inputs=[plan.dataset.folder],
            counts={"cases": result.n_cases, "failed": len(result.failures)},
            model_sha256=plan.header.weights_sha256,
        )

    return run_extraction(plan, workplace=workplace, force=True, on_case=on_case, on_written=write)


def features_are_there(plan: DetectPlan, wanted: ExtractionPlan) -> bool:
    """Whether the features file holds what the plan wants.

    Raises:
        InputError: it is not a features file.
    """
    if not plan.features.is_file():
        return False
    with FeatureFile(plan.features) as file:
        same = file.header.fingerprint == wanted.header.fingerprint
    return same and recorded_option(plan.features, "inputs_sha256") == inputs_digest(wanted.dataset)


def read_items(plan: DetectPlan) -> tuple[FeatureHeader, list["Item"]]:
    """The header, and each case and copy of the features file with what the key says of it."""
    from auvtool.detection_methods import Item

    key = {str(row["case"]): row for row in read_table(plan.folder / KEY_NAME, ANSWER_KEY)}
    with FeatureFile(plan.features) as file:
        header, cases = file.header, read_cases(file)
    given = donors(plan.copies, plan.clean)
    items = []
    for case in cases:
        row = key[case.case_id]
        parts = split_copy_id(case.case_id) if row["dirty"] else None
        if parts is None:
            items.append(Item(case, case.case_id))
            continue
        case_id, kind, level = parts
        number = row["psnr"] if KINDS[kind].of == "image" else row["dice"]
        severity = None
        if isinstance(number, float):
            severity = number if KINDS[kind].of == "image" else 1.0 - number
        elif KINDS[kind].of == "image":
            severity = math.inf  # no voxel differs by more than rounding
        items.append(Item(case, case_id, kind, KINDS[kind].family, level, severity, given.get(case.case_id)))
    clean = {item.case_id for item in items if item.kind is None}
    return header, [item for item in items if item.case_id in clean]


def methods_of(header: FeatureHeader, items: Sequence["Item"], *, seed: int) -> tuple["Method", ...]:
    """Every quantifier and control that these features can answer; with prompts from labels deviation and calibrate.

    Beside deviation stand its two halves: without what the model sees (a control that needs no foundation model), and
    of that alone.
    """
    from auvtool.detection_methods import quantifier_methods
    from auvtool.evidence_methods import CalibratedMethod, DeviationMethod, EvidenceTable

    if header.prompt == "none":
        return quantifier_methods(header)
    table = EvidenceTable(items)
    null_tests = {name: kind.null_test for name, kind in KINDS.items()}
    left_out = {"deviation", "plain-deviation"}  # DeviationMethod is the same, looked up
    if all(np.isnan(item.features.agreement[:, 0]).all() for item in items):
        left_out.add("agreement")  # of an extractor without masks
    quantifiers = [one for one in quantifier_methods(header) if one.name not in left_out]
    return (
        CalibratedMethod(table, null_tests, seed=seed),
        DeviationMethod(table),
        DeviationMethod(table, name="plain-deviation", without=MODEL_GROUPS),
        DeviationMethod(table, name="deviation of model", without=frozenset(table.evidence.groups) - MODEL_GROUPS),
        *quantifiers,
    )


def write_markdown(text: str, path: Path) -> None:
    """Write a report, in the place of an older one.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(path, text, force=True)


def _clean_id(case: Case) -> str:
    if case.fault is None:
        return case.case_id
    return case.case_id.removesuffix(f"~{case.fault.kind}~{case.fault.level}")
