"""Slices as MedSAM2's authors feed them: 8-bit grey from a window, a square by Pillow, ImageNet's mean and deviation.

CT is cut to a window and scaled to 0 to 255. Other images are cut to the 0.5 and 99.5 percentiles of the volume's
voxels above 0, and what is 0 stays 0. Both lose the fraction. The slice becomes a square whatever its sides.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from auvtool.extractors import ModelInput

# Soft tissue of the abdomen, in Hounsfield units. The authors take a window for each scan and give no table.
SOFT_TISSUE = (-160.0, 240.0)
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class GreyScale:
    """Which intensities become black and white, and whether 0 is black whatever they are."""

    low: float
    high: float
    zero_is_black: bool = False

    def grey(self, slices: np.ndarray) -> UInt8[np.ndarray, "slice h w"]:
        """Slices as 8-bit grey; black where low and high are the same."""
        if not self.high > self.low:
            return np.zeros(slices.shape, dtype=np.uint8)
        cut = np.clip(slices.astype(np.float64), self.low, self.high)
        grey = ((cut - self.low) / (self.high - self.low) * 255.0).astype(np.uint8)
        if self.zero_is_black:
            grey[slices == 0] = 0
        return grey


def grey_scale(case: ModelInput, window: tuple[float, float] | None) -> GreyScale:
    """How the intensities of a case become grey.

    Input that is normalised by its foreground is cut to the foreground's 0.5 and 99.5 percentiles already: its extremes
    become black and white. Else a given window counts, then `SOFT_TISSUE` for CT, then the percentiles.
    """
    if case.normalised:
        return GreyScale(float(case.image.min()), float(case.image.max()))
    if window is not None:
        return GreyScale(*window)
    if case.channel_name.casefold() == "ct":
        return GreyScale(*SOFT_TISSUE)
    positive = case.image[case.image > 0]
    low, high = np.percentile(positive if positive.size else case.image, (0.5, 99.5))
    return GreyScale(float(low), float(high), zero_is_black=True)


def model_images(grey: UInt8[np.ndarray, "slice h w"], size: int) -> Float[torch.Tensor, "slice 3 size size"]:
    """Slices as the encoder gets them."""
    square = (size, size)
    resized = np.stack(
        [
            one if one.shape == square else np.asarray(Image.fromarray(one).resize(square, Image.Resampling.BICUBIC))
            for one in grey
        ]
    )
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _DEVIATION))
    return (torch.from_numpy(resized)[:, None].float() / 255 - mean) / deviation
