"""How the score of one case came about: its spectra, its place in the data set, its size, the class that drove it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from auvtool.auv import Side
from auvtool.case_features import CaseFeatures
from auvtool.errors import UsageError
from auvtool.quantification import map_spectra_of
from auvtool.scale import energy_shares
from auvtool.schema import Row
from auvtool.score_options import ScoreOptions
from auvtool.scoring import ScoreColumn, Scoring

_N_SHOWN = 3
_ROUNDING = 1e-12  # of a sum of shares


def explain(scoring: Scoring, cases: Sequence[CaseFeatures], case_id: str) -> list[Row]:
    """Rows of the EXPLANATION table: the classes of a case, then the whole case.

    `push` splits the distance of the case's value from the medians of its classes: (median - value) / n of each of its
    n classes that have a value (not divided where classes are summed), its sign turned so that above 0 means towards
    uncertain. It is empty where a case's value is not made of those of its classes.

    Raises:
        UsageError: there is no such case.
    """
    if case_id not in scoring.case_ids:
        raise UsageError(
            f"--explain: expected a case of the file, got {case_id}; auvtool info says how many there are, "
            "score prints their ids"
        )
    index = scoring.case_ids.index(case_id)
    pushes = _pushes(scoring, index)
    channels = [*scoring.quantified.channels, None]
    return [
        {
            "case": case_id,
            "class_id": column.class_id,
            "class_name": column.class_name,
            "status": column.status[index],
            "quantifier": scoring.options.quantifier,
            "method": scoring.method,
            **_place(column, index),
            "push": push,
            **_energies(cases[index], channel, scoring.options, present=column.status[index] == "ok"),
        }
        for column, channel, push in zip(scoring.columns, channels, [*pushes, None], strict=True)
    ]


def driving_class(rows: Sequence[Row]) -> tuple[str, Side] | None:
    """The class that pushed the case the most to the side where it lies, and that side; None where none did."""
    pushes = {str(row["class_name"]): float(row["push"]) for row in rows if isinstance(row["push"], float)}
    towards = 1.0 if sum(pushes.values()) > 0 else -1.0
    name = max(pushes, key=lambda one: towards * pushes[one], default=None)
    if name is None or towards * pushes[name] <= 0:
        return None
    return name, "uncertain" if towards > 0 else "certain"


def _place(column: ScoreColumn, index: int) -> Row:
    auv = column.auv[index]
    ranked = column.auv[~np.isnan(column.auv)]
    values = column.values[~np.isnan(column.values)]
    return {
        "value": None if np.isnan(column.values[index]) else float(column.values[index]),
        "median": float(np.median(values)) if values.size else None,
        "auv": None if np.isnan(auv) else float(auv),
        "rank": None if np.isnan(auv) else int((ranked > auv).sum()) + 1,
        "n_ranked": int(ranked.size),
        "volume_percentile": _percentile(np.array(column.volume_ml), index),
        "depth_percentile": _percentile(np.array(column.n_slices, dtype=np.float64), index),
    }


def _percentile(sizes: Float[np.ndarray, " case"], index: int) -> float | None:
    """Share in percent of the cases that have the class whose size is at most that of case `index`."""
    there = sizes[sizes > 0]
    return float(100.0 * (there <= sizes[index]).mean()) if sizes[index] > 0 else None


def _pushes(scoring: Scoring, index: int) -> list[float | None]:
    values, options = scoring.quantified.of_classes, scoring.options
    here = values[:, index]
    n = int((~np.isnan(here)).sum())
    if options.has_own_case_value or options.two_sided or options.residualise or n == 0:
        return [None] * len(values)
    towards = 1.0 if options.facts.high == "uncertain" else -1.0
    share = 1.0 if options.aggregate == "sum" else 1.0 / n
    return [
        None if np.isnan(value) else float(towards * share * (value - np.nanmedian(of_class)))
        for value, of_class in zip(here, values, strict=True)
    ]


def _energies(case: CaseFeatures, channel: int | None, options: ScoreOptions, *, present: bool) -> Row:
    if channel is None or not options.facts.spectral or not present:
        return {}
    # Of unfolding "mean" the first of the three is shown.
    spectrum = map_spectra_of(case, channel, options)[0]
    energy = options.energy if options.quantifier == "auv" else "linear"
    shares = energy_shares(spectrum, energy=energy, eps_rule=options.eps_rule)
    return {
        "n_singular_values": len(shares),
        "n_for_90": int(np.searchsorted(np.cumsum(shares), 0.9 - _ROUNDING)) + 1,
        **{f"energy_{j}": float(share) for j, share in enumerate(shares[:_N_SHOWN], start=1)},
    }
