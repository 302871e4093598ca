"""Spectra of maps through float64 Gram matrices: of maps in memory, or of maps that arrive slab by slab.

The singular values of an unfolded map Z are the square roots of the eigenvalues of Z Z^T, which is at most a few
hundred rows wide. Values are turned to float64 a chunk at a time, so no float64 copy of a map ever stands in memory.
Singular values above 1e-8 of the largest are right, those below are rounding; summed in float32 the scale of a nearly
constant map would be noise. Everything runs on the CPU, with as many threads as torch is told, or on a CUDA device.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from jaxtyping import Float

from auvtool.spectrum import CENTERINGS, UNFOLDINGS, Centering, Unfolding

Axis: TypeAlias = Literal["d", "h", "w"]
MapShape: TypeAlias = tuple[int, int, int, int]  # map, d, h, w
OneMap: TypeAlias = Float[np.ndarray, "d h w"] | Float[torch.Tensor, "d h w"]
Maps: TypeAlias = Float[np.ndarray, "map d h w"] | Float[torch.Tensor, "map d h w"]
OneSpectra: TypeAlias = dict[tuple[Unfolding, Centering], Float[np.ndarray, " rank"]]
Spectra: TypeAlias = dict[tuple[Unfolding, Centering], Float[np.ndarray, "map rank"]]

_AXES: tuple[Axis, ...] = get_args(Axis)
# Values turned to float64 at once. On a CPU the 768 KiB stay in the L2 cache between conversion and product; a GPU
# wants few and large products (512 MiB).
_CPU_CHUNK_VALUES, _GPU_CHUNK_VALUES = 3 << 15, 1 << 26
# Rows of a Gram matrix computed at once on a CPU, so that most of what is above its diagonal is left out.
_CPU_BLOCK_ROWS = 48
_ORIGIN_COLUMNS = 256  # values of a row whose mean its sums are taken about


def map_spectra(volume: OneMap, *, device: torch.device | str = "cpu") -> OneSpectra:
    """Singular values of the three unfoldings of one map, each centred and not (eq. 2).

    "uncentered" is the singular values of the unfolded map Z itself; "centered" those of Z with each row's mean
    subtracted, whose squares are the eigenvalues of the covariance in eq. 2 times the number of columns. A constant
    row centres to exactly zero.

    Args:
        volume: one decoded map; any float type, any unit, any strides.
        device: where to compute; the map is moved there.

    Returns:
        For each unfolding and centring the min(rows, columns) singular values, largest first, in the map's unit.

    Raises:
        ValueError: the map is empty or holds a NaN or infinity.
    """
    return {key: values[0] for key, values in batch_spectra(volume[None], device=device).items()}


@torch.inference_mode()
def batch_spectra(
    maps: Maps, *, unfoldings: Collection[Unfolding] = UNFOLDINGS, device: torch.device | str = "cpu"
) -> Spectra:
    """`map_spectra` of several maps at once, a row of singular values a map: on a GPU far faster than one by one.

    Raises:
        ValueError: the maps are empty or one of them, counted from 0, holds a NaN or infinity.
    """
    n_maps, *shape = maps.shape
    n_values = math.prod(shape)
    if n_maps * n_values == 0:
        raise ValueError(f"a map of shape {tuple(shape)} has no singular values")
    device = torch.device(device)
    # Made before the loop: small arrays left between its large ones would keep the allocator from reusing these.
    found = {
        (unfolding, centering): np.empty((n_maps, min(rows, n_values // rows)))
        for unfolding, rows in zip(UNFOLDINGS, shape, strict=True)
        if unfolding in unfoldings
        for centering in CENTERINGS
    }
    for indices in _ranges(n_maps, max(1, _chunk_values(device) // n_values)):
        group = _tensor(maps[indices]).to(device)
        for axis, unfolding in enumerate(UNFOLDINGS, start=1):
            if unfolding not in unfoldings:
                continue
            tall = group.shape[axis] ** 2 > n_values
            spectra_of = _tall_spectra if tall else _wide_spectra
            for centering, values in spectra_of(group, axis, first_map=indices.start).items():
                found[unfolding, centering][indices] = values
    return found


def swept_spectra(
    sweep: Callable[[Axis], Iterable[tuple[int, Maps]]],
    shape: MapShape,
    *,
    unfoldings: Collection[Unfolding] = UNFOLDINGS,
    device: torch.device | str = "cpu",
) -> Spectra:
    """`batch_spectra` of maps that never stand in memory whole, from one or two sweeps over them.

    A sweep along w serves d_hw and h_dw. w_dh takes a second one, along h, and only if it is asked for: `SweptMaps`
    says why.

    Args:
        sweep: called with an axis, gives the maps in slabs along that axis: (where the slab starts, its values).
        shape: number of maps, and (d, h, w) of each.
        unfoldings: those wanted.
        device: where to compute; slabs are moved there.

    Raises:
        ValueError: a slab is missing, overlaps another, is surplus, has another shape, or holds a NaN or infinity.
    """
    found: Spectra = {}
    axes: tuple[Axis, Axis] = ("w", "h")
    for axis in axes:
        wanted = [name for name in unfoldings if (axis == "h") == (name == "w_dh")]
        if wanted:
            maps = SweptMaps(shape, axis, wanted, device=device)
            for start, slab in sweep(axis):
                maps.add(slab, start=start)
            found |= maps.spectra()
    return found


class SweptMaps:
    """Gram matrices of maps whose slabs arrive in order along one axis, each seen once.

    Held are one float64 matrix rows x rows a map and unfolding, and one chunk of values; never a slab, never a map.
    Slabs may be of any thickness, each another: the spectra do not depend on it beyond rounding.

    The unfolding whose rows run along the sweep axis cannot be had: its Gram matrix holds the product of every slab
    with every other, so that all slabs would have to be kept. It takes a second sweep along another axis.
    """

    def __init__(
        self, shape: MapShape, axis: Axis, unfoldings: Collection[Unfolding], *, device: torch.device | str = "cpu"
    ) -> None:
        if 0 in shape:
            raise ValueError(f"a map of shape {shape[1:]} has no singular values")
        for unfolding in unfoldings:
            if unfolding[0] == axis:
                raise ValueError(f"a sweep along {axis} cannot give {unfolding}, whose rows run along {axis}")
        self._shape, self._axis = shape, 1 + _AXES.index(axis)
        self._n_seen = 0
        self._matrices = {
            name: _RowSums(shape[0], shape[row_axis], row_axis, device=torch.device(device))
            for row_axis, name in enumerate(UNFOLDINGS, start=1)
            if name in unfoldings
        }

    @torch.inference_mode()
    def add(self, slab: Maps, *, start: int) -> None:
        """Add the slab that begins at index `start` of the sweep axis.

        Raises:
            ValueError: the slab does not begin where the last one ended, reaches past the end of the axis, has another
                shape than the maps, or holds a NaN or infinity.
        """
        end = start + slab.shape[self._axis]
        whole = tuple(end - start if axis == self._axis else n for axis, n in enumerate(self._shape))
        if tuple(slab.shape) != whole or end == start:
            raise ValueError(f"a slab of shape {tuple(slab.shape)} is none of maps of shape {self._shape}")
        if start != self._n_seen or end > self._shape[self._axis]:
            raise ValueError(
                f"expected a slab within [{self._n_seen}, {self._shape[self._axis]}) from {self._n_seen} on, "
                f"got [{start}, {end}): slabs come in order, without gap or overlap"
            )
        for matrices in self._matrices.values():
            matrices.add(_tensor(slab))
        self._n_seen = end

    @torch.inference_mode()
    def spectra(self) -> Spectra:
        """The singular values of every map, as of `batch_spectra`, once all slabs are there.

        Raises:
            ValueError: slabs are missing.
        """
        if self._n_seen != self._shape[self._axis]:
            raise ValueError(f"slabs are missing: {self._n_seen} of {self._shape[self._axis]} indices were seen")
        return {
            (unfolding, centering): values
            for unfolding, matrices in self._matrices.items()
            for centering, values in matrices.spectra().items()
        }


class _RowSums:
    """Row sums and Gram matrices of unfolded maps about an origin near the row means.

    Sums about zero would lose the digits of small variation about a large mean. The origin of a row is the mean of its
    first m values, m = 256 or what there is. It lies within (n / m)^(1/2) standard deviations of the mean of all n, so
    taking the rest of the mean out of the Gram matrix in the end costs at most the digits of 1 + n / m, mostly none.
    A constant row differs from its origin by a few units in the last place, whose sums and squares are exact: it
    centres to exactly zero.
    """

    def __init__(self, n_maps: int, n_rows: int, row_axis: int, *, device: torch.device, first_map: int = 0) -> None:
        self._axis, self._first_map = row_axis, first_map
        self._n_columns = 0
        self._origin = torch.zeros(n_maps, n_rows, 1, dtype=torch.float64, device=device)
        self._sums = torch.zeros_like(self._origin)
        # Only the lower triangle, diagonal included, is right.
        self._grams = torch.zeros(n_maps, n_rows, n_rows, dtype=torch.float64, device=device)

    def add(self, slab: torch.Tensor) -> None:
        """Add the columns of a slab (map, d, h, w) in which the row axis is whole."""
        n_rows = self._grams.shape[1]
        values_per_map = slab[0].numel()
        chunk_values = _chunk_values(self._grams.device)
        block_rows = _CPU_BLOCK_ROWS if self._grams.device.type == "cpu" else n_rows
        split_axis = 2 if self._axis == 1 else 1
        thickness = max(1, chunk_values * slab.shape[split_axis] // values_per_map)
        buffer = torch.empty(0, dtype=torch.float64, device=self._grams.device)
        for maps in _ranges(len(slab), max(1, chunk_values // values_per_map)):
            group, origin, sums = slab[maps], self._origin[maps], self._sums[maps]
            triangle = [(rows, self._grams[maps, rows, : rows.stop]) for rows in _ranges(n_rows, block_rows)]
            for part in _ranges(slab.shape[split_axis], thickness):
                columns = _unfold(group.narrow(split_axis, part.start, part.stop - part.start), self._axis, buffer)
                if self._n_columns == 0 and part.start == 0:
                    origin.copy_(columns[:, :, :_ORIGIN_COLUMNS].mean(dim=2, keepdim=True))
                columns -= origin
                sums += columns.sum(dim=2, keepdim=True)
                for rows, block in triangle:
                    block.baddbmm_(columns[:, rows], columns[:, : rows.stop].mT)
        self._n_columns += values_per_map // n_rows
        # Seen at once rather than at the end: hours of prediction may follow.
        _require_finite(self._grams.diagonal(dim1=1, dim2=2), first_map=self._first_map)

    def spectra(self) -> dict[Centering, np.ndarray]:
        n_maps, n_rows, _ = self._grams.shape
        n = self._n_columns
        # Made before the loop: small arrays left between its large ones would keep the allocator from reusing these.
        values = np.empty((2, n_maps, min(n_rows, n)))
        for maps in _ranges(n_maps, max(1, _chunk_values(self._grams.device) // n_rows**2)):
            shift = self._sums[maps] / n
            means = self._origin[maps] + shift
            centered = torch.baddbmm(self._grams[maps], shift, shift.mT, alpha=-n)
            # Z Z^T = (Z - m 1^T)(Z - m 1^T)^T + n m m^T: adding the means back loses nothing, taking them out would.
            uncentered = torch.baddbmm(centered, means, means.mT, alpha=n)
            _require_finite(uncentered.diagonal(dim1=1, dim2=2), first_map=self._first_map + maps.start)
            eigenvalues = torch.linalg.eigvalsh(torch.stack((centered, uncentered)), UPLO="L")
            # Largest first; what rounding leaves below zero is zero.
            values[:, maps] = eigenvalues.flip(-1)[..., : min(n_rows, n)].clamp(min=0.0).sqrt().cpu().numpy()
        return {"centered": values[0], "uncentered": values[1]}


def _wide_spectra(maps: torch.Tensor, axis: int, *, first_map: int) -> dict[Centering, np.ndarray]:
    """Of maps with at least as many columns as rows."""
    matrices = _RowSums(len(maps), maps.shape[axis], axis, device=maps.device, first_map=first_map)
    matrices.add(maps)
    return matrices.spectra()


def _tall_spectra(maps: torch.Tensor, axis: int, *, first_map: int) -> dict[Centering, np.ndarray]:
    """Of maps with more rows than columns: in float64 they are smaller than their Gram matrices would be."""
    rows = _unfold(maps, axis, torch.empty(0, dtype=torch.float64, device=maps.device))
    _require_finite(rows.square().sum(dim=2), first_map=first_map)
    around_first = rows - rows[:, :, :1]
    centered = around_first - around_first.mean(dim=2, keepdim=True)
    return {
        "centered": torch.linalg.svdvals(centered).cpu().numpy(),
        "uncentered": torch.linalg.svdvals(rows).cpu().numpy(),
    }


def _unfold(maps: torch.Tensor, axis: int, buffer: torch.Tensor) -> torch.Tensor:
    """Maps (map, d, h, w) unfolded along `axis` to (map, row, column), as float64 in the memory of `buffer`."""
    # Reading with the stride of the row axis is slow where that is the smallest: then the copy keeps rows innermost.
    tall = maps.stride(axis) <= min(maps.stride()[1:])
    unfolded = maps.to(buffer.device).movedim(axis, -1 if tall else 1)
    if buffer.numel() < maps.numel():
        buffer.resize_(maps.numel())
    copy = buffer[: maps.numel()].view(unfolded.shape).copy_(unfolded)
    return copy.flatten(1, 2).mT if tall else copy.flatten(2)


def _require_finite(energies: torch.Tensor, *, first_map: int) -> None:
    """Refuse maps of which an energy (map, row) is not finite."""
    finite = torch.isfinite(energies).all(dim=1)
    if not finite.all():
        index = first_map + int(finite.logical_not().nonzero()[0])
        raise ValueError(f"map {index} holds a NaN, an infinity or values whose squares overflow")


def _tensor(maps: Maps) -> torch.Tensor:
    """The same memory as a tensor."""
    if isinstance(maps, torch.Tensor):
        return maps.detach()
    # Torch knows no negative strides, no foreign byte order and no read-only memory; only such an array is copied.
    if min(maps.strides) < 0 or not maps.dtype.isnative or not maps.flags.writeable:
        maps = maps.astype(maps.dtype.newbyteorder("="))
    return torch.from_numpy(maps)


def _ranges(n: int, step: int) -> Iterator[slice]:
    for start in range(0, n, step):
        yield slice(start, min(n, start + step))


def _chunk_values(device: torch.device) -> int:
    return _CPU_CHUNK_VALUES if device.type == "cpu" else _GPU_CHUNK_VALUES
