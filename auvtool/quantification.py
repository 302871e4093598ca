"""The value of a quantifier for each class of each case, and for each whole case, from stored features."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Shaped

from auvtool.arrays import Spectrum
from auvtool.case_features import CaseFeatures, FeatureHeader
from auvtool.errors import InputError
from auvtool.evidence import MODEL_GROUPS, evidence_of, reasons
from auvtool.feature_store import FeatureFile
from auvtool.quantifiers.controls import effective_rank
from auvtool.quantifiers.deviation import class_deviations, deviation
from auvtool.quantifiers.mahalanobis import mahalanobis_distance
from auvtool.quantifiers.semantic_scale import semantic_scale
from auvtool.quantifiers.variance import feature_variance
from auvtool.scale import semantic_perception_scale
from auvtool.schema import Cell, Row
from auvtool.score_options import DEVIATIONS, ScoreOptions, chosen_channels
from auvtool.spectrum import UNFOLDINGS, Centering, Unfolding


@dataclass(frozen=True)
class Quantified:
    """Values of a data set, nan where there is none.

    Attributes:
        channels: positions of the classes used, in the file's order.
        status: for each class and case "ok", "absent", "flat" or "undefined" (there, but without a value).
        of_classes: in the quantifier's unit.
        of_cases: of whole cases.
        reasons: what made each case's value, where the quantifier can tell; empty elsewhere.
    """

    channels: tuple[int, ...]
    status: tuple[tuple[str, ...], ...]
    of_classes: Float[np.ndarray, "class case"]
    of_cases: Float[np.ndarray, " case"]
    reasons: tuple[str, ...] = ()


def read_cases(features: FeatureFile) -> list[CaseFeatures]:
    """All cases of a file.

    Raises:
        InputError: there is none, or one is damaged.
    """
    cases = [features.case(case_id) for case_id in features.case_ids]
    if not cases:
        raise InputError(features.path, expected="at least one case", found="none", cure="run extract again")
    return cases


def quantify(
    cases: Sequence[CaseFeatures], header: FeatureHeader, options: ScoreOptions, *, metrics: Sequence[Row] = ()
) -> Quantified:
    """Values of `options.quantifier`.

    A whole case has the mean (or sum) over its classes that have a value; volume is the sum and depth the largest of
    its classes, eaoa and random have a value of their own. Under preset "paper" an absent or flat map has no scale and
    stands in no mean; under "official" it counts as the all-zero map that it is in the released code, with scale 1.

    Args:
        cases: of one file.
        header: of that file.
        options: see `ScoreOptions`.
        metrics: METRICS rows of quantifier "predicted-dice".

    Raises:
        UsageError: a class is not in the file.
        InputError: the file lacks what is asked for, or a spectrum in it is not one.
    """
    channels = chosen_channels(header, options.classes)
    values = np.full((len(channels), len(cases)), np.nan)
    status = [[str(case.status[channel]) for case in cases] for channel in channels]
    if options.quantifier == "auv":
        for row, channel in enumerate(channels):
            for column, case in enumerate(cases):
                status[row][column], values[row, column] = map_scale(case, channel, options)
    elif options.quantifier == "random":
        drawn = np.random.default_rng(options.seed).random((len(channels) + 1, len(cases)))
        present = np.array(status) != "absent"
        of_cases = np.where(present.any(axis=0), drawn[-1], np.nan)
        return Quantified(channels, tuple(map(tuple, status)), np.where(present, drawn[:-1], np.nan), of_cases)
    elif options.quantifier in DEVIATIONS:
        present = np.array(status) != "absent"
        without = MODEL_GROUPS if options.quantifier == "plain-deviation" else frozenset()
        values, of_cases, said = _deviation(cases, header, channels, without=without)
        return Quantified(channels, tuple(map(tuple, status)), np.where(present, values, np.nan), of_cases, said)
    elif options.facts.of_classes:
        values = _class_values(cases, channels, options, metrics)
        present = np.array(status) != "absent"
        values = np.where(present, values, np.nan)
    for row, of_class in enumerate(values):
        status[row] = [
            "undefined" if word == "ok" and np.isnan(value) else word
            for word, value in zip(status[row], of_class, strict=True)
        ]
    of_cases = _case_values(cases, channels, values, np.array(status), options)
    for name, numbers in (
        *zip((header.channels[channel][1] for channel in channels), values, strict=True),
        ("", of_cases),
    ):
        _refuse_strange(cases, name, numbers, options)
    return Quantified(channels, tuple(map(tuple, status)), values, of_cases)


def case_volumes_ml(cases: Sequence[CaseFeatures], channels: Sequence[int]) -> Float[np.ndarray, " case"]:
    """Volume of the chosen classes together: their sum, but no more than the whole foreground where regions overlap."""
    return np.array([min(float(case.volume_ml[list(channels)].sum()), case.foreground_ml) for case in cases])


def map_spectra_of(case: CaseFeatures, channel: int, options: ScoreOptions) -> list[Spectrum]:
    """The spectra of one class map that a spectral quantifier reads: one, or with unfolding "mean" all three.

    Raises:
        InputError: the file holds maps only.
    """
    unfoldings: tuple[Unfolding, ...] = UNFOLDINGS if options.unfolding == "mean" else (options.unfolding,)
    centering: Centering = "centered" if options.center else "uncentered"
    if not case.spectra:
        raise InputError(
            f"case {case.case_id}", expected="spectra", found="maps only", cure="extract with --store spectrum or both"
        )
    return [case.spectra[options.roi, options.of, unfolding, centering][channel] for unfolding in unfoldings]


def map_scale(case: CaseFeatures, channel: int, options: ScoreOptions) -> tuple[str, float]:
    """Status and scale S (nan where there is none) of one class map.

    Raises:
        InputError: the file holds maps only, or a spectrum in it is not one.
    """
    status = str(case.status[channel])
    if options.eps_rule == "denominator" and status != "ok":
        return status, np.nan
    if status == "absent":
        return status, 1.0  # as released, where the map of an absent class is zero everywhere
    spectra = map_spectra_of(case, channel, options)
    if any(len(spectrum) < 2 for spectrum in spectra):
        return "flat", np.nan  # one slice: log r = 0, and eq. 5 is not defined
    if options.eps_rule == "denominator" and _is_constant(case, channel, options):
        return "flat", np.nan
    with _as_input_error(case, channel):
        scales = [
            float(semantic_perception_scale(spectrum, energy=options.energy, eps_rule=options.eps_rule))
            for spectrum in spectra
        ]
    scale = float(np.mean(scales))
    return "flat" if np.isnan(scale) else status, scale


def _is_constant(case: CaseFeatures, channel: int, options: ScoreOptions) -> bool:
    """Whether the map that is measured has no variation: a box, or saturated probabilities, of one that has."""
    return not any(
        case.spectra[options.roi, options.of, unfolding, "centered"][channel].any() for unfolding in UNFOLDINGS
    )


@contextmanager
def _as_input_error(case: CaseFeatures, channel: int) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        where = f"case {case.case_id}, class {case.class_names[channel]}"
        raise InputError(where, expected="a spectrum", found=f"'{error}'", cure="run extract again") from error


def _class_values(
    cases: Sequence[CaseFeatures], channels: Sequence[int], options: ScoreOptions, metrics: Sequence[Row]
) -> Float[np.ndarray, "class case"]:
    name = options.quantifier
    if name in {"mahalanobis", "relative-mahalanobis"}:
        vectors = np.stack([case.class_features[list(channels)] for case in cases])
        return mahalanobis_distance(vectors, relative=name == "relative-mahalanobis").T
    if name == "predicted-dice":
        return _predicted_dice(cases, channels, metrics)
    one = _ONE_CLASS.get(name) or partial(_effective_rank, options=options)
    values = np.array([[one(case, channel) for case in cases] for channel in channels], dtype=np.float64)
    if name == "agreement" and np.isnan(values).all():
        raise InputError(
            "--quantifier agreement",
            expected="features with the agreement of the extractor's masks with the labels",
            found="none",
            cure="extract from a labelled data set with an extractor that labels prompt",
        )
    return values


def _statistic(case: CaseFeatures, channel: int, *, name: str) -> float:
    if name not in case.statistic_names:
        raise InputError(
            f"case {case.case_id}", expected=f"the voxel statistic {name}", found="none", cure="run extract again"
        )
    return float(case.voxel_statistics[channel, case.statistic_names.index(name)])


def _of_features(
    case: CaseFeatures, channel: int, *, measure: Callable[[Float[np.ndarray, " feature"], int], float]
) -> float:
    if not case.channel_spectra:
        raise InputError(
            f"case {case.case_id}", expected="spectra", found="maps only", cure="extract with --store spectrum or both"
        )
    return measure(case.channel_spectra["centered"][channel], int(case.n_feature_voxels[channel]))


def _effective_rank(case: CaseFeatures, channel: int, *, options: ScoreOptions) -> float:
    spectra = map_spectra_of(case, channel, options)
    if _is_constant(case, channel, options):
        return float("nan")
    with _as_input_error(case, channel):
        return float(np.mean([effective_rank(spectrum) for spectrum in spectra]))


# What a quantifier reads of one class of one case.
_ONE_CLASS: Mapping[str, Callable[[CaseFeatures, int], float]] = {
    "variance": lambda case, channel: _statistic(case, channel, name="std") ** 2,
    "fisher": partial(_statistic, name="trigamma"),
    "entropy": partial(_statistic, name="probability_entropy"),
    "feature-variance": partial(_of_features, measure=feature_variance),
    "semantic-scale": partial(_of_features, measure=semantic_scale),
    "agreement": lambda case, channel: float(case.agreement[channel, 0]),
    "volume": lambda case, channel: float(case.volume_ml[channel]),
    "depth": lambda case, channel: float(case.n_slices[channel]),
}


def _predicted_dice(
    cases: Sequence[CaseFeatures], channels: Sequence[int], metrics: Sequence[Row]
) -> Float[np.ndarray, "class case"]:
    dice: dict[tuple[str, str], Cell] = {}
    for row in metrics:
        key = (str(row["case"]), str(row["class_name"]))
        if row["class_id"] is not None and key in dice:
            raise InputError(
                "--metrics",
                expected="each class of a case once",
                found=f"{key[1]} of {key[0]} twice",
                cure="leave one row out",
            )
        if row["class_id"] is not None:
            dice[key] = row["dice"]
    found = [[dice.get((case.case_id, case.class_names[channel])) for case in cases] for channel in channels]
    values = np.array([[np.nan if value is None else value for value in row] for row in found], dtype=np.float64)
    if np.isnan(values).all():
        raise InputError(
            "--metrics",
            expected="a Dice of a class and case of the features",
            found="none",
            cure="evaluate cross-validated predictions of these cases",
        )
    return values


def _case_values(
    cases: Sequence[CaseFeatures],
    channels: Sequence[int],
    values: Float[np.ndarray, "class case"],
    status: Shaped[np.ndarray, "class case"],
    options: ScoreOptions,
) -> Float[np.ndarray, " case"]:
    if options.quantifier == "eaoa":
        return np.array([case.log_residual_probability for case in cases])
    defined = ~np.isnan(values)
    filled = np.where(defined, values, 0.0)
    usable = defined.any(axis=0)
    if options.quantifier == "depth":
        together = filled.max(axis=0)
    elif options.quantifier == "volume":
        together = case_volumes_ml(cases, channels)
    elif options.aggregate == "sum":
        together = filled.sum(axis=0)
        # A sum over fewer terms is smaller for that alone: a class that is there without a value leaves no sum.
        usable &= (defined | (status == "absent")).all(axis=0)
    else:
        together = filled.sum(axis=0) / np.maximum(defined.sum(axis=0), 1)
    return np.asarray(np.where(usable, together, np.nan))


def _deviation(
    cases: Sequence[CaseFeatures], header: FeatureHeader, channels: Sequence[int], *, without: frozenset[str]
) -> tuple[Float[np.ndarray, "class case"], Float[np.ndarray, " case"], tuple[str, ...]]:
    """Of the chosen classes, of the cases (their evidence, and what is of no class), and the reasons.

    Groups of evidence `without` are not read.
    """
    bare = next((case for case in cases if not case.spectra), None)
    if bare is not None:
        raise InputError(
            f"case {bare.case_id}", expected="spectra", found="maps only", cure="extract with --store spectrum or both"
        )
    try:
        evidence = evidence_of(cases)
    except ValueError as error:
        raise InputError("features", expected="spectra", found=f"'{error}'", cure="run extract again") from error
    z = evidence.z()
    z[:, [group in without for group in evidence.groups]] = np.nan
    of_others = np.ones((len(evidence.names), z.shape[2]), dtype=bool)
    of_others[:, list(channels)] = False
    of_others[evidence.of_case] = False
    z[:, of_others] = np.nan
    of_classes = class_deviations(z, evidence.groups, evidence.of_case)[list(channels)]
    said = reasons(z, evidence, [name for _, name in header.channels])
    return of_classes, deviation(z, evidence.groups), tuple(said)


def _refuse_strange(
    cases: Sequence[CaseFeatures], class_name: str, values: Float[np.ndarray, " case"], options: ScoreOptions
) -> None:
    """Refuse what only a damaged file can hold, before it bends the axis of all cases."""
    strange = np.isinf(values) | ((values < 0) if options.facts.axis == "log" else False)
    if strange.any():
        index = int(strange.argmax())
        raise InputError(
            f"case {cases[index].case_id}" + (f", class {class_name}" if class_name else ""),
            expected=f"a finite value of {options.quantifier}" + (", 0 or more" if options.facts.axis == "log" else ""),
            found=f"{values[index]:g}",
            cure="run extract again, or correct --metrics",
        )
