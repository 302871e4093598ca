"""Foundation models whose decoded maps are measured: a file a model, named in one table (`auvtool.extractors.facts`).

An extractor is loaded once a process. For a case it yields one decoded channel after the other, so that no more than
one class map stands in memory, and it encodes each slice once whatever the number of classes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Integer

from auvtool.arrays import LabelMap, Volume
from auvtool.dataset_json import SemanticClass
from auvtool.extractors.facts import Prompt, extractor_facts
from auvtool.extractors.model_options import ModelOptions
from auvtool.spectrum import FeatureMoments
from auvtool.volume import Geometry


@dataclass(frozen=True)
class ModelInput:
    """A case as an extractor gets it.

    Attributes:
        image: one image channel, normalised as --input says.
        label: None without prompts; with prompts by class name there may be none.
        classes: the channels to decode, in order; empty without prompts.
        slices: numbers of the slices to decode, ascending; all of them for a model of whole volumes.
        channels: all channels of the image as the files have them.
        geometry: of image, label and channels.
        normalised: whether `image` is normalised by its foreground, and its intensities are those of no scanner.
        channel_name: of `image` in dataset.json: CT, in any case, for Hounsfield units, as nnU-Net has it.
        prompt: what the model is asked with: a label is there by class name too, if the case has one.
    """

    image: Volume
    label: LabelMap | None
    classes: tuple[SemanticClass, ...]
    slices: Integer[np.ndarray, " slice"]
    channels: Float[np.ndarray, "channel d h w"]
    geometry: Geometry
    normalised: bool
    channel_name: str = ""
    prompt: Prompt = "mask-box"


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
            singular value); of a model of whole volumes, row numbers on its own grid.
        region: the class region on that grid, which is the same for all classes; None without a label: everywhere.
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


def load_extractor(name: str, options: ModelOptions, *, device: str) -> Extractor:
    """The extractor `name` with its weights on `device`.

    Raises:
        UsageError: no such extractor, or a device that this machine does not have.
        InputError: the weights cannot be read or are of another network.
    """
    module = import_module(extractor_facts(name).module)
    loaded: Extractor = module.load(options, device=device)
    return loaded


def absent_channel(n_features: int) -> DecodedChannel:
    """A class that no decoded slice carries."""
    nothing = np.empty(0, dtype=np.int64)
    return DecodedChannel(None, nothing, None, FeatureMoments(n_features), Agreement(), np.empty(0))
