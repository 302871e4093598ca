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
