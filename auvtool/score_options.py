"""What `score` is asked for: presets, mechanisms, and which options fit together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict, get_args

from auvtool.case_features import FeatureHeader, MapKind, Roi
from auvtool.errors import UsageError
from auvtool.quantifiers import QUANTIFIERS, Quantifier, QuantifierName
from auvtool.scale import Energy, EpsRule

Preset: TypeAlias = Literal["paper", "official"]
UnfoldingChoice: TypeAlias = Literal["d_hw", "h_dw", "w_dh", "mean"]
Aggregate: TypeAlias = Literal["mean", "sum"]
Mechanism: TypeAlias = Literal["a", "b", "c", "d"]
Covariate: TypeAlias = Literal["volume", "depth", "spacing"]
COVARIATES: tuple[Covariate, ...] = get_args(Covariate)

# Table 5 of the paper: what the extractor saw, and whether chosen classes decide or all of them.
_MECHANISMS: dict[Mechanism, tuple[str, bool]] = {
    "a": ("raw", False),
    "b": ("raw", True),
    "c": ("mask", False),
    "d": ("mask", True),
}
DEVIATIONS: tuple[QuantifierName, ...] = ("deviation", "plain-deviation")
# What they read is a class's: its logits, its label, or features of its region.
_OF_CLASS_MAPS: frozenset[QuantifierName] = frozenset(
    ("mahalanobis", "relative-mahalanobis", "fisher", "eaoa", "entropy", "predicted-dice", "agreement", *DEVIATIONS)
)
# Their value of a whole case is not that of its classes together.
_OWN_CASE_VALUE: tuple[QuantifierName, ...] = ("eaoa", *DEVIATIONS, "volume", "depth", "random")


class ScaleChoices(TypedDict, total=False):
    """The options of a scale that a user gave; what is left out is the preset's choice."""

    energy: Energy | None
    center: bool | None
    of: MapKind | None
    unfolding: UnfoldingChoice | None
    roi: Roi | None
    aggregate: Aggregate | None


@dataclass(frozen=True)
class ScoreOptions:
    """How values are measured and placed on the axis (METHOD: where paper and released code disagree).

    Args:
        quantifier: what is measured.
        preset: where the small constants stand, and what an absent map counts.
        energy: eq. 4's s^2, or s as released.
        center: take the spectrum of the map less its row means (the covariance of eq. 2).
        of: the maps before or after the softmax or sigmoid.
        unfolding: the axis kept as rows; "mean" is the mean scale of the three.
        roi: the whole map, or the box around the class region.
        aggregate: a case's value from those of its classes.
        mechanism: of table 5; None: whatever the file and `classes` say.
        classes: names or ids of the classes to use; empty: all.
        residualise: covariates whose linear effect is taken out of the coordinate.
        two_sided: far from the data set's median on either side is uncertain.
        seed: of quantifier "random".
    """

    quantifier: QuantifierName = "auv"
    preset: Preset = "paper"
    energy: Energy = "squared"
    center: bool = False
    of: MapKind = "logits"
    unfolding: UnfoldingChoice = "d_hw"
    roi: Roi = "volume"
    aggregate: Aggregate = "mean"
    mechanism: Mechanism | None = None
    classes: tuple[str, ...] = ()
    residualise: tuple[Covariate, ...] = ()
    two_sided: bool = False
    seed: int = 0

    @property
    def facts(self) -> Quantifier:
        return QUANTIFIERS[self.quantifier]

    @property
    def eps_rule(self) -> EpsRule:
        return "added" if self.preset == "official" else "denominator"

    @property
    def log_eps(self) -> float:
        """Added before the logarithm: 1e-8 as released; eq. 6 has none, so only what keeps log 0 finite."""
        return 1e-8 if self.preset == "official" else 1e-12

    @property
    def range_eps(self) -> float:
        return 1e-8 if self.preset == "official" else 0.0

    @property
    def has_own_case_value(self) -> bool:
        """Whether a whole case's value is something else than the mean or sum of those of its classes."""
        return self.quantifier in _OWN_CASE_VALUE

    @property
    def axis(self) -> str:
        """The coordinate that is placed, as the SCORES table names it."""
        return " ".join(
            [self.facts.axis, *(["residual"] if self.residualise else []), *(["two-sided"] if self.two_sided else [])]
        )

    def method(self, header: FeatureHeader) -> str:
        """Extraction, measure and axis in one line; values of equal lines compare."""
        words: list[str] = []
        if self.quantifier == "auv":
            words += [self.preset, self.energy]
        if self.facts.spectral:
            words += ["centred" if self.center else "uncentred", self.of, self.unfolding, self.roi]
        if not self.has_own_case_value:
            words.append(self.aggregate)
        if self.quantifier == "random":
            words.append(f"seed {self.seed}")
        chosen = chosen_channels(header, self.classes)
        if len(chosen) < len(header.channels):
            words.append(f"classes {' '.join(header.channels[channel][1] for channel in chosen)}")
        parts = [
            header.extraction,
            " ".join(words),
            f"residualised by {' '.join(self.residualise)}" if self.residualise else "",
            "two-sided" if self.two_sided else "",
        ]
        return "; ".join(part for part in parts if part)


