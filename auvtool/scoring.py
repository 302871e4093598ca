"""From stored spectra to a table of scores: a scale and an AUV for each class of each case, and for each whole case."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from auvtool.arrays import Scale
from auvtool.auv import AuvAxis, fit_axis, place
from auvtool.errors import InputError, UsageError
from auvtool.feature_store import CaseFeatures, FeatureFile, MapKind
from auvtool.scale import Energy, EpsRule, semantic_perception_scale
from auvtool.schema import Row
from auvtool.spectrum import UNFOLDINGS, Centering, Unfolding

Preset: TypeAlias = Literal["paper", "official"]
UnfoldingChoice: TypeAlias = Literal["d_hw", "h_dw", "w_dh", "mean"]
Aggregate: TypeAlias = Literal["mean", "sum"]
Quantifier: TypeAlias = Literal["auv", "agreement", "random"]

ALL_CLASSES = "all"  # class_name of the row of a whole case


@dataclass(frozen=True)
class ScaleOptions:
    """How a scale is taken from the stored spectra (METHOD: where paper and released code disagree).

    Args:
        preset: where the small constants stand, and what an absent map counts.
        energy: eq. 4's s^2, or s as released.
        center: take the spectrum of the map less its row means (the covariance of eq. 2).
        of: the maps before or after the softmax or sigmoid.
        unfolding: the axis kept as rows; "mean" is the mean scale of the three.
        aggregate: a case's scale from those of its classes.
    """

    preset: Preset
    energy: Energy
    center: bool
    of: MapKind
    unfolding: UnfoldingChoice
    aggregate: Aggregate

    @property
    def eps_rule(self) -> EpsRule:
        return "added" if self.preset == "official" else "denominator"

    @property
    def log_eps(self) -> float:
        """Added to S before the logarithm: 1e-8 as released; eq. 6 has none, so only what keeps log 0 finite."""
        return 1e-8 if self.preset == "official" else 1e-12

    @property
    def range_eps(self) -> float:
        return 1e-8 if self.preset == "official" else 0.0


_PRESETS: dict[Preset, ScaleOptions] = {
    "paper": ScaleOptions("paper", "squared", center=False, of="logits", unfolding="d_hw", aggregate="mean"),
    "official": ScaleOptions("official", "linear", center=False, of="logits", unfolding="d_hw", aggregate="sum"),
}


def scale_options(
    preset: Preset,
    *,
    energy: Energy | None = None,
    center: bool | None = None,
    of: MapKind | None = None,
    unfolding: UnfoldingChoice | None = None,
    aggregate: Aggregate | None = None,
) -> ScaleOptions:
    """A preset, with what is given explicitly in the place of its own choice."""
    given = {"energy": energy, "center": center, "of": of, "unfolding": unfolding, "aggregate": aggregate}
    explicit: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(_PRESETS[preset], **explicit)


def score_features(
    features: FeatureFile,
    options: ScaleOptions,
    *,
    classes: Sequence[str] = (),
    quantifier: Quantifier = "auv",
    seed: int = 0,
) -> list[Row]:
    """The rows of the SCORES table: for each case its classes in the file's order, then the whole case.

    The AUV (eq. 6) of a class is taken over the cases that have it, that of a case over all cases of the file. Under
    preset "paper" an absent or flat map has no scale and stands in no mean; under "official" it counts as the all-zero
    map that it is in the released code, with scale 1.

    Quantifier "agreement" puts 1 - Dice of the extractor's mask with the label into the AUV column (a case: the mean of
    its classes), "random" a number from [0, 1) drawn for each case and class; both leave scale and axis empty.

    Args:
        features: an open features file.
        options: how a scale is taken; only quantifier "auv" uses it.
        classes: names or ids of the classes to use; empty: all.
        quantifier: what stands in the AUV column.
        seed: of quantifier "random".

    Raises:
        UsageError: a class is not in the file.
        InputError: the file holds no case, lacks what is asked for, or a spectrum in it is not one.
    """
    cases = [features.case(case_id) for case_id in features.case_ids]
    if not cases:
        raise InputError(features.path, expected="at least one case", found="none", cure="run extract again")
    channels = _chosen_channels(features, classes)
    columns = [_Column.of_class(cases, channel) for channel in channels]
    if quantifier == "auv":
        for column, channel in zip(columns, channels, strict=True):
            for row, case in enumerate(cases):
                column.status[row], column.scale[row] = _map_scale(case, channel, options)
        columns.append(_Column.of_cases(columns))
        columns[-1].scale[:] = _aggregate(columns[:-1], options.aggregate)
        for column in columns:
            column.place_on_axis(options)
    elif quantifier == "agreement":
        for column, channel in zip(columns, channels, strict=True):
            column.auv[:] = [1.0 - case.agreement[channel, 0] for case in cases]  # nan where there is none
        if all(np.isnan(column.auv).all() for column in columns):
            raise InputError(
                features.path,
                expected="the agreement of the extractor's masks with the labels",
                found="none",
                cure="extract from a labelled data set with an extractor that labels prompt",
            )
        columns.append(_Column.of_cases(columns))
        columns[-1].auv[:] = _mean_of_defined(np.stack([column.auv for column in columns[:-1]]))
    else:
        columns.append(_Column.of_cases(columns))
        for column, drawn in zip(columns, np.random.default_rng(seed).random((len(columns), len(cases))), strict=True):
            column.auv[:] = drawn
    return [column.row(position, case.case_id) for position, case in enumerate(cases) for column in columns]


@dataclass
class _Column:
    """One class, or the whole case (class_id None), over all cases of the file."""

    class_id: int | None
    name: str
    status: list[str]
    n_slices: list[int]
    volume_ml: list[float]
    scale: Scale  # nan where there is none, as in auv
    auv: Scale
    axis: AuvAxis | None = None

    @classmethod
    def of_class(cls, cases: Sequence[CaseFeatures], channel: int) -> "_Column":
        return cls(
            int(cases[0].class_ids[channel]),
            str(cases[0].class_names[channel]),
            [str(case.status[channel]) for case in cases],
            [int(case.n_slices[channel]) for case in cases],
            [float(case.volume_ml[channel]) for case in cases],
            np.full(len(cases), np.nan),
            np.full(len(cases), np.nan),
        )

    @classmethod
    def of_cases(cls, columns: Sequence["_Column"]) -> "_Column":
        """Whole cases: ok if any class is; the most slices of a class; the volumes of all classes together."""
        statuses = list(zip(*(column.status for column in columns), strict=True))
        return cls(
            None,
            ALL_CLASSES,
            [next((kind for kind in ("ok", "flat") if kind in status), "absent") for status in statuses],
            [max(counts) for counts in zip(*(column.n_slices for column in columns), strict=True)],
            [float(sum(volumes)) for volumes in zip(*(column.volume_ml for column in columns), strict=True)],
            np.full(len(statuses), np.nan),
            np.full(len(statuses), np.nan),
        )

    def place_on_axis(self, options: ScaleOptions) -> None:
        self.axis = fit_axis(self.scale, log_eps=options.log_eps, range_eps=options.range_eps)
        if self.axis is not None:
            self.auv[:] = place(self.scale, self.axis)

    def row(self, position: int, case_id: str) -> Row:
        return {
            "case": case_id,
            "class_id": self.class_id,
            "class_name": self.name,
            "status": self.status[position],
            "scale": _number_or_none(self.scale[position]),
            "auv": _number_or_none(self.auv[position]),
            "log_scale_min": self.axis.log_min if self.axis else None,
            "log_scale_max": self.axis.log_max if self.axis else None,
            "n_slices": self.n_slices[position],
            "volume_ml": self.volume_ml[position],
        }


def _chosen_channels(features: FeatureFile, classes: Sequence[str]) -> list[int]:
    """Position of each class asked for, in the file's order."""
    channels = [(str(class_id), name) for class_id, name in features.header.channels]
    unknown = [wanted for wanted in classes if not any(wanted in channel for channel in channels)]
    if unknown:
        known = ", ".join(name for _, name in channels)
        raise UsageError(f"--classes: expected some of {known}, got {', '.join(unknown)}; name classes of the file")
    return [
        position
        for position, channel in enumerate(channels)
        if not classes or any(wanted in channel for wanted in classes)
    ]


