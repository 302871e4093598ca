"""From the values of a quantifier to a table of scores: an AUV for each class of each case, and for each whole case."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from auvtool.auv import AuvAxis, fit_axis, log_coordinates, place
from auvtool.case_features import CaseFeatures, FeatureHeader
from auvtool.correlation import partial_spearman
from auvtool.errors import InputError, UsageError
from auvtool.quantification import Quantified, case_volumes_ml, quantify
from auvtool.residuals import residuals
from auvtool.schema import ALL_CLASSES, Row
from auvtool.score_options import Covariate, ScoreOptions, check_header

_SPACING_DECIMALS = 4  # of a millimetre

Axes = Mapping[int | None, AuvAxis]


@dataclass(frozen=True)
class ScoreColumn:
    """One class, or the whole case (class_id None), over all cases of the file; nan where there is no value."""

    class_id: int | None
    class_name: str
    status: tuple[str, ...]
    values: Float[np.ndarray, " case"]
    covariates: Mapping[Covariate, Float[np.ndarray, " case"]]
    n_slices: tuple[int, ...]
    volume_ml: tuple[float, ...]
    auv: Float[np.ndarray, " case"] = field(default_factory=lambda: np.empty(0))
    axis: AuvAxis | None = None


@dataclass(frozen=True)
class Scoring:
    """Scores of a data set: the classes in the file's order, then the whole cases."""

    options: ScoreOptions
    method: str
    case_ids: tuple[str, ...]
    quantified: Quantified
    columns: tuple[ScoreColumn, ...]

    @property
    def whole_cases(self) -> ScoreColumn:
        return self.columns[-1]

    def rows(self) -> list[Row]:
        """Rows of the SCORES table: for each case its classes, then the whole case."""
        return [
            self._row(column, index, case_id) for index, case_id in enumerate(self.case_ids) for column in self.columns
        ]

    def _row(self, column: ScoreColumn, index: int, case_id: str) -> Row:
        said = self.quantified.reasons
        return {
            "case": case_id,
            "class_id": column.class_id,
            "class_name": column.class_name,
            "status": column.status[index],
            "quantifier": self.options.quantifier,
            "method": self.method,
            "value": _number_or_none(column.values[index]),
            "auv": _number_or_none(column.auv[index]),
            "axis": self.options.axis,
            "axis_min": column.axis.minimum if column.axis else None,
            "axis_max": column.axis.maximum if column.axis else None,
            "axis_center": column.axis.center if column.axis else None,
            "n_slices": column.n_slices[index],
            "volume_ml": column.volume_ml[index],
            "reason": said[index] or None if said and column.class_id is None else None,
        }


def score_cases(
    cases: Sequence[CaseFeatures],
    header: FeatureHeader,
    options: ScoreOptions,
    *,
    metrics: Sequence[Row] = (),
    reference: Sequence[Row] = (),
) -> Scoring:
    """Scores of the cases of one features file.

    The AUV (eq. 6) of a class is taken over the cases that have it, that of a case over all cases of the file. With
    covariates the axis is that of the coordinate's residuals: what the covariates do not explain.

    Args:
        cases: of one file.
        header: of that file.
        options: what is measured, and how it is placed.
        metrics: METRICS rows, for quantifier "predicted-dice".
        reference: SCORES rows of another data set whose axis the cases are placed on, instead of their own.

    Raises:
        UsageError: the options do not fit the features, or the covariates leave nothing to rank.
        InputError: the features lack what is asked for, or the reference was made in another way.
    """
    check_header(options, header)
    axes = _reference_axes(reference, options, header) if reference else None
    quantified = quantify(cases, header, options, metrics=metrics)
    columns = [
        _class_column(cases, header, quantified, row, channel) for row, channel in enumerate(quantified.channels)
    ]
    columns.append(_case_column(cases, quantified, columns))
    placed = tuple(_placed(column, options, axes) for column in columns)
    return Scoring(options, options.method(header), tuple(case.case_id for case in cases), quantified, placed)


def _class_column(
    cases: Sequence[CaseFeatures], header: FeatureHeader, quantified: Quantified, row: int, channel: int
) -> ScoreColumn:
    class_id, name = header.channels[channel]
    volume_ml = tuple(float(case.volume_ml[channel]) for case in cases)
    n_slices = tuple(int(case.n_slices[channel]) for case in cases)
    return ScoreColumn(
        class_id,
        name,
        quantified.status[row],
        quantified.of_classes[row],
        _covariates(cases, volume_ml, n_slices),
        n_slices,
        volume_ml,
    )


