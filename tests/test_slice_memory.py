"""What is held of the slices that were encoded last."""

from collections.abc import Iterator

import numpy as np

from auvtool.extractors.slice_memory import SliceMemory, slice_key


def test_keys_are_of_values_type_and_shape() -> None:
    image = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert slice_key(image) == slice_key(np.asfortranarray(image)) == slice_key(image[::-1][::-1])
    others = (image.reshape(4, 3), image + 1, image.astype(np.float64), image[::-1])
    assert len({slice_key(one) for one in (image, *others)}) == 5


def test_the_first_new_ones_drive_out_the_oldest_and_no_more_are_made() -> None:
    memory: SliceMemory[int] = SliceMemory(3)
    memory.keep([(b"a", 1), (b"b", 2)])
    made = []

    def encoded() -> Iterator[tuple[bytes, int]]:
        for key, value in ((b"c", 3), (b"d", 4), (b"e", 5), (b"f", 6)):
            made.append(key)
            yield key, value

    memory.keep(encoded())
    assert made == [b"c", b"d", b"e"]
    assert [memory.get(key) for key in (b"a", b"b", b"c", b"d", b"e", b"f")] == [None, None, 3, 4, 5, None]
    memory.keep([(b"g", 7)])
    assert [memory.get(key) for key in (b"c", b"d", b"g")] == [None, 4, 7]
    assert len(memory) == 3
    memory.clear()
    assert len(memory) == 0