def _map_scale(case: CaseFeatures, channel: int, options: ScaleOptions) -> tuple[str, float]:
    """Status and scale (nan where there is none) of one class map."""
    status = str(case.status[channel])
    if options.eps_rule == "denominator" and status != "ok":
        return status, np.nan
    if status == "absent":
        return status, 1.0  # as released, where the map of an absent class is zero everywhere
    unfoldings: tuple[Unfolding, ...] = UNFOLDINGS if options.unfolding == "mean" else (options.unfolding,)
    centering: Centering = "centered" if options.center else "uncentered"
    if not case.spectra:
        raise InputError(
            f"case {case.case_id}", expected="spectra", found="maps only", cure="extract with --store spectrum or both"
        )
    spectra = [case.spectra[(options.of, unfolding, centering)][channel] for unfolding in unfoldings]
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


def _aggregate(columns: Sequence[_Column], aggregate: Aggregate) -> Scale:
    """Scale of each case from those of its classes, over the classes that have one."""
    scales = np.stack([column.scale for column in columns])
    if aggregate == "mean":
        return _mean_of_defined(scales)
    return np.asarray(np.where(np.isnan(scales).all(axis=0), np.nan, np.nansum(scales, axis=0)))


def _mean_of_defined(values: Float[np.ndarray, "class case"]) -> Float[np.ndarray, " case"]:
    defined = ~np.isnan(values)
    counts = defined.sum(axis=0)
    sums = np.where(defined, values, 0.0).sum(axis=0)
    return np.asarray(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))


def _number_or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def confound(rows: Sequence[Row], column: Literal["volume_ml", "n_slices"]) -> float | None:
    """Spearman correlation of the AUV of whole cases with their size; None where there is nothing to rank.

    Near 1 or -1 a filter by AUV drops cases by size, whatever else it does.
    """
    from scipy.stats import spearmanr

    whole = [row for row in rows if row["class_id"] is None and row["auv"] is not None and row[column] is not None]
    auv, size = ([row[name] for row in whole] for name in ("auv", column))
    if len(set(auv)) < 2 or len(set(size)) < 2 or len(whole) < 3:
        return None
    return float(spearmanr(auv, size).statistic)
