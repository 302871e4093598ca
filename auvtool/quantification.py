"""The value of a quantifier for each class of each case, and for each whole case, from stored features."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from auvtool.arrays import Spectrum
from auvtool.errors import InputError, UsageError
from auvtool.feature_store import CaseFeatures, FeatureFile, FeatureHeader
from auvtool.quantifiers.controls import effective_rank
from auvtool.quantifiers.mahalanobis import mahalanobis_distance
from auvtool.quantifiers.semantic_scale import semantic_scale
from auvtool.quantifiers.variance import feature_variance
from auvtool.scale import semantic_perception_scale
from auvtool.schema import Row
from auvtool.score_options import ScoreOptions
from auvtool.spectrum import UNFOLDINGS, Centering, Unfolding


@dataclass(frozen=True)
class Quantified:
    """Values of a data set, nan where there is none.

    Attributes:
        channels: positions of the classes used, in the file's order.
        status: for each class and case "ok", "absent", "flat" or "undefined" (there, but without a value).
        of_classes: in the quantifier's unit.
        of_cases: of whole cases.
    """

    channels: tuple[int, ...]
    status: tuple[tuple[str, ...], ...]
    of_classes: Float[np.ndarray, "class case"]
    of_cases: Float[np.ndarray, " case"]


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
    channels = _chosen_channels(header, options.classes)
    values = np.full((len(channels), len(cases)), np.nan)
    status = [[str(case.status[channel]) for case in cases] for channel in channels]
    if options.quantifier == "auv":
        for row, channel in enumerate(channels):
            for column, case in enumerate(cases):
                status[row][column], values[row, column] = map_scale(case, channel, options)
    elif options.quantifier == "random":
        drawn = np.random.default_rng(options.seed).random((len(channels) + 1, len(cases)))
        return Quantified(channels, tuple(map(tuple, status)), drawn[:-1], drawn[-1])
    elif options.facts.of_classes:
        values = _class_values(cases, channels, options, metrics)
        present = np.array(status) != "absent"
        values = np.where(present, values, np.nan)
    for row, of_class in enumerate(values):
        status[row] = [
            "undefined" if word == "ok" and np.isnan(value) else word
            for word, value in zip(status[row], of_class, strict=True)
        ]
    return Quantified(channels, tuple(map(tuple, status)), values, _case_values(cases, values, options))


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
    try:
        scales = [
            float(semantic_perception_scale(spectrum, energy=options.energy, eps_rule=options.eps_rule))
            for spectrum in spectra
        ]
    except ValueError as error:
        where = f"case {case.case_id}, class {case.class_names[channel]}"
        raise InputError(where, expected="a spectrum", found=f"'{error}'", cure="run extract again") from error
    scale = float(np.mean(scales))
    return "flat" if np.isnan(scale) else status, scale


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
    return float(np.mean([effective_rank(spectrum) for spectrum in map_spectra_of(case, channel, options)]))


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
    dice = {(str(row["case"]), row["class_id"]): row["dice"] for row in metrics}
    found = [[dice.get((case.case_id, case.class_ids[channel])) for case in cases] for channel in channels]
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
    cases: Sequence[CaseFeatures], values: Float[np.ndarray, "class case"], options: ScoreOptions
) -> Float[np.ndarray, " case"]:
    if options.quantifier == "eaoa":
        return np.array([case.log_residual_probability for case in cases])
    defined = ~np.isnan(values)
    filled = np.where(defined, values, 0.0)
    counts = defined.sum(axis=0)
    if options.quantifier == "depth":
        together = filled.max(axis=0)
    elif options.quantifier == "volume" or options.aggregate == "sum":
        together = filled.sum(axis=0)
    else:
        together = filled.sum(axis=0) / np.maximum(counts, 1)
    return np.asarray(np.where(counts > 0, together, np.nan))


def _chosen_channels(header: FeatureHeader, classes: Sequence[str]) -> tuple[int, ...]:
    """Position of each class asked for, in the file's order."""
    channels = [(str(class_id), name) for class_id, name in header.channels]
    unknown = [wanted for wanted in classes if not any(wanted in channel for channel in channels)]
    if unknown:
        known = ", ".join(name for _, name in channels)
        raise UsageError(f"--classes: expected some of {known}, got {', '.join(unknown)}; name classes of the file")
    return tuple(
        position
        for position, channel in enumerate(channels)
        if not classes or any(wanted in channel for wanted in classes)
    )