def score_options(
    quantifier: QuantifierName = "auv",
    *,
    preset: Preset | None = None,
    scale: ScaleChoices | None = None,
    mechanism: Mechanism | None = None,
    classes: Sequence[str] = (),
    residualise: Sequence[str] = (),
    two_sided: bool = False,
    seed: int | None = None,
) -> ScoreOptions:
    """A preset, with what is given explicitly in the place of its own choice.

    Raises:
        UsageError: options that do not fit each other.
    """
    given = {name: value for name, value in (scale or {}).items() if value is not None}
    _refuse_without_effect(quantifier, {"preset": preset, **given}, classes)
    _refuse_wrong_mechanism(mechanism, classes)
    _refuse_wrong_covariates(quantifier, residualise)
    if quantifier != "random" and seed is not None:
        raise UsageError(f"--seed: expected --quantifier random, got {quantifier}; nothing else here is drawn")
    if quantifier == "random" and (two_sided or residualise):
        raise UsageError(
            "--quantifier random: expected no --residualise and no --two-sided, got one; it knows of no size and side"
        )
    released: ScaleChoices = {"energy": "linear", "aggregate": "sum"} if preset == "official" else {}
    return ScoreOptions(
        quantifier=quantifier,
        preset=preset or "paper",
        mechanism=mechanism,
        classes=tuple(classes),
        residualise=tuple(name for name in COVARIATES if name in residualise),
        two_sided=two_sided,
        seed=seed or 0,
        **{**released, **given},  # type: ignore[arg-type]  # None is filtered out above
    )


def default_quantifier(
    header: FeatureHeader, *, scale: ScaleChoices, preset: Preset | None, mechanism: Mechanism | None, axis_given: bool
) -> QuantifierName:
    """What is measured where the user names nothing: deviation, the best at finding dirty cases that learns nothing.

    An option of the scale, a mechanism of table 5 or an axis to share (`--reference`) asks for auv; and features
    without classes hold nothing that deviation could compare.
    """
    of_scale = preset is not None or mechanism is not None or any(value is not None for value in scale.values())
    return "auv" if of_scale or axis_given or header.prompt == "none" else "deviation"


def chosen_channels(header: FeatureHeader, classes: Sequence[str]) -> tuple[int, ...]:
    """Position of each class asked for, in the file's order; an id is tried where no class has that name.

    Raises:
        UsageError: the file has no such class.
    """
    ids, names = ([str(channel[part]) for channel in header.channels] for part in (0, 1))
    unknown = [wanted for wanted in classes if wanted not in names and wanted not in ids]
    if unknown:
        raise UsageError(
            f"--classes: expected some of {', '.join(names)}, got {', '.join(unknown)}; name classes of the file"
        )
    chosen = {(names if wanted in names else ids).index(wanted) for wanted in classes}
    return tuple(sorted(chosen)) if classes else tuple(range(len(names)))


def check_header(options: ScoreOptions, header: FeatureHeader) -> None:
    """Refuse options that these features cannot answer.

    Raises:
        UsageError: the mechanism needs other features, or a class box or class values need prompts.
    """
    if options.mechanism is not None:
        wanted, _ = _MECHANISMS[options.mechanism]
        if header.input != wanted:
            raise UsageError(
                f"--mechanism: expected features of --input {wanted} for {options.mechanism}, got {header.input}; "
                f"extract with --input {wanted}"
            )
    if header.prompt != "none":
        return
    asked = {
        f"--quantifier {options.quantifier}": options.quantifier in _OF_CLASS_MAPS,
        "--roi class-box": options.roi == "class-box",
        "--of probabilities": options.of == "probabilities",
    }
    for option, needs_classes in asked.items():
        if needs_classes:
            raise UsageError(
                f"{option}: expected features of classes, got the decoder's own channels (--prompt none); "
                "extract with --prompt mask-box"
            )


def _refuse_without_effect(quantifier: QuantifierName, given: Mapping[str, object], classes: Sequence[str]) -> None:
    spectral = ("preset", "energy", "center", "of", "unfolding", "roi")
    without_effect = {
        *(spectral if not QUANTIFIERS[quantifier].spectral else ()),
        *(("preset", "energy") if quantifier != "auv" else ()),
        *(("aggregate",) if quantifier in _OWN_CASE_VALUE else ()),
    }
    for name, value in given.items():
        if value is not None and name in without_effect:
            right = [
                other
                for other, facts in QUANTIFIERS.items()
                if (other == "auv" if name in {"preset", "energy"} else facts.spectral)
            ]
            cure = "leave it out" if name == "aggregate" else f"it is for {' and '.join(right)}"
            raise UsageError(f"--{name}: expected a quantifier that it changes, got {quantifier}; {cure}")
    if classes and not QUANTIFIERS[quantifier].of_classes:
        raise UsageError(
            f"--classes: expected a quantifier of classes, got {quantifier}; it is one number a case, leave it out"
        )


def _refuse_wrong_mechanism(mechanism: Mechanism | None, classes: Sequence[str]) -> None:
    if mechanism is None:
        return
    _, chosen = _MECHANISMS[mechanism]
    if chosen and not classes:
        raise UsageError(
            f"--mechanism {mechanism}: expected --classes beside it, got none; name the classes that decide"
        )
    if not chosen and classes:
        other = {"a": "b", "c": "d"}[mechanism]
        raise UsageError(
            f"--mechanism {mechanism}: expected all classes, got --classes {','.join(classes)}; leave it out, or use "
            f"{other}"
        )


def _refuse_wrong_covariates(quantifier: QuantifierName, residualise: Sequence[str]) -> None:
    unknown = sorted(set(residualise) - set(COVARIATES))
    if unknown:
        raise UsageError(
            f"--residualise: expected some of {', '.join(COVARIATES)}, got {', '.join(unknown)}; separate them by "
            "commas"
        )
    if quantifier in residualise:
        raise UsageError(
            f"--residualise: expected covariates other than the quantifier, got {quantifier}; nothing would be left "
            "of it"
        )
