"""Raw and mask-normalised input (figure 3 of the paper; nnU-Net's recipe for CT)."""

from typing import Literal, TypeAlias

import numpy as np

from auvtool.arrays import LabelMap, Volume
from auvtool.slabs import slabs

InputMode: TypeAlias = Literal["raw", "mask"]


def normalize(
    image_channel: Volume, label: LabelMap | None, mode: InputMode, *, ignore_label: int | None = None
) -> Volume:
    """One image channel as the extractor gets it, float32.

    "raw" leaves the intensities alone. "mask" clips to the 0.5 and 99.5 percentiles of the annotated foreground (label
    above 0 and not `ignore_label`), subtracts the foreground's mean and divides by its standard deviation, both taken
    before clipping, as nnU-Net does for CT. The background is transformed too, not zeroed. A constant foreground gives
    a volume of zeros.

    Raises:
        ValueError: "mask" and the label is missing, of another shape, or holds no foreground.
    """
    if mode == "raw":
        return image_channel.astype(np.float32, copy=False)
    if label is None:
        raise ValueError("mask normalisation needs a label, got none")
    if label.shape != image_channel.shape:
        raise ValueError(f"mask normalisation needs a label of shape {image_channel.shape}, got {label.shape}")
    region = label > 0
    if ignore_label is not None:
        region &= label != ignore_label
    foreground = image_channel[region].astype(np.float64)
    if not foreground.size:
        raise ValueError("mask normalisation needs annotated foreground, got an empty label")
    low, high = np.percentile(foreground, (0.5, 99.5))
    spread = float(foreground.std())
    if spread == 0.0:
        return np.zeros(image_channel.shape, dtype=np.float32)
    mean = foreground.mean()
    normalised: Volume = np.empty_like(image_channel, dtype=np.float32)
    for slab in slabs(image_channel.shape):
        normalised[slab] = (np.clip(image_channel[slab].astype(np.float64), low, high) - mean) / spread
    return normalised
