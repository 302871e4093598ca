"""How far the surfaces of a predicted and a reference structure lie apart, by MONAI (extra `monai`)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool

Mask: TypeAlias = Bool[np.ndarray, "i j k"]

_PERCENTILE = 95.0


@dataclass(frozen=True)
class SurfaceMeasures:
    """What to measure: the 95th percentile of distances, the share within a tolerance, or both."""

    hd95: bool = False
    nsd_tolerance_mm: float | None = None

    def __bool__(self) -> bool:
        return self.hd95 or self.nsd_tolerance_mm is not None


NO_SURFACES = SurfaceMeasures()


@dataclass(frozen=True)
class SurfaceAgreement:
    """Measures of one class in one case; None where it was not asked for or is not defined."""

    hd95_mm: float | None = None
    nsd: float | None = None


def surface_agreement(
    reference: Mask, prediction: Mask, *, spacing_mm: Sequence[float], measures: SurfaceMeasures
) -> SurfaceAgreement:
    """Hausdorff distance (95th percentile) and normalised surface distance (NSD, surface Dice) of two masks.

    hd95_mm: for each mask the 95th percentile of the distances from its outermost voxels (those with a face neighbour
    outside; what lies beyond the array is outside) to the nearest of the other mask's; the larger of the two.

    nsd: the share of both surfaces that lies within the tolerance of the other, 0 to 1. Surfaces pass between voxels
    (elements of marching cubes) and count by their area, as in Nikolov et al. (arXiv 1809.04430).

    A mask of one voxel along an axis is measured as a 2D image of the other two.

    Empty masks: nothing is defined where both are empty; where one is, nsd is 0 as Dice is, and there is no distance.

    Raises:
        ValueError: the shapes differ.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"expected masks of one shape, got {reference.shape} and {prediction.shape}")
    filled = [bool(mask.any()) for mask in (reference, prediction)]
    if not all(filled):
        return SurfaceAgreement(nsd=0.0 if any(filled) and measures.nsd_tolerance_mm is not None else None)
    import torch

    from auvtool.class_box import mask_box

    # MONAI calls its own functions in a way that it has deprecated.
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*always_return_as_numpy")
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice  # type: ignore[attr-defined]

    flat = [axis for axis, length in enumerate(reference.shape) if length == 1][:1]
    spacing = [float(length) for axis, length in enumerate(spacing_mm) if axis not in flat]
    box = mask_box(reference | prediction)
    assert box is not None  # noqa: S101  # neither is empty
    # A voxel of background all around: what touches the end of the array has a surface there.
    masks = [np.pad(mask[box].squeeze(axis=tuple(flat)), 1)[None, None] for mask in (reference, prediction)]
    truth, predicted = (torch.from_numpy(mask) for mask in masks)
    hd95 = nsd = None
    if measures.hd95:
        found = compute_hausdorff_distance(
            predicted, truth, include_background=True, percentile=_PERCENTILE, spacing=spacing
        )
        hd95 = float(found[0, 0])
    if measures.nsd_tolerance_mm is not None:
        found = compute_surface_dice(
            predicted,
            truth,
            [measures.nsd_tolerance_mm],
            include_background=True,
            spacing=spacing,
            use_subvoxels=True,
        )
        nsd = float(found[0, 0])
    return SurfaceAgreement(hd95, nsd)
