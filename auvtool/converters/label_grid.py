"""Image and label of a case whose headers disagree: what is to be written anew so that they lie on one grid."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import nibabel.orientations
import numpy as np

from auvtool.converters import Quirk
from auvtool.converters.header_quirks import axes_of, is_unit
from auvtool.errors import InputError
from auvtool.volume_file import FileGrid, spacing_of

Rewrite: TypeAlias = Literal["nothing", "label", "label-axes", "image"]

_TOLERANCE_MM = 1e-3
_DIFFER = "the label's header is not the image's: the label is written with the image's, voxel on voxel; look at both"
_orientations: Any = nibabel.orientations  # no type information


@dataclass(frozen=True)
class Settlement:
    """How the label of a case comes to lie on its image.

    Attributes:
        rewrite: nothing; the label with the image's header, its voxels by index or on the image's axes; the image with
            the label's header.
        quirk: what was found and done; None where the headers agree.
    """

    rewrite: Rewrite
    quirk: Quirk | None = None


def settle(image: FileGrid, label: FileGrid) -> Settlement:
    """Which header is to be believed.

    In this order: two headers that describe one box along other axes are both right; a header that says nothing (1 mm,
    no rotation) gives way to one that does; else voxels belong together by their index, as for nnU-Net, and the image's
    header is right.

    Raises:
        InputError: the label is not of the image's shape.
    """
    if label.n_channels > 1:
        raise InputError(
            label.path,
            expected="one label a voxel",
            found=f"{label.n_channels} channels",
            cure="save it as a label map",
        )
    if image.shape == label.shape and _agree(image.affine, label.affine):
        if np.allclose(image.zooms_mm, label.zooms_mm):
            return Settlement("nothing")
        return Settlement("label", Quirk("headers-differ", _DIFFER, "voxel sizes beside the affine"))
    turned_shape, turned_affine = _on_axes_of(image, label)
    if turned_shape == image.shape and _agree(image.affine, turned_affine):
        text = "image and label lie on other axes in one place: the label is written on the image's axes"
        return Settlement("label-axes", Quirk("label-axes", text, _axes(image, label)))
    if image.shape != label.shape:
        raise InputError(
            label.path,
            expected=f"the image's shape {'x'.join(map(str, image.shape))}",
            found="x".join(map(str, label.shape)),
            cure="give the label of this very scan, or leave the case out",
        )
    if is_unit(label) and not is_unit(image):
        text = "the label's header says nothing (1 mm, no rotation): the label is written with the image's header"
        return Settlement("label", Quirk("label-header", text))
    if is_unit(image) and not is_unit(label):
        text = "the image's header says nothing (1 mm, no rotation): the image is written with the label's header"
        return Settlement("image", Quirk("image-header", text))
    return Settlement("label", Quirk("headers-differ", _DIFFER, _axes(image, label)))


def to_axes_of(image: FileGrid, label: FileGrid, voxels: np.ndarray) -> np.ndarray:
    """The voxels (i, j, k) of `label` on the axes of `image`."""
    return np.asarray(_orientations.apply_orientation(voxels, _transform(image, label)))


def _transform(image: FileGrid, label: FileGrid) -> np.ndarray:
    own, wanted = (_orientations.io_orientation(grid.affine) for grid in (label, image))
    return np.asarray(_orientations.ornt_transform(own, wanted))


def _on_axes_of(image: FileGrid, label: FileGrid) -> tuple[tuple[int, ...], np.ndarray]:
    transform = _transform(image, label)
    shape = [0, 0, 0]
    for axis, length in enumerate(label.shape):
        shape[int(transform[axis, 0])] = length
    return tuple(shape), label.affine @ _orientations.inv_ornt_aff(transform, label.shape)


def _agree(first: np.ndarray, second: np.ndarray) -> bool:
    """One spacing by nnU-Net's tolerance, one direction, and the same origin within a micrometre."""
    return bool(
        np.allclose(spacing_of(first), spacing_of(second))
        and np.allclose(first[:3, :3], second[:3, :3], rtol=1e-5, atol=1e-4)
        and np.allclose(first[:3, 3], second[:3, 3], rtol=1e-5, atol=_TOLERANCE_MM)
    )


def _axes(image: FileGrid, label: FileGrid) -> str:
    return f"image {''.join(axes_of(image.affine))}, label {''.join(axes_of(label.affine))}"
