"""Windows laid and averaged; the oracles are MONAI's sliding window and nnU-Net's positions."""

import numpy as np
import pytest
import torch

from auvtool.errors import OutputError
from auvtool.extractors import stitching
from auvtool.extractors.stitching import evenly_spread_starts, gaussian_importance, regular_starts, stitch, zeros


def predict(windows: torch.Tensor) -> torch.Tensor:
    """Two maps that depend on where in the window a voxel lies."""
    place = torch.linspace(0, 1, windows.shape[-1])
    return torch.cat([windows * place, windows.flip(2) + 1], dim=1)


@pytest.mark.parametrize("shape", [(20, 17, 33), (16, 16, 16), (7, 40, 12)])
@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize("at_once", [1, 3])
def test_it_is_monais_sliding_window(shape: tuple[int, int, int], mode: str, at_once: int) -> None:
    from monai.inferers import sliding_window_inference

    window = (16, 8, 12)
    volume = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    expected = sliding_window_inference(volume[None], window, 2, predict, overlap=0.5, mode=mode)[0].numpy()
    importance = gaussian_importance(window) if mode == "gaussian" else None
    found = stitch(
        volume, predict, n_maps=2, window=window, starts=regular_starts, importance=importance, at_once=at_once
    )
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("length", [16, 17, 31, 32, 100])
@pytest.mark.parametrize("overlap", [0.5, 0.25])
def test_windows_lie_where_nnunet_lays_them(length: int, overlap: float) -> None:
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

    expected = compute_steps_for_sliding_window((length,), (16,), 1 - overlap)[0]
    assert evenly_spread_starts(length, 16, overlap) == expected


def test_the_width_of_the_gaussian_is_monais_sigma_scale() -> None:
    from monai.data.utils import compute_importance_map

    for width in (0.125, 0.25):
        expected = compute_importance_map((16, 8, 12), mode="gaussian", sigma_scale=width)
        torch.testing.assert_close(gaussian_importance((16, 8, 12), width=width), expected)


def test_large_maps_lie_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = torch.randn(1, 9, 9, 9, generator=torch.Generator().manual_seed(0))
    options = {"n_maps": 2, "window": (4, 4, 4), "starts": regular_starts}
    held = stitch(volume, predict, **options)
    monkeypatch.setattr(stitching, "_HELD_BYTES", 100)
    filed = stitch(volume, predict, **options)
    assert isinstance(filed, np.memmap)
    np.testing.assert_array_equal(held, filed)


def test_a_disk_that_is_too_small_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stitching, "_HELD_BYTES", 100)
    monkeypatch.setattr(stitching.os, "posix_fallocate", full)
    with pytest.raises(OutputError, match="No space left on device"):
        zeros((10, 10, 10))
