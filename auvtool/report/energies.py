"""Energy curves of the class maps from a features file (the paper's Figure 2), by class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np
from jaxtyping import Float

from auvtool.case_features import CaseFeatures
from auvtool.manifest import recorded_option
from auvtool.plots import N_CLASSES_DRAWN, aligned_shares
from auvtool.quantification import map_spectra_of
from auvtool.quantifiers import QUANTIFIERS
from auvtool.report.page import Band, EnergyPanel, Points
from auvtool.score_options import ScaleChoices, ScoreOptions, score_options

_CHOICES = ("energy", "center", "of", "unfolding", "roi", "aggregate")
_N_RANKS = 48  # of a curve: the first singular values hold the energy


def curve_options(scores: Path, quantifier: str) -> ScoreOptions:
    """How the spectra of these scores were taken, by their manifest; of what has no spectra the paper's preset."""
    names = {name for name, facts in QUANTIFIERS.items() if facts.spectral}
    recorded = {name: recorded_option(scores, name) for name in ("preset", *_CHOICES)} if quantifier in names else {}
    preset = cast(Literal["paper", "official"] | None, recorded.pop("preset", None))
    return score_options("auv", preset=preset, scale=cast(ScaleChoices, recorded))


def energy_panels(cases: Sequence[CaseFeatures], options: ScoreOptions, chosen: str | None) -> tuple[EnergyPanel, ...]:
    """Curves of the classes that some case has, of at most N_CLASSES_DRAWN; none where the file holds maps only."""
    if not cases or not all(case.spectra for case in cases):
        return ()
    panels: list[EnergyPanel] = []
    for channel, name in enumerate(cases[0].class_names):
        if len(panels) == N_CLASSES_DRAWN:
            break
        spectra = {case.case_id: map_spectra_of(case, channel, options)[0] for case in cases}
        shares, own = (
            aligned_shares(those, energy=options.energy, eps_rule=options.eps_rule)
            for those in (list(spectra.values()), [spectra[chosen]] if chosen in spectra else [])
        )
        if not len(shares):
            continue
        panels.append(
            EnergyPanel(
                name, len(shares), _band(shares), _band(np.cumsum(shares, axis=1)), _points(own[0]) if len(own) else ()
            )
        )
    return tuple(panels)


def said_of(options: ScoreOptions) -> str:
    """What the curves are of."""
    energy = "s squared" if options.energy == "squared" else "s"
    unfolding = "d_hw" if options.unfolding == "mean" else options.unfolding
    centring = "centred" if options.center else "not centred"
    return f"energy {energy}, {options.of}, unfolding {unfolding}, {centring}, {options.roi}"


def _band(curves: Float[np.ndarray, "map rank"]) -> Band:
    low, median, high = np.quantile(curves, [0.1, 0.5, 0.9], axis=0)
    return Band(_points(low), _points(median), _points(high))


def _points(curve: np.ndarray) -> Points:
    return tuple(float(value) for value in curve[:_N_RANKS])
