"""What is measured of masks that boxes prompt slice by slice, whichever network decodes them.

A model's grid is the square or rectangle of pixels in which it draws its masks. A class's map, its features and how its
masks agree with the label are gathered a few slices after the other.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as nn_functional

from auvtool.extractors import Agreement, DecodedChannel
from auvtool.extractors.mask_overlap import MaskOverlap
from auvtool.spectrum import FeatureMoments

_LOOSE = 0.1  # share of its sides that a box is widened by on each side, to see whether the mask holds


class ClassMasks:
    """Masks of one class under the box around it and under a looser one, added in any order of the slices.

    Args:
        masks: of the class in the label (slice, h, w), on the slices that carry it.
        slices: the volume's numbers of these slices.
        region: of the class on the model's grid; see `region_on_grid`.
        n_features: channels of the last decoded layer.
    """

    def __init__(self, masks: np.ndarray, slices: np.ndarray, region: np.ndarray, n_features: int) -> None:
        self._masks, self._slices, self._region = masks, slices, region
        self._logits = np.empty(region.shape, dtype=np.float32)
        self._features = FeatureMoments(n_features)
        self._predicted = np.zeros(masks.shape, dtype=bool)
        self._predicted_ious = np.full(len(masks), np.nan)
        self._tight, self._loose, self._both = MaskOverlap(), MaskOverlap(), MaskOverlap()

    def add(self, rows: slice, logits: torch.Tensor, upscaled: torch.Tensor, predicted_iou: torch.Tensor) -> None:
        """Add masks under the box around the class.

        Args:
            rows: which of the slices.
            logits: (slice, h, w) on the grid.
            upscaled: last decoded layer (slice, feature, h, w) on the grid.
            predicted_iou: by the decoder, one a slice.
        """
        self._logits[rows] = logits.cpu().numpy()
        inside = upscaled.permute(1, 0, 2, 3)[:, torch.from_numpy(self._region[rows])]
        self._features.add(inside.cpu().numpy())
        self._predicted[rows] = _at_label_resolution(logits, self._masks.shape[1:])
        self._tight.add(self._predicted[rows], self._masks[rows])
        self._predicted_ious[rows] = predicted_iou.tolist()

    def add_loose(self, rows: slice, logits: torch.Tensor) -> None:
        """Add masks under the looser box, of slices whose masks under the box around the class are there."""
        around = _at_label_resolution(logits, self._masks.shape[1:])
        self._loose.add(around, self._masks[rows])
        self._both.add(around, self._predicted[rows])

    def channel(self, image_features: np.ndarray) -> DecodedChannel:
        """The class's channel, when all slices are there."""
        agreement = Agreement(
            dice=self._tight.dice(),
            iou=self._tight.iou(),
            predicted_iou=float(np.mean(self._predicted_ious)),
            loose_dice=self._loose.dice(),
            stability=self._both.dice(),
            log_ratio=self._tight.log_ratio(),
            loose_log_ratio=self._loose.log_ratio(),
        )
        return DecodedChannel(self._logits, self._slices, self._region, self._features, agreement, image_features)


def unprompted_channels(
    slices: np.ndarray,
    decode: Callable[[slice], torch.Tensor],
    *,
    grid: tuple[int, int],
    n_channels: int,
    at_once: int,
    held_bytes: int,
    image_features: np.ndarray,
) -> Iterator[DecodedChannel]:
    """The decoder's own channels one after the other.

    Args:
        slices: the volume's slice numbers of the rows.
        decode: the upscaled embedding (slice, channel, h, w) of some rows, without a prompt.
        grid: its rows and columns.
        n_channels: its channels.
        at_once: slices that are decoded together.
        held_bytes: maps held at once; where all of them take more, slices are decoded again.
        image_features: see `DecodedChannel`.
    """
    features = FeatureMoments(n_channels)
    # Decoding again costs a tenth of the encoding, holding all channels of a large volume gigabytes.
    n_held = max(1, min(n_channels, held_bytes // (4 * len(slices) * grid[0] * grid[1])))
    for first in range(0, n_channels, n_held):
        channels = slice(first, min(first + n_held, n_channels))
        maps = np.empty((channels.stop - first, len(slices), *grid), dtype=np.float32)
        for start in range(0, len(slices), at_once):
            rows = slice(start, start + at_once)
            decoded = decode(rows).permute(1, 0, 2, 3).cpu().numpy()
            maps[:, rows] = decoded[channels]
            if first == 0:
                features.add(decoded.reshape(n_channels, -1))
        for one in maps:
            yield DecodedChannel(one, slices, None, features, Agreement(), image_features)


def boxes_on_grid(masks: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Boxes (x0, y0, x1, y1) around non-empty masks (slice, h, w), in pixel centres of the model's grid, float32.

    Args:
        masks: of a class.
        scale: pixels of the grid to a pixel of the slice, along x and y.
    """
    boxes = np.empty((len(masks), 4), dtype=np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        low = np.array([columns[0], rows[0]]) * scale
        high = np.array([columns[-1] + 1, rows[-1] + 1]) * scale - 1  # centre of the last pixel within
        box[:] = *low, *np.maximum(low, high)
    return boxes


def loosened(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes a tenth wider on each side, but within the grid's `height` and `width`."""
    margin = _LOOSE * np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0)
    wide = np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1)
    inside: np.ndarray = np.clip(wide, 0.0, np.array([width - 1, height - 1] * 2, dtype=np.float32))
    return inside.astype(np.float32)


def region_on_grid(masks: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Masks (slice, h, w) on the model's grid: pixels at least half covered.

    A structure too thin for that keeps every pixel that it touches, so that no slice loses its class.
    """
    region = np.empty((len(masks), *grid), dtype=bool)
    for index, mask in enumerate(masks):  # one after the other: as numbers they take four times their memory
        covered = nn_functional.adaptive_avg_pool2d(torch.from_numpy(mask.astype(np.float32))[None], grid)[0].numpy()
        region[index] = covered >= 0.5
        if not region[index].any():
            region[index] = covered > 0
    return region


def _at_label_resolution(logits: torch.Tensor, size: tuple[int, ...]) -> np.ndarray:
    resized = nn_functional.interpolate(logits[:, None], size=size, mode="bilinear", align_corners=False)
    predicted: np.ndarray = (resized[:, 0] > 0).cpu().numpy()
    return predicted
