"""What is measured of a case, and what made it: the content of a feature file, whose layout feature_store has."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self, TypeAlias, get_args

import numpy as np
from jaxtyping import Float, Int64

from auvtool.case_evidence import CaseEvidence
from auvtool.json_text import parse_json
from auvtool.spectrum import Centering, Unfolding

Status: TypeAlias = Literal["ok", "absent", "flat"]
MapKind: TypeAlias = Literal["logits", "probabilities"]
Roi: TypeAlias = Literal["volume", "class-box"]
SpectrumKey: TypeAlias = tuple[Roi, MapKind, Unfolding, Centering]
MAP_KINDS: tuple[MapKind, ...] = get_args(MapKind)
ROIS: tuple[Roi, ...] = get_args(Roi)
AGREEMENT_COLUMNS = ("dice", "iou", "predicted_iou", "loose_dice", "stability", "log_ratio", "loose_log_ratio")


@dataclass(frozen=True)
class FeatureHeader:
    """What made the features. Files with equal fingerprints may be merged, and a shard with another one is redone.

    Attributes:
        extractor: name of the extractor, as --extractor takes it.
        extractor_version: revision of our code for it and of the package that its network comes from.
        weights_sha256: of the weights file; None without weights.
        prompt: where prompts came from, "mask-box" or "none".
        input: "raw" or "mask", see normalize.
        dataset: name of the data set.
        channels: (class id, name) of each channel in the order of every (channel, ...) array.
        options: all other options that change a number.
    """

    extractor: str
    extractor_version: str
    weights_sha256: str | None
    prompt: str
    input: str
    dataset: str
    channels: tuple[tuple[int, str], ...]
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all of the above."""
        return hashlib.sha256(json.dumps(self._record(), sort_keys=True).encode()).hexdigest()

    @property
    def extraction_fingerprint(self) -> str:
        """Of what moves a value, without the data set's name and what is stored beside: equal ones compare."""
        options = {name: value for name, value in self.options.items() if name != "store"}
        record = {**self._record(), "dataset": "", "options": options}
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    @property
    def extraction(self) -> str:
        """The extraction in a few words: scores of equal ones compare."""
        return f"{self.extractor} {self.prompt} {self.input} {self.extraction_fingerprint[:8]}"

    def to_json(self) -> str:
        return json.dumps({**self._record(), "fingerprint": self.fingerprint}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The header that `to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: the text is no such header.
        """
        record = parse_json(text)
        return cls(
            extractor=str(record["extractor"]),
            extractor_version=str(record["extractor_version"]),
            weights_sha256=record["weights_sha256"],
            prompt=str(record["prompt"]),
            input=str(record["input"]),
            dataset=str(record["dataset"]),
            channels=tuple((int(class_id), str(label)) for class_id, label in record["channels"]),
            options=dict(record["options"]),
        )

    def _record(self) -> dict[str, object]:
        return {
            "extractor": self.extractor,
            "extractor_version": self.extractor_version,
            "weights_sha256": self.weights_sha256,
            "prompt": self.prompt,
            "input": self.input,
            "dataset": self.dataset,
            "channels": [list(channel) for channel in self.channels],
            "options": dict(self.options),
        }


@dataclass(frozen=True)
class CaseFeatures:
    """Features of one case; every array's first axis and every tuple runs over the channels of the header.

    Attributes:
        status: "absent": the class is not in this case; "flat": its map has no variation.
        n_slices: slices that the map was decoded on.
        n_voxels: voxels of the class region in the whole case; volume_ml the same in ml.
        n_feature_voxels: voxels of the class region on the decoder's grid, behind channel_spectra and class_features.
        spectra: (roi, logits or probabilities, unfolding, centering) -> the singular values of each channel's map,
            largest first, empty where absent. Empty with --store maps.
        channel_spectra: centering -> singular values of the (feature x voxel) matrix within the class region, per case.
        class_features: mean over the class region of the decoder's last features.
        voxel_statistics: statistics of the input image within the class region; nan where absent.
        agreement: of the prompted mask with the label: Dice, IoU, and the IoU that the decoder predicts; Dice of the
            mask under a looser box with the label, and with the mask under the box itself; log of the volume of either
            mask to that of the label.
        evidence: see case_evidence.
        log_residual_probability: see `ResidualProbability.mean_log`; nan without prompts.
        foreground_ml: volume of all classes together, each voxel once; without prompts of the whole volume.
        shape: (d, h, w) of the volume, spacing_mm in the same order.
    """

    case_id: str
    class_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    status: tuple[Status, ...]
    n_slices: Int64[np.ndarray, " channel"]
    n_voxels: Int64[np.ndarray, " channel"]
    n_feature_voxels: Int64[np.ndarray, " channel"]
    volume_ml: Float[np.ndarray, " channel"]
    spectra: Mapping[SpectrumKey, list[Float[np.ndarray, " rank"]]]
    channel_spectra: Mapping[Centering, Float[np.ndarray, "channel feature"]]
    class_features: Float[np.ndarray, "channel feature"]
    voxel_statistics: Float[np.ndarray, "channel statistic"]
    statistic_names: tuple[str, ...]
    agreement: Float[np.ndarray, "channel 7"]
    evidence: CaseEvidence
    log_residual_probability: float
    foreground_ml: float
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    slice_axis: str
