import math

import pytest

from auvtool.slabs import slabs


@pytest.mark.parametrize("shape", [(1,), (600_000,), (1, 3000, 3000), (35, 512, 512), (40, 70, 90), (7, 1, 1), (0, 5)])
def test_they_follow_each_other_and_are_small(shape):
    found = list(slabs(shape))
    assert [index for slab in found for index in range(*slab.indices(shape[0]))] == list(range(shape[0]))
    voxels = [(slab.stop - slab.start) * math.prod(shape[1:]) for slab in found]
    assert all(n <= max(1 << 18, math.prod(shape[1:])) for n in voxels)


def test_a_slice_of_512_by_512_is_one_and_small_slices_go_together():
    assert len(list(slabs((35, 512, 512)))) == 35
    assert list(slabs((100, 16, 16))) == [slice(0, 100)]
