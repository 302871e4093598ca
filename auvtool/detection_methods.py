"""What is judged by whether it finds faults: a number for each case or copy, high = suspect."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Protocol, TypeAlias, get_args

import numpy as np
from jaxtyping import Float

from auvtool.auv import log_coordinates
from auvtool.case_features import MAP_KINDS, ROIS, CaseFeatures, FeatureHeader
from auvtool.errors import UsageError
from auvtool.quantification import case_volumes_ml, quantify
from auvtool.quantifiers import QUANTIFIERS, QuantifierName
from auvtool.residuals import residuals
from auvtool.scale import Energy, semantic_perception_scale
from auvtool.score_options import ScoreOptions, UnfoldingChoice, check_header, score_options
from auvtool.scoring import score_cases
from auvtool.spectrum import CENTERINGS, Centering

Measure: TypeAlias = Callable[[Sequence[CaseFeatures]], Float[np.ndarray, " case"]]

_NEEDS_METRICS: tuple[QuantifierName, ...] = ("predicted-dice",)


@dataclass(frozen=True)
class Item:
    """A clean case (kind None), or a copy of one with one fault.

    Attributes:
        features: of the case or copy.
        case_id: of the clean case.
        kind: a name of the kinds of fault.
        family: of the kind.
        level: low, medium or high.
        severity: 1 - Dice with the clean label, or PSNR of the image with the clean one.
        donor: the case whose label it carries, if it is another's.
    """

    features: CaseFeatures
    case_id: str
    kind: str | None = None
    family: str | None = None
    level: str | None = None
    severity: float | None = None
    donor: str | None = None


class Method(Protocol):
    """A number for each case of a data set, high = suspect."""

    @property
    def name(self) -> str: ...

    @property
    def of_data_set(self) -> bool:
        """Whether a case's value depends on the other cases, so that each data set needs new ones."""

    def values(self, items: Sequence[Item], *, held_out: frozenset[str]) -> Float[np.ndarray, " item"]:
        """One value an item; nan where there is none. A trained method has seen no kind that is held out."""


@dataclass(frozen=True)
class QuantifierMethod:
    """What `score` says of whole cases: the value of a quantifier, its sign turned so that high = suspect.

    Its logarithm, as eq. 6 takes it, would rank the cases alike. With covariates or two sides it is the AUV itself.
    """

    name: str
    options: ScoreOptions
    header: FeatureHeader = field(repr=False)

    @property
    def of_data_set(self) -> bool:
        if self.options.quantifier == "random":
            return False  # by position alone: drawn once, so that a copy does not share the number of its own case
        return self._is_placed or self.options.facts.of_data_set

    @property
    def _is_placed(self) -> bool:
        return self.options.two_sided or bool(self.options.residualise)

    def values(self, items: Sequence[Item], *, held_out: frozenset[str]) -> Float[np.ndarray, " item"]:
        """See `Method`; a quantifier is not trained.

        Raises:
            InputError, UsageError: see `score_cases`.
        """
        cases = [item.features for item in items]
        if self._is_placed:
            return score_cases(cases, self.header, self.options).whole_cases.auv
        of_cases = quantify(cases, self.header, self.options).of_cases
        return of_cases if self.options.facts.high == "uncertain" else -of_cases


def quantifier_methods(header: FeatureHeader) -> tuple[QuantifierMethod, ...]:
    """Every quantifier and control that these features can answer; AUV as the paper has it and as released."""
    options: dict[str, ScoreOptions] = {
        "auv paper": score_options("auv", preset="paper"),
        "auv official": score_options("auv", preset="official"),
    }
    options |= {name: score_options(name) for name in QUANTIFIERS if name not in {"auv", *_NEEDS_METRICS}}
    return _answerable(options, header)


