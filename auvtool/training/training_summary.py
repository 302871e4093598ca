"""What a training cost: parameters, memory, time (the columns of the paper's Table 6)."""

import platform
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from auvtool.training.noise import NoiseLevels, is_noise_parameter

SUMMARY_NAME = "training_summary.json"
_LINUX_STATUS, _LINUX_CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """The most memory since it was made: of a GPU's tensors, else of this process.

    Where a process cannot forget its peak (only Linux lets it), that of its whole life counts.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif _LINUX_CLEAR.exists():
            try:
                _LINUX_CLEAR.write_text("5", encoding="ascii")
            except OSError:
                return  # a container may forbid it

    def mebibytes(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        if _LINUX_STATUS.exists():
            found = re.search(r"VmHWM:\s+(\d+) kB", _LINUX_STATUS.read_text(encoding="ascii"))
            if found:
                return int(found.group(1)) / 1024
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2**20 if platform.system() == "Darwin" else peak / 1024  # bytes there, kB elsewhere


def training_summary(
    network: nn.Module,
    levels: NoiseLevels | None,
    *,
    seconds: Sequence[float],
    memory: PeakMemory,
    n_processes: int,
) -> dict[str, Any]:
    """The record of `training_summary.json`.

    Args:
        network: with its noise head, if it has one.
        levels: the table e.
        seconds: of each training iteration of this process (a resumed run's last one): forward, backward and step,
            without loading the batch.
        memory: started before the training.
        n_processes: that share a batch, each on a device.
    """
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    on_gpu = memory.device.type == "cuda"
    return {
        "n_parameters": {
            "network": sum(size for name, size in sizes.items() if not is_noise_parameter(name)),
            "noise_head": sum(size for name, size in sizes.items() if is_noise_parameter(name)),
            "noise_levels": 0 if levels is None else levels.values.numel(),
        },
        "peak_memory_mib": round(memory.mebibytes(), 1),
        "peak_memory_of": "GPU tensors of one process" if on_gpu else "one process",
        "seconds_per_iteration": round(statistics.median(seconds), 4) if seconds else None,
        "n_iterations_timed": len(seconds),
        "device": torch.cuda.get_device_name(memory.device) if on_gpu else f"cpu ({platform.machine()})",
        "n_devices": n_processes,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
