"""What an encoder made of the last slices: copies of a case that differ in their label share its image."""

import hashlib
from collections.abc import Iterable
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Shaped

Features = TypeVar("Features")


def slice_key(image: Shaped[np.ndarray, "h w"]) -> bytes:
    """Equal for equal slices only: equal bytes in another shape are another slice."""
    return str(image.shape).encode() + hashlib.blake2b(np.ascontiguousarray(image).data).digest()


class SliceMemory(Generic[Features]):
    """Features of at most `n_slices` slices by `slice_key`; the oldest go first."""

    def __init__(self, n_slices: int) -> None:
        self.n_slices = n_slices
        self._held: dict[bytes, Features] = {}

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: bytes) -> Features | None:
        """The features of a slice, if they are held."""
        return self._held.get(key)

    def keep(self, encoded: Iterable[tuple[bytes, Features]]) -> None:
        """Hold the first of these that there is room for; no more are asked for.

        To be called when all slices of a case are looked up, or they would drive one another out.
        """
        self._held.update(islice(encoded, self.n_slices))
        while len(self._held) > self.n_slices:
            del self._held[next(iter(self._held))]

    def clear(self) -> None:
        self._held.clear()