class ScaleMethod:
    """AUV of one form of the scale: what `QuantifierMethod` gives, with each scale measured once for all draws.

    Args:
        name: of the form.
        options: of the scale, and how it is placed.
        header: of the features.
        measure: scale of each case, instead of that of the class maps that `options` say.
    """

    def __init__(
        self, name: str, options: ScoreOptions, header: FeatureHeader, *, measure: Measure | None = None
    ) -> None:
        self.name, self.options = name, options
        self._header = header
        self._measure = measure or self._of_maps
        self._known: dict[str, float] = {}

    @property
    def of_data_set(self) -> bool:
        return self.options.two_sided or bool(self.options.residualise)

    def values(self, items: Sequence[Item], *, held_out: frozenset[str]) -> Float[np.ndarray, " item"]:
        """See `Method`; a scale is not trained."""
        new = [item.features for item in items if item.features.case_id not in self._known]
        if new:
            coordinates = log_coordinates(self._measure(new), log_eps=self.options.log_eps)
            self._known |= {case.case_id: float(value) for case, value in zip(new, coordinates, strict=True)}
        found = np.array([self._known[item.features.case_id] for item in items])
        if np.isnan(found).all():
            return found  # an extractor with one channel has no spectrum of channels
        if self.options.residualise:
            cases = [item.features for item in items]
            with np.errstate(divide="ignore"):
                sizes = {
                    "volume": np.log(case_volumes_ml(cases, range(len(self._header.channels)))),
                    "depth": np.log(np.array([case.n_slices.max() for case in cases], dtype=np.float64)),
                }
            found = residuals(found, np.stack([sizes[name] for name in self.options.residualise], axis=1))
        return np.abs(found - np.nanmedian(found)) if self.options.two_sided else -found

    def _of_maps(self, cases: Sequence[CaseFeatures]) -> Float[np.ndarray, " case"]:
        plain = replace(self.options, two_sided=False, residualise=())
        return quantify(cases, self._header, plain).of_cases


def channel_scales(
    cases: Sequence[CaseFeatures], *, energy: Energy, centering: Centering
) -> Float[np.ndarray, " case"]:
    """Scale (eq. 5) of the decoder's channels over a class's voxels, in the place of its map; mean over the classes."""
    found = []
    for case in cases:
        spectra = [s for s in case.channel_spectra[centering] if len(s) > 1 and np.isfinite(s).all() and s.any()]
        scales = [float(semantic_perception_scale(s, energy=energy, eps_rule="denominator")) for s in spectra]
        found.append(np.mean(scales) if scales else np.nan)
    return np.array(found, dtype=np.float64)


def scale_search_methods(header: FeatureHeader) -> tuple[ScaleMethod, ...]:
    """AUV with every choice of its scale: energy, centring, map, extent and unfolding; by one side and two, by size.

    Beside the class maps the decoder's channels over the class region, pooled, with both energies and centrings.
    """
    unfoldings: tuple[UnfoldingChoice, ...] = ("d_hw", "mean")
    options: dict[str, ScoreOptions] = {}
    for two_sided, by_size in product((False, True), (False, True)):
        for energy, center, of, roi, unfolding in product(get_args(Energy), (False, True), MAP_KINDS, ROIS, unfoldings):
            name = f"{energy} {'centred' if center else 'uncentred'} {of} {roi} {unfolding}"
            name += ", two-sided" * two_sided + ", residualised by volume depth" * by_size
            options[name] = score_options(
                "auv",
                scale={"energy": energy, "center": center, "of": of, "roi": roi, "unfolding": unfolding},
                residualise=("volume", "depth") if by_size else (),
                two_sided=two_sided,
            )
    of_maps = [ScaleMethod(method.name, method.options, header) for method in _answerable(options, header)]
    if header.prompt == "none":
        return tuple(of_maps)  # no class region
    of_channels = []
    for two_sided, by_size in product((False, True), (False, True)):
        for energy, centering in product(get_args(Energy), CENTERINGS):
            spelt = "centred" if centering == "centered" else "uncentred"
            name = f"{energy} {spelt} channels" + ", two-sided" * two_sided
            placed = score_options("auv", residualise=("volume", "depth") if by_size else (), two_sided=two_sided)
            of_channels.append(
                ScaleMethod(
                    name + ", residualised by volume depth" * by_size,
                    placed,
                    header,
                    measure=partial(channel_scales, energy=energy, centering=centering),
                )
            )
    return (*of_maps, *of_channels)


def _answerable(options: Mapping[str, ScoreOptions], header: FeatureHeader) -> tuple[QuantifierMethod, ...]:
    methods = []
    for name, chosen in options.items():
        try:
            check_header(chosen, header)
        except UsageError:
            continue  # features without prompts have no class values
        methods.append(QuantifierMethod(name, chosen, header))
    return tuple(methods)
