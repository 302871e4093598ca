"""The control: intensities themselves as decoded maps.

What it finds needs no foundation model. A class map is the image on the slices that carry the class; without prompts
the one channel is the whole volume.
"""

from collections.abc import Iterator

import numpy as np

from auvtool.device import torch_device
from auvtool.errors import UsageError
from auvtool.extractors import Agreement, DecodedChannel, ModelInput, absent_channel
from auvtool.extractors.model_options import ModelOptions
from auvtool.spectrum import FeatureMoments


def load(options: ModelOptions, *, device: str) -> "IdentityExtractor":
    """The identity; it has no weights, and a device only computes the spectra of its maps."""
    torch_device(device)
    if options.weights is not None:
        raise UsageError(f"--weights: expected none for the extractor identity, got {options.weights}; leave it out")
    return IdentityExtractor()


class IdentityExtractor:
    """Intensities as maps and as features."""

    def decode(self, case: ModelInput) -> Iterator[DecodedChannel]:
        """See `Extractor.decode`."""
        if case.label is None:
            volume = case.image[case.slices]
            yield _channel(volume, case.slices, None)
            return
        for semantic_class in case.classes:
            region = np.isin(case.label[case.slices], semantic_class.labels)
            carrying = region.any(axis=(1, 2))
            if not carrying.any():
                yield absent_channel(1)
                continue
            slices = case.slices[carrying]
            yield _channel(case.image[slices], slices, region[carrying])


def _channel(intensities: np.ndarray, slices: np.ndarray, region: np.ndarray | None) -> DecodedChannel:
    features = FeatureMoments(1)
    features.add((intensities.ravel() if region is None else intensities[region])[None])
    return DecodedChannel(intensities, slices, region, features, Agreement(), np.empty(0))
