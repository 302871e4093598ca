"""The page of a report from the tables and files that it is given; no word of HTML here.

What a file that was not given would have shown is left out, and a note says which option shows it.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from auvtool import __version__
from auvtool.case_features import CaseFeatures, FeatureHeader
from auvtool.dataset import open_dataset
from auvtool.errors import InputError, UsageError
from auvtool.feature_store import FeatureFile
from auvtool.keep_list import read_keep_list
from auvtool.manifest import recorded
from auvtool.plural import counted
from auvtool.quantification import read_cases
from auvtool.quantifiers import CALIBRATED, QUANTIFIERS
from auvtool.report.energies import curve_options, energy_panels, said_of
from auvtool.report.filter_tables import filter_tables
from auvtool.report.metric_tables import metric_tables
from auvtool.report.one_case import classes_of, evidence_table, metrics_of
from auvtool.report.page import CaseFigure, End, Page, ScoredCase, Table
from auvtool.report.scored_cases import (
    check_scores,
    class_names,
    class_table,
    distributions,
    scored_cases,
    size_plots,
    status_counts,
)
from auvtool.report.slices import MANY, N_PICTURES, N_PICTURES_OF_ONE, SIDES, Sources, case_pictures
from auvtool.report.training_curves import read_trainings
from auvtool.schema import METRICS, SCORES, Row
from auvtool.tables import STANDARD_STREAM, read_table

# How the method of scores begins that were made of a features file (FeatureHeader.extraction).
_EXTRACTION = re.compile(r"\S+ \S+ \S+ [0-9a-f]{8}")


@dataclass(frozen=True)
class Inputs:
    """What a report is made of; only the scores must be there.

    Attributes:
        scores: SCORES table; '-' is standard input.
        features: of the scored cases, for energy curves, decoded maps and the evidence of one case.
        dataset: of the scored cases, for slices.
        keep: keep list.
        metrics: METRICS table.
        training: results folder of a training, or one of its fold folders.
    """

    scores: Path
    features: Path | None = None
    dataset: Path | None = None
    keep: Path | None = None
    metrics: Path | None = None
    training: Path | None = None


@dataclass(frozen=True)
class Report:
    """A page, and the cases whose slices could not be read: (case id, what was wrong)."""

    page: Page
    failures: tuple[tuple[str, str], ...]


def report(
    inputs: Inputs,
    *,
    top: int,
    case_id: str | None = None,
    with_pictures: bool = True,
    on_case: Callable[[str], None] = lambda _: None,
) -> Report:
    """The report of a data set, or of one case of it.

    Args:
        inputs: see there.
        top: slices are shown of this many of the most uncertain cases, and of as many of the most certain ones.
        case_id: of the one case that the report is about.
        with_pictures: whether slices are wanted at all.
        on_case: told of each case whose slices were read.

    Raises:
        InputError: a file is not what it should be, or is not of these cases.
        UsageError: there is no such case.
    """
    rows = read_table(inputs.scores, SCORES)
    where = "standard input" if inputs.scores == STANDARD_STREAM else inputs.scores
    check_scores(rows, where)
    cases = scored_cases(rows, None if inputs.keep is None else read_keep_list(inputs.keep))
    if case_id is not None and all(case.case_id != case_id for case in cases):
        raise UsageError(f"--case: expected a case of {where}, got {case_id}; the scores have their ids")
    with ExitStack() as stack:
        file = None if inputs.features is None else stack.enter_context(FeatureFile(inputs.features))
        features = [] if file is None else read_cases(file)
        if inputs.features is not None:
            if file is not None:
                _check_same_features(rows, file.header, inputs.features)
            _check_same_cases(cases, [one.case_id for one in features], inputs.features, "features")
        figures: list[CaseFigure] = []
        failures: list[tuple[str, str]] = []
        if inputs.dataset is not None and with_pictures:
            shown = shown_cases(cases, top, case_id)
            dataset = open_dataset(inputs.dataset)
            _check_same_cases(cases, [one.case_id for one in dataset.cases], inputs.dataset, "images")
            sources = Sources(dataset, file, _channel(file), SIDES[len(shown) > MANY])
            for case, end in shown:
                figures.append(_figure(case, end, sources, failures))
                on_case(case.case_id)
    quantifier = str(rows[0]["quantifier"])
    options = curve_options(inputs.scores, quantifier)
    own = [case for case in cases if case_id in {None, case.case_id}]
    energies = energy_panels(features, options, case_id)
    header = None if file is None else file.header
    page = Page(
        title=_title(inputs, header, case_id),
        facts=_facts(inputs, rows, cases, header, case_id),
        meaning=meaning(quantifier, str(rows[0]["axis"])),
        notes=_notes(
            inputs,
            figures,
            energies_there=bool(energies),
            with_pictures=with_pictures,
            case_id=case_id,
            case_has_features=any(one.case_id == case_id for one in features),
        ),
        cases=tuple(own),
        n_cases=len(cases),
        has_keep_list=inputs.keep is not None,
        figures=tuple(figures),
        chosen=case_id,
        evidence=evidence_table(features, case_id) if case_id is not None and features else None,
        classes=class_table(cases) if case_id is None else classes_of(own[0], cases),
        distributions=distributions(cases, case_id),
        sizes=size_plots(cases, case_id),
        energies=energies,
        energies_note=said_of(options) + _left_out(len(energies), features),
        filters=filter_tables(rows, case_id),
        metrics=_metrics(inputs, cases, case_id),
        trainings=() if inputs.training is None else read_trainings(inputs.training),
    )
    return Report(page, tuple(failures))


def shown_cases(cases: Sequence[ScoredCase], top: int, case_id: str | None) -> list[tuple[ScoredCase, End]]:
    """The one case, or the `top` most uncertain and as many of the most certain ones, each case once."""
    if case_id is not None:
        return [(case, "chosen") for case in cases if case.case_id == case_id]
    placed = [case for case in cases if case.auv is not None]
    most = placed[:top]
    least = placed[len(most) :][-top:] if top else []
    return [*((case, "uncertain") for case in most), *((case, "certain") for case in reversed(least))]


def meaning(quantifier: str, axis: str) -> tuple[str, ...]:
    """What the score measures, what an AUV is, and what neither of them says."""
    if quantifier == CALIBRATED:
        first = (
            "calibrated: the probability that a case is dirty, learnt from copies of the data set's own cases with "
            "known faults. A high value is suspect."
        )
    elif facts := next((facts for name, facts in QUANTIFIERS.items() if name == quantifier), None):
        first = f"{quantifier}: {facts.measures}. A high value is {facts.high}."
    else:
        first = f"{quantifier}: a quantifier that this version of auvtool does not know."
    return (
        first,
        f"The AUV (aleatoric uncertainty value) is the place of that value between the extremes of the data set (axis: "
        f"{axis}): 0 is the most certain case, 1 the most uncertain. There is always a case at each end, "
        "so an AUV ranks the cases of one data set and says nothing of the data set as a whole.",
        "A high AUV is a reason to look at a case, and no proof that something is wrong with it.",
    )


def _figure(case: ScoredCase, end: End, sources: Sources, failures: list[tuple[str, str]]) -> CaseFigure:
    limit = N_PICTURES_OF_ONE if end == "chosen" else N_PICTURES
    try:
        return CaseFigure(case, end, case_pictures(case, sources, limit=limit, certain=end == "certain"))
    except InputError as error:  # one bad case never ends a report
        failures.append((case.case_id, str(error)))
        return CaseFigure(case, end, note=f"No slices: {error}")


def _check_same_cases(cases: Sequence[ScoredCase], ids: Sequence[str], path: Path, what: str) -> None:
    if {case.case_id for case in cases}.isdisjoint(ids):
        raise InputError(
            path, expected=f"{what} of the scored cases", found="none of them", cure="name what was scored"
        )


def _check_same_features(rows: Sequence[Row], header: FeatureHeader, path: Path) -> None:
    """Refuse features of another extraction: their evidence is not what the scores were made of."""
    scored = str(rows[0]["method"]).split(";", 1)[0]
    given = header.extraction
    if _EXTRACTION.fullmatch(scored) and scored != given:
        raise InputError(
            path, expected=f"the features that were scored ({scored})", found=given, cure="name their file"
        )


def _channel(file: FeatureFile | None) -> int:
    channel = 0 if file is None else file.header.options.get("channel", 0)
    return channel if isinstance(channel, int) else 0


def _data_set_name(inputs: Inputs, header: FeatureHeader | None) -> str:
    if header is not None:
        return header.dataset
    return "" if inputs.dataset is None else inputs.dataset.absolute().name


def _title(inputs: Inputs, header: FeatureHeader | None, case_id: str | None) -> str:
    name = _data_set_name(inputs, header) or ("scores" if inputs.scores == STANDARD_STREAM else inputs.scores.name)
    return name if case_id is None else f"{case_id} of {name}"


def _facts(
    inputs: Inputs, rows: Sequence[Row], cases: Sequence[ScoredCase], header: FeatureHeader | None, case_id: str | None
) -> tuple[tuple[str, str], ...]:
    names = class_names(cases)
    placed = sum(case.auv is not None for case in cases)
    made = recorded(inputs.scores)
    packages = made.get("packages")
    facts = {
        "case": case_id or "",
        "data set": _data_set_name(inputs, header),
        "cases": f"{len(cases):,}" + (f", {len(cases) - placed:,} without an AUV" if placed < len(cases) else ""),
        "classes": _some(names) if names else "none: scored without classes",
        "classes in cases": status_counts(rows),
        "quantifier": str(rows[0]["quantifier"]),
        "method": str(rows[0]["method"]),
        "keep list": _kept(cases) if inputs.keep is not None else "",
        "extractor": "" if header is None else f"{header.extractor}, version {header.extractor_version}",
        "input and prompt": "" if header is None else f"{header.input}, {header.prompt}",
        "scored with": f"auvtool {made['auvtool']}" if "auvtool" in made else "",
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items() if version)
        if isinstance(packages, dict)
        else "",
        "reported with": f"auvtool {__version__}",
    }
    return tuple((name, text) for name, text in facts.items() if text)


def _kept(cases: Sequence[ScoredCase]) -> str:
    return f"{sum(bool(case.kept) for case in cases):,} of {counted(len(cases), 'case')} kept"


def _some(names: Sequence[str], shown: int = 12) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{len(names)}: {', '.join(names[:shown])}{more}"


def _left_out(n_drawn: int, features: Sequence[CaseFeatures]) -> str:
    n_classes = len(features[0].class_names) if features else 0
    return f"; {n_drawn} of {n_classes} classes" if n_drawn < n_classes else ""


def _notes(
    inputs: Inputs,
    figures: Sequence[CaseFigure],
    *,
    energies_there: bool,
    with_pictures: bool,
    case_id: str | None,
    case_has_features: bool,
) -> tuple[str, ...]:
    notes = []
    if with_pictures and inputs.dataset is None:
        notes.append("No slices are shown: give the data set (--dataset).")
    if with_pictures and inputs.features is None:
        evidence = ", nor the evidence of the case" if case_id is not None else ""
        notes.append(f"No energy curves and no decoded maps are shown{evidence}: give the features (--features).")
    elif with_pictures and not energies_there:
        notes.append("No energy curves are shown: the features file holds maps only.")
    if case_id is not None and not case_has_features and inputs.features is not None:
        notes.append("No evidence of the case is shown: the features do not hold it.")
    pictures = [picture for figure in figures for picture in figure.pictures]
    if pictures and inputs.features is not None and not any(picture.map_image for picture in pictures):
        notes.append("No decoded maps are shown beside the slices: the features file has none (extract --store both).")
    return tuple(notes)


def _metrics(inputs: Inputs, cases: Sequence[ScoredCase], case_id: str | None) -> tuple[Table, ...]:
    if inputs.metrics is None:
        return ()
    metrics = read_table(inputs.metrics, METRICS)
    if case_id is None:
        return metric_tables(metrics, cases)
    return (metrics_of(case_id, metrics),)
