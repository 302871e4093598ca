"""Faults of images: each function models one, at one level, and leaves its input as it is."""

import numpy as np
from scipy import ndimage

from auvtool.arrays import Volume


def body_deviation(image: Volume) -> float:
    """Standard deviation of the voxels brighter than the volume's mean, which parts body from air in CT and MRI."""
    return float(image[image > image.mean()].std()) if image.max() > image.min() else 0.0


def add_noise(image: Volume, *, level: float, generator: np.random.Generator) -> Volume:
    """White Gaussian noise of `level` body standard deviations: too low a dose, too short a scan.

    Low, medium, high: 0.1, 0.25, 0.5. A flat image stays as it is.
    """
    noise = generator.standard_normal(image.shape) * (level * body_deviation(image))
    return np.asarray(image + noise, dtype=np.float32)


def blur(image: Volume, *, level: float) -> Volume:
    """In-plane Gaussian blur of `level` voxels (standard deviation): a smooth kernel, or slow motion.

    Low, medium, high: 1, 2, 3.
    """
    return np.asarray(ndimage.gaussian_filter(image.astype(np.float32), (0.0, level, level)), dtype=np.float32)


def thicken_slices(image: Volume, *, level: int) -> Volume:
    """Each `level` neighbouring slices replaced by their mean: a thick-slice series stored on a fine grid.

    A last group may hold fewer slices. Low, medium, high: 2, 4, 5.
    """
    thick = image.astype(np.float32)
    for start in range(0, image.shape[0], level):
        group = slice(start, start + level)
        thick[group] = thick[group].mean(axis=0)
    return thick
