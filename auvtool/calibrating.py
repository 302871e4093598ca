"""A data set's own cases made dirty on purpose, learnt from, and judged: the step behind `auvtool calibrate`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from auvtool.atomic import remove_folder
from auvtool.auv import fit_axis, place
from auvtool.calibration import (
    CrossFitted,
    ProbabilityScale,
    Specimen,
    design,
    suspicion_of_unseen_kinds,
    training_designs,
)
from auvtool.case_extraction import CaseOutcome, ExtractionSettings
from auvtool.case_features import CaseFeatures, FeatureHeader
from auvtool.cases import Dataset
from auvtool.corruption.kinds import KINDS
from auvtool.detection import auroc
from auvtool.errors import InputError, UsageError
from auvtool.evidence import evidence_of, reasons
from auvtool.extraction import ExtractionResult, run_extraction
from auvtool.extraction_plan import ExtractionPlan, plan_extraction
from auvtool.extractors.model_options import ModelOptions
from auvtool.faults import split_copy_id
from auvtool.faulty_copies import choose_cases, fault_combinations, faulty_copies
from auvtool.quantifiers import CALIBRATED
from auvtool.schema import Row
from auvtool.score_options import score_options
from auvtool.scoring import score_cases
from auvtool.workplace import Workplace

_LEAST_CASES = 6
_LEAST_COPIES = 12


@dataclass(frozen=True)
class Calibration:
    """What was learnt.

    Attributes:
        rows: SCORES rows, with a reason beside whole cases.
        n_copies: copies learnt from.
        found: (kind, level, AUROC of models that saw no fault of its family, AUROC of deviation), by kind and level.
    """

    rows: list[Row]
    n_copies: int
    found: tuple[tuple[str, str, float, float], ...]

    def mean_auroc(self, level: str) -> tuple[float, float]:
        """Mean over the kinds at one level, of the models and of deviation; nan where no copy has that level."""
        of_level = [(model, plain) for _, one, model, plain in self.found if one == level]
        return (
            (float(np.mean([m for m, _ in of_level])), float(np.mean([p for _, p in of_level])))
            if of_level
            else (
                float("nan"),
                float("nan"),
            )
        )


def settings_of(header: FeatureHeader, *, weights: Path | None, device: str) -> ExtractionSettings:
    """The settings that a features file was extracted with.

    Raises:
        UsageError: it was extracted without prompts, so that nothing of its labels is in it.
    """
    if header.prompt != "mask-box":
        raise UsageError(
            f"F.h5: expected features with prompts from labels, got --prompt {header.prompt}; extract with --prompt "
            "mask-box"
        )
    options = header.options
    if options.get("store") == "maps":
        raise UsageError("F.h5: expected features with spectra, got maps only; extract with --store spectrum or both")
    limit = options.get("max_slices")
    return ExtractionSettings(
        extractor=header.extractor,
        model=ModelOptions.of_record(options, weights=weights),
        prompt="mask-box",
        input="mask" if header.input == "mask" else "raw",
        channel=int(str(options["channel"])),
        store="spectrum",
        slice_stride=int(str(options["slice_stride"])),
        max_slices=None if limit is None else int(str(limit)),
        device=device,
    )


def plan_copies(
    dataset: Dataset,
    case_ids: Sequence[str],
    header: FeatureHeader,
    settings: ExtractionSettings,
    output: Path,
    *,
    n_cases: int,
    n_copies: int,
    seed: int,
    force: bool,
) -> ExtractionPlan:
    """The extraction of corrupt copies of some of the cases of a features file, every fault but the null tests.

    Raises:
        InputError: the data set lacks cases of the features file, or there are too few to learn from.
        UsageError: the copies would not compare with the features (another data set, weights or version).
    """
    known = {case.case_id: case for case in dataset.cases}
    missing = sorted(set(case_ids) - known.keys())
    if missing:
        raise InputError(
            dataset.folder,
            expected="the data set that the features were extracted from",
            found=f"no usable case {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""),
            cure="give that data set",
        )
    extracted = replace(dataset, cases=tuple(known[case_id] for case_id in sorted(case_ids)), problems=())
    cases = choose_cases(extracted, n_cases, seed=seed)
    combinations = fault_combinations([name for name, kind in KINDS.items() if not kind.null_test])
    copies = faulty_copies(cases, combinations, n_copies=min(n_copies, len(combinations)), seed=seed)
    _require_enough(len(case_ids), len(copies))
    plan = plan_extraction(replace(extracted, cases=copies), settings, output, force=force)
    if plan.header.extraction_fingerprint != header.extraction_fingerprint:
        raise UsageError(
            "F.h5: expected features that copies extracted here compare with, got those of another version, checkpoint "
            "or list of classes; extract again, or give --weights"
        )
    return plan


def _require_enough(n_cases: int, n_copies: int) -> None:
    if n_cases < _LEAST_CASES or n_copies < _LEAST_COPIES:
        raise InputError(
            "calibrate",
            expected=f"at least {_LEAST_CASES} cases and {_LEAST_COPIES} copies to learn from",
            found=f"{n_cases} and {n_copies}",
            cure="raise --cases or --per-case, or use score --quantifier deviation, which learns nothing",
        )


def extract_copies(
    plan: ExtractionPlan,
    *,
    workplace: Workplace,
    on_case: Callable[[CaseOutcome], None],
    on_written: Callable[[ExtractionResult], None],
) -> None:
    """Run or resume it; a copy that cannot be made (a fault that changes nothing) is left out.

    Raises:
        AuvtoolError: see `run_extraction`.
    """
    run_extraction(plan, workplace=workplace, force=True, on_case=on_case, on_written=on_written)
    remove_folder(plan.parts)  # kept for failed cases, which would fail again


def calibrate(
    cases: Sequence[CaseFeatures],
    copies: Sequence[CaseFeatures],
    header: FeatureHeader,
    *,
    prior: float,
    seed: int,
    donors: Mapping[str, str] | None = None,
) -> Calibration:
    """Learn from the copies, measure on faults left out, and judge each case by models that have not seen it.

    Args:
        cases: of the features file.
        copies: of some of them, by their ids (`split_copy_id`).
        header: of the cases.
        prior: share of dirty cases expected; it moves the probabilities and no rank.
        seed: of folds and of the data sets that the copies are put into.
        donors: id of a copy -> the case whose label it carries (`faulty_copies.donors`).

    Raises:
        InputError: there are too few cases or copies to learn from, or the features hold maps only.
    """
    ids = {case.case_id for case in cases}
    parts = [split_copy_id(copy.case_id) for copy in copies]
    usable = [(copy, part) for copy, part in zip(copies, parts, strict=True) if part is not None and part[0] in ids]
    _require_enough(len(cases), len(usable))
    evidence = evidence_of([*cases, *(copy for copy, _ in usable)])
    specimens = [Specimen(place, case.case_id) for place, case in enumerate(cases)]
    donors = donors or {}
    specimens += [
        Specimen(len(cases) + place, part[0], part[1], donors.get(copy.case_id))
        for place, (copy, part) in enumerate(usable)
    ]
    families = {name: kind.family for name, kind in KINDS.items()}
    designs = training_designs(evidence, specimens, families, seed=seed)
    unseen = suspicion_of_unseen_kinds(designs, specimens, families, seed=seed)
    z = evidence.z(np.arange(len(cases)))
    suspicion = CrossFitted(designs, specimens, seed=seed).suspicion(
        design(z, evidence.groups), [case.case_id for case in cases]
    )
    scale = _probability_scale(unseen, specimens, families, prior=prior)
    if scale.slope <= 0.0:
        raise InputError(
            "calibrate",
            expected="copies that differ from the cases",
            found="models no better than chance on faults that they have not seen",
            cure="use --quantifier deviation, or more --cases and --per-case",
        )
    said = reasons(z, evidence, [name for _, name in header.channels])
    made_by = f"{len(usable)} copies; prior {prior:g}; seed {seed}"
    rows = _rows(cases, header, scale.probability(suspicion), said, made_by=made_by)
    levels = [part[2] for _, part in usable]
    found = _found(unseen, specimens, levels, families, designs[:, -1])
    return Calibration(rows, len(usable), found)


def _probability_scale(
    unseen: dict[str, Float[np.ndarray, " specimen"]],
    specimens: Sequence[Specimen],
    families: dict[str, str],
    *,
    prior: float,
) -> ProbabilityScale:
    """From what is said of each copy without its family, and of each case without each of the families in turn."""
    suspicion, dirty = [], []
    for of_family in unseen.values():
        for one, value in zip(specimens, of_family, strict=True):
            if not np.isnan(value):
                suspicion.append(value)
                dirty.append(one.kind is not None)
    return ProbabilityScale.fit(np.array(suspicion), np.array(dirty), prior=prior)


def _found(
    unseen: dict[str, Float[np.ndarray, " specimen"]],
    specimens: Sequence[Specimen],
    levels: Sequence[str],
    families: dict[str, str],
    deviations: Float[np.ndarray, " specimen"],
) -> tuple[tuple[str, str, float, float], ...]:
    n_cases = len(specimens) - len(levels)
    places: dict[tuple[str, str], list[int]] = {}
    for index, level in enumerate(levels, start=n_cases):
        places.setdefault((str(specimens[index].kind), level), []).append(index)
    found = []
    for (kind, level), indices in sorted(places.items()):
        values = unseen[families[kind]]
        found.append(
            (
                kind,
                level,
                float(auroc(values[indices], values[:n_cases])),
                float(auroc(deviations[indices], deviations[:n_cases])),
            )
        )
    return tuple(found)


def _rows(
    cases: Sequence[CaseFeatures],
    header: FeatureHeader,
    probabilities: Float[np.ndarray, " case"],
    said: Sequence[str],
    *,
    made_by: str,
) -> list[Row]:
    scoring = score_cases(cases, header, score_options("volume"))
    axis = fit_axis(probabilities, high="uncertain")
    auv = np.full(len(cases), np.nan) if axis is None else place(probabilities, axis)
    method = f"{scoring.method.split(';')[0]}; {made_by}"
    by_case = dict(zip((case.case_id for case in cases), range(len(cases)), strict=True))
    rows: list[Row] = []
    for row in scoring.rows():
        judged: Row = {**row, "quantifier": CALIBRATED, "method": method, "axis": "linear"}
        judged |= {"value": None, "auv": None, "axis_min": None, "axis_max": None}
        if row["class_id"] is None and axis is not None:
            index = by_case[str(row["case"])]
            judged |= {
                "value": float(probabilities[index]),
                "auv": None if np.isnan(auv[index]) else float(auv[index]),
                "axis_min": axis.minimum,
                "axis_max": axis.maximum,
                "reason": said[index] or None,
            }
        rows.append(judged)
    return rows
