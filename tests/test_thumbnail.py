import numpy as np
import pytest
import torch

from auvtool.thumbnail import SIDE, standardised_thumbnail, thumbnail


@pytest.mark.parametrize("shape", [(8, 8, 8), (16, 24, 8), (35, 52, 34), (3, 1, 20)])
def test_cells_are_adaptive_means(shape):
    volume = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = torch.nn.functional.adaptive_avg_pool3d(torch.from_numpy(volume)[None], SIDE)[0].numpy()
    assert thumbnail(volume) == pytest.approx(expected.ravel(), abs=1e-5)


def test_standardised():
    cells = standardised_thumbnail(np.random.default_rng(0).normal(5, 3, size=(20, 20, 20)))
    assert (cells.mean(), cells.std()) == pytest.approx((0, 1), abs=1e-5)
    assert not standardised_thumbnail(np.ones((9, 9, 9))).any()


@pytest.mark.parametrize("shape", [(35, 52, 34), (3, 1, 20), (9, 11, 13)])
def test_a_part_counts_as_the_volume_that_is_0_elsewhere(shape):
    mask = np.zeros(shape, dtype=bool)
    box = (slice(1, 3), slice(0, 1), slice(4, 17))
    mask[box] = np.random.default_rng(0).random(mask[box].shape) < 0.5
    found = thumbnail(mask[box], box=(box[0], box[1], slice(4, min(17, shape[2]))), shape=shape)
    assert found == pytest.approx(thumbnail(mask.astype(np.float32)), rel=1e-6)
    assert found.any()
