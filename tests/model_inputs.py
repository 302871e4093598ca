"""Cases as extractors get them, made by hand."""

import numpy as np

from auvtool.dataset_json import SemanticClass
from auvtool.extractors import ModelInput
from auvtool.volume import Geometry


def geometry_of(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Geometry:
    """Axial slices as they are displayed: d grows to the head, h to the back, w to the left."""
    directions = np.array([[0, 0, -1], [0, -1, 0], [1, 0, 0]])  # of d, h and w in RAS+
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array(spacing_mm)
    rows = tuple(tuple(float(value) for value in row) for row in affine)
    return Geometry(shape, spacing_mm, "S", rows, rows, shape[::-1])


def model_input(
    image: np.ndarray,
    label: np.ndarray | None,
    classes: tuple[SemanticClass, ...],
    slices: np.ndarray | None = None,
    *,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    normalised: bool = False,
    channel_name: str = "",
) -> ModelInput:
    return ModelInput(
        image,
        label,
        classes,
        np.arange(len(image)) if slices is None else slices,
        channels=image[None],
        geometry=geometry_of(image.shape, spacing_mm),
        normalised=normalised,
        channel_name=channel_name,
    )
