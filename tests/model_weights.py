"""Weights of networks and volumes that are the same on every machine and in every version of torch.

numpy keeps the stream of `RandomState` as it is for good; figures that authors' own code gave for these weights stand
in the tests.
"""

from collections.abc import Mapping

import numpy as np
import torch


def random_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Uniform about 0 with the spread that keeps activations as large as they are; about 1 for what scales."""
    state = {}
    for seed, (name, shape) in enumerate(sorted(shapes.items())):
        values = np.random.RandomState(seed).random_sample(shape) * 2 - 1
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
            continue
        if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            values = 1 + 0.5 * values
        elif len(shape) > 1:
            values *= (6 / np.prod(shape[1:])) ** 0.5
        state[name] = torch.from_numpy(values.astype(np.float32))
    return state


def random_volume(*sides: int) -> torch.Tensor:
    """A volume (1, 1, d, h, w) in [0, 1]."""
    values = np.random.RandomState(0).random_sample(sides)
    return torch.from_numpy(values.astype(np.float32))[None, None]
