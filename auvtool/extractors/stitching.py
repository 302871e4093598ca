"""Maps of a whole volume from a network that sees a window of it: overlapping windows, averaged in float32.

Nothing of the size of the volume stands in memory twice: the windows' outputs are added up where they belong, in memory
or, past a gigabyte, in a file without a name that vanishes with the process.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
import torch
from jaxtyping import Float

from auvtool.errors import OutputError

_HELD_BYTES = 1 << 30


def evenly_spread_starts(length: int, window: int, overlap: float) -> list[int]:
    """First indices of windows along an axis, evenly spread, neighbours overlapping by at least `overlap` of a window.

    This is how nnU-Net lays them.
    """
    room = length - window
    n_steps = int(np.ceil(room / (window * (1 - overlap))))
    return [round(room / max(1, n_steps) * step) for step in range(n_steps + 1)]


def regular_starts(length: int, window: int, overlap: float) -> list[int]:
    """First indices of windows along an axis, a fixed distance apart but for the last, which ends with the axis.

    This is how MONAI lays them.
    """
    room, step = length - window, max(1, int(window * (1 - overlap)))
    return [*range(0, room, step), room]


def gaussian_importance(window: Sequence[int], *, width: float = 0.125) -> torch.Tensor:
    """Weight of each voxel of a window: a Gaussian about its centre, at least 0.001.

    Args:
        window: its sides.
        width: standard deviation of the Gaussian, as a share of a side.
    """
    weights = torch.ones(())
    for side in window:
        place = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
        weights = weights[..., None] * torch.exp(-(place**2) / (2 * (width * side) ** 2))
    return weights.clamp_min(max(float(weights.min()), 1e-3))


def stitch(
    volume: Float[torch.Tensor, "channel d h w"],
    predict: Callable[[torch.Tensor], torch.Tensor],
    *,
    n_maps: int,
    window: tuple[int, int, int],
    starts: Callable[[int, int, float], list[int]],
    importance: Float[torch.Tensor, "wd wh ww"] | None = None,
    overlap: float = 0.5,
    at_once: int = 1,
) -> Float[np.ndarray, "map d h w"]:
    """What `predict` makes of each window, averaged where windows overlap.

    A volume smaller than the window is padded with zeros on both sides, and the padding is cut off again.

    Args:
        volume: on the device where `predict` wants its windows.
        predict: maps (window, channel, wd, wh, ww) to (window, map, wd, wh, ww).
        n_maps: maps that it gives.
        window: sides of a window.
        starts: `evenly_spread_starts` or `regular_starts`.
        importance: weight of each voxel of a window; None: all alike.
        overlap: of neighbouring windows, as a share of their side.
        at_once: windows given to `predict` together.

    Raises:
        OutputError: the maps do not fit in memory, nor on the disk of temporary files.
    """
    sides = volume.shape[1:]
    before = [max(0, side - n) // 2 for side, n in zip(window, sides, strict=True)]
    after = [max(0, side - n) - low for side, n, low in zip(window, sides, before, strict=True)]
    if any(before) or any(after):
        pads = [pad for low, high in zip(reversed(before), reversed(after), strict=True) for pad in (low, high)]
        volume = torch.nn.functional.pad(volume, pads)
    shape = volume.shape[1:]
    maps, weight = zeros((n_maps, *shape)), np.zeros(tuple(shape), dtype=np.float32)
    share = torch.ones(window) if importance is None else importance
    share_array, share = share.numpy(), share.to(volume.device)
    places = product(*(starts(n, side, overlap) for n, side in zip(shape, window, strict=True)))
    for group in _groups(places, at_once):
        boxes = [
            tuple(slice(first, first + side) for first, side in zip(place, window, strict=True)) for place in group
        ]
        with torch.inference_mode():
            outputs = predict(torch.stack([volume[:, *box] for box in boxes])).float() * share
        for box, output in zip(boxes, outputs.cpu().numpy(), strict=True):
            maps[:, *box] += output
            weight[box] += share_array
    for index in range(n_maps):  # one after the other: they may lie on a disk
        maps[index] /= weight
    inside = tuple(slice(low, low + n) for low, n in zip(before, sides, strict=True))
    return maps[:, *inside]


def zeros(shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """An array of float32 zeros: in memory, or past a gigabyte in a file that vanishes with it.

    Raises:
        OutputError: the disk of temporary files is too small.
    """
    n_bytes = 4 * int(np.prod(shape))
    if n_bytes <= _HELD_BYTES:
        return np.zeros(shape, dtype=np.float32)
    with tempfile.TemporaryFile() as file:
        try:
            # Taken now: a full disk under a mapped file would kill the process later.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, n_bytes)
        except OSError as error:
            raise OutputError(
                f"{tempfile.gettempdir()}: expected {n_bytes / 1e9:.1f} GB for the maps of a case, got "
                f"'{error.strerror}'; free some, or set TMPDIR to a larger disk"
            ) from error
        return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)


def _groups(places: Iterator[tuple[int, ...]], size: int) -> Iterator[list[tuple[int, ...]]]:
    group: list[tuple[int, ...]] = []
    for place in places:
        group.append(place)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
