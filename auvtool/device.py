"""The device that --device names."""

from typing import TYPE_CHECKING

import numpy as np

from auvtool.errors import UsageError

if TYPE_CHECKING:
    import torch


def torch_device(name: str) -> "torch.device":
    """The torch device of that name, with its index.

    Raises:
        UsageError: no such name, or this machine has no such device.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device: expected cpu, cuda or cuda:N, got {name}; correct it") from error
    if device.type == "cuda":
        n_devices = torch.cuda.device_count()
        if not torch.cuda.is_available() or (device.index or 0) >= n_devices:
            raise UsageError(f"--device: expected a device of this machine ({n_devices} GPUs), got {name}; use cpu")
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        raise UsageError(f"--device: expected cpu, cuda or cuda:N, got {name}; use cpu")
    return device


def to_device(array: np.ndarray, device: "torch.device") -> "torch.Tensor":
    """The array as a tensor on `device`; to a GPU it goes through pinned memory, while the GPU works on."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
