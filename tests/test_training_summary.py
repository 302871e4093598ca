"""What a training cost."""

import numpy as np
import torch
from torch import nn

from auvtool.training.noise import NoiseLevels, NoisySegmentationHead
from auvtool.training.training_summary import PeakMemory, training_summary


def test_parameters_are_counted_apart_and_time_is_the_median():
    network = nn.Sequential(nn.Conv3d(1, 4, 3), NoisySegmentationHead(nn.Conv3d(4, 3, 1), n_classes=2))
    memory = PeakMemory(torch.device("cpu"))
    block = np.ones(2**23)  # 64 MiB, touched and given back
    del block
    summary = training_summary(network, NoiseLevels("abc", 2), seconds=[9.0, 0.5, 0.7], memory=memory, n_processes=1)
    assert summary["n_parameters"] == {"network": 4 * 28 + 3 * 5, "noise_head": 2 * 5, "noise_levels": 6}
    assert summary["seconds_per_iteration"] == 0.7
    assert summary["peak_memory_mib"] > 64
    assert (summary["n_iterations_timed"], summary["n_devices"]) == (3, 1)
    assert summary["device"].startswith("cpu")
    assert training_summary(network, None, seconds=[], memory=memory, n_processes=1)["seconds_per_iteration"] is None
