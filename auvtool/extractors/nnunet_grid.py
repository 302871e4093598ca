"""A case on the grid of a trained nnU-Net: brought there as nnU-Net does it, and maps seen from there as slices.

nnU-Net reads a file with its last axis first, (z, y, x), or brings it to RAS before, as the reader in its plans says;
then it permutes the axes (transpose_forward), cuts off what is zero all around, normalises each channel and resamples
to the network's spacing. Nothing of that is undone here but the order and direction of the axes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer

from auvtool.errors import InputError
from auvtool.volume import Geometry, view_on_axes
from auvtool.volume_file import spacing_of

# nnU-Net's readers: whether they keep the axes of the file.
_KEEPS_FILE_AXES = {
    "SimpleITKIO": True,
    "NibabelIO": True,
    "Tiff3DIO": True,
    "NaturalImage2DIO": True,
    "SimpleITKIOWithReorient": False,
    "NibabelIOWithReorient": False,
}


@dataclass(frozen=True)
class Preprocessing:
    """What nnU-Net does to an image before a network sees it.

    Attributes:
        plans: nnU-Net's PlansManager.
        configuration: its ConfigurationManager.
        dataset_json: of the data set that the network was trained on.
    """

    plans: Any
    configuration: Any
    dataset_json: dict[str, Any]

    def check_reader(self, where: Path) -> None:
        """Raise InputError if the plans name a reader that is not nnU-Net's: its axes are not known."""
        reader = self.plans.plans.get("image_reader_writer")
        if reader not in _KEEPS_FILE_AXES:
            raise InputError(
                where,
                expected=f"image_reader_writer to be one of {', '.join(_KEEPS_FILE_AXES)}",
                found=reader,
                cure="train with a reader of nnU-Net's",
            )

    def run(
        self, channels: Float[np.ndarray, "channel d h w"], geometry: Geometry
    ) -> tuple[Float[np.ndarray, "channel _ _ _"], "NetworkGrid"]:
        """An image as the network sees it, and where that lies."""
        keeps_file_axes = _KEEPS_FILE_AXES[self.plans.plans["image_reader_writer"]]
        like = np.asarray(geometry.file_affine) if keeps_file_axes else np.eye(4)
        views, affine = view_on_axes(channels, np.asarray(geometry.affine), like)
        image = np.stack([channel.transpose(2, 1, 0) for channel in views])
        spacing = [float(length) for length in spacing_of(affine)[::-1]]
        preprocessor = self.configuration.preprocessor_class(verbose=False)
        data, _, properties = preprocessor.run_case_npy(
            image, None, {"spacing": spacing}, self.plans, self.configuration, self.dataset_json
        )
        grid = NetworkGrid(
            geometry=geometry,
            axes=affine,
            order=tuple(self.plans.transpose_forward),
            box=tuple(slice(low, high) for low, high in properties["bbox_used_for_cropping"]),
            spacing_mm=tuple(spacing[axis] for axis in self.plans.transpose_forward),
            shape=data.shape[1:],
            configuration=self.configuration,
        )
        return np.asarray(data, dtype=np.float32), grid


@dataclass(frozen=True)
class NetworkGrid:
    """The voxels of a case as a network sees them.

    Attributes:
        geometry: of the case.
        axes: affine of the axes that nnU-Net's reader has, last one first.
        order: of these axes in the network.
        box: what is left of the volume, in the network's axes.
        spacing_mm: of the volume, in the network's axes.
        shape: after resampling.
        configuration: nnU-Net's ConfigurationManager.
    """

    geometry: Geometry
    axes: np.ndarray
    order: tuple[int, ...]
    box: tuple[slice, ...]
    spacing_mm: tuple[float, ...]
    shape: tuple[int, int, int]
    configuration: Any

    def label(self, label: Integer[np.ndarray, "d h w"]) -> "GridLabel":
        """A label map of the case on this grid, by nnU-Net's own resampling of labels."""
        view = view_on_axes(label[None], np.asarray(self.geometry.affine), self.axes)[0][0]
        cropped = view.transpose(2, 1, 0).transpose(self.order)[self.box]
        # As in nnU-Net's preprocessor: a 2D network keeps the spacing between slices.
        wanted = [float(length) for length in self.configuration.spacing]
        wanted = [*self.spacing_mm[: 3 - len(wanted)], *wanted]
        resampled = self.configuration.resampling_fn_seg(
            np.ascontiguousarray(cropped[None]), self.shape, list(self.spacing_mm), wanted
        )
        return GridLabel(cropped, resampled[0])

    def as_slices(self, one: np.ndarray) -> np.ndarray:
        """A map on this grid with its axes as the case's (d, h, w); without a copy."""
        on_axes = one.transpose(np.argsort(self.order)).transpose(2, 1, 0)
        seen: np.ndarray = view_on_axes(on_axes[None], self.axes, np.asarray(self.geometry.affine))[0][0]
        return seen


@dataclass(frozen=True)
class GridLabel:
    """A label map before and after it is resampled."""

    cropped: np.ndarray
    resampled: np.ndarray

    def region(self, labels: tuple[int, ...]) -> Bool[np.ndarray, "_ _ _"] | None:
        """Where a class is; None where the label has nothing of it within what the network sees.

        A structure that resampling loses keeps the voxels nearest to its own.
        """
        found: np.ndarray = np.isin(self.resampled, labels)
        if not found.any():
            places = np.argwhere(np.isin(self.cropped, labels))
            if not len(places):
                return None
            scale = np.array(self.resampled.shape) / np.array(self.cropped.shape)
            found[tuple(((places + 0.5) * scale).astype(np.int64).T)] = True
        return found