def _case_column(cases: Sequence[CaseFeatures], quantified: Quantified, columns: Sequence[ScoreColumn]) -> ScoreColumn:
    """Whole cases: the best status of a class; the most slices of a class; the volumes of all classes together."""
    statuses = tuple(
        _case_status(of_case, has_value=bool(has_value))
        for of_case, has_value in zip(zip(*quantified.status, strict=True), ~np.isnan(quantified.of_cases), strict=True)
    )
    n_slices = tuple(max(counts) for counts in zip(*(column.n_slices for column in columns), strict=True))
    volume_ml = tuple(case_volumes_ml(cases, quantified.channels).tolist())
    return ScoreColumn(
        None,
        ALL_CLASSES,
        statuses,
        quantified.of_cases,
        _covariates(cases, volume_ml, n_slices),
        n_slices,
        volume_ml,
    )


def _case_status(of_classes: Sequence[str], *, has_value: bool) -> str:
    if "ok" in of_classes or "undefined" in of_classes:
        return "ok" if has_value else "undefined"
    return "flat" if "flat" in of_classes else "absent"


def _covariates(
    cases: Sequence[CaseFeatures], volume_ml: Sequence[float], n_slices: Sequence[int]
) -> dict[Covariate, Float[np.ndarray, " case"]]:
    """Logarithms: a size acts by its ratio. -inf where a class is absent, which has no value there either."""
    with np.errstate(divide="ignore"):
        return {
            "volume": np.log(np.array(volume_ml)),
            "depth": np.log(np.array(n_slices, dtype=np.float64)),
            # Headers of one protocol differ by the rounding of float32, which is no difference.
            "spacing": np.log(np.round([case.spacing_mm[0] for case in cases], _SPACING_DECIMALS)),
        }


def _placed(column: ScoreColumn, options: ScoreOptions, axes: Axes | None) -> ScoreColumn:
    facts = options.facts
    if facts.axis == "log":
        coordinates = log_coordinates(column.values, log_eps=options.log_eps)
    else:
        coordinates = np.asarray(column.values)
    if options.residualise and not np.isnan(coordinates).all():
        chosen = np.stack([column.covariates[name] for name in options.residualise], axis=1)
        try:
            coordinates = residuals(coordinates, chosen)
        except ValueError as error:
            raise UsageError(
                f"--residualise: expected more cases with a value of {column.class_name}, got {error}; "
                "name fewer covariates or classes"
            ) from error
    if axes is None:
        axis = fit_axis(coordinates, high=facts.high, range_eps=options.range_eps, two_sided=options.two_sided)
    else:
        axis = axes.get(column.class_id)
    auv = np.full(len(coordinates), np.nan) if axis is None else place(coordinates, axis)
    return replace(column, auv=auv, axis=axis)


def _reference_axes(reference: Sequence[Row], options: ScoreOptions, header: FeatureHeader) -> Axes:
    """The axis of each class in SCORES rows; a class that has none there has none here."""
    method = options.method(header)
    axes: dict[int | None, AuvAxis] = {}
    for row in reference:
        if row["quantifier"] != options.quantifier or row["method"] != method:
            raise InputError(
                "--reference",
                expected=f"scores of {options.quantifier} ({method})",
                found=f"{row['quantifier']} ({row['method']})",
                cure="score both data sets with the same options from the same kind of features",
            )
        low, high, center = (row[name] for name in ("axis_min", "axis_max", "axis_center"))
        if isinstance(low, int | float) and isinstance(high, int | float):
            class_id = int(row["class_id"]) if isinstance(row["class_id"], int) else None
            side = "uncertain" if options.two_sided else options.facts.high
            middle = float(center) if isinstance(center, int | float) else None
            axis = AuvAxis(float(low), float(high), side, options.range_eps, middle)
            if axes.setdefault(class_id, axis) != axis or low > high:
                raise InputError(
                    f"--reference: {row['case']}, {row['class_name']}",
                    expected="one axis a class, its minimum first",
                    found=f"{low:g} to {high:g}",
                    cure="give the table that score wrote",
                )
    if None not in axes:
        raise InputError(
            "--reference",
            expected="scores with an axis for whole cases",
            found="none",
            cure="score that data set again",
        )
    return axes


def size_correlations(column: ScoreColumn) -> dict[Covariate, tuple[float | None, float | None]]:
    """Spearman correlation of the AUV with volume and with depth: plain, and given the other one.

    None where it is not defined. Near 1 or -1 a filter by AUV drops cases by size, whatever else it does.
    """
    sizes: tuple[Covariate, Covariate] = ("volume", "depth")
    usable = ~np.isnan(column.auv) & np.isfinite(np.stack([column.covariates[name] for name in sizes])).all(axis=0)
    auv = column.auv[usable]
    found: dict[Covariate, tuple[float | None, float | None]] = {}
    for name, other in (sizes, sizes[::-1]):
        x, given = column.covariates[name][usable], column.covariates[other][usable][:, None]
        plain, partial = (partial_spearman(auv, x, covariates) for covariates in (given[:, :0], given))
        found[name] = (plain.coefficient if plain else None, partial.coefficient if partial else None)
    return found


def _number_or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
