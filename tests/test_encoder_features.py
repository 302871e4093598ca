import numpy as np
import torch

from auvtool.extractors.encoder_features import EncoderFeatures


def test_they_are_mean_and_deviation_over_all_windows() -> None:
    windows = torch.randn(5, 3, 2, 4, 2, generator=torch.Generator().manual_seed(0)) * 3 + 10
    features = EncoderFeatures()
    features.add(windows[:2])
    features.add(windows[2:])
    expected = windows.double().numpy().transpose(1, 0, 2, 3, 4).reshape(3, -1)
    np.testing.assert_allclose(features.summary(), [*expected.mean(axis=1), *expected.std(axis=1)], rtol=1e-10)


def test_before_any_window_there_are_none() -> None:
    assert EncoderFeatures().summary().size == 0
