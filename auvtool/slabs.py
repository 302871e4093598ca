"""Volumes worked through some slices at a time: what is made of them stays small, however many slices there are."""

from collections.abc import Iterator, Sequence

# One slice of 512 x 512: a float64 copy of it takes 2 MiB and stays in the cache of a core.
_N_VOXELS = 1 << 18


def slabs(shape: Sequence[int]) -> Iterator[slice]:
    """Ranges of the first axis, in order and without overlap, of at most 2^18 voxels; at least one index each."""
    per_index = 1
    for length in shape[1:]:
        per_index *= length
    thickness = max(1, _N_VOXELS // max(1, per_index))
    for start in range(0, shape[0], thickness):
        yield slice(start, min(start + thickness, shape[0]))
