"""Checkpoints that stock nnU-Net loads: written whole or not at all; `auvtool.nnunet_run` reads them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from auvtool.atomic import atomic_path

# What `nnUNetv2_predict` looks the network's builder up by: its own trainer, which every nnU-Net has.
STOCK_TRAINER = "nnUNetTrainer"
NOISE_KEY = "auv_noise_head"
RUN_KEY = "auv_run"


def save_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write `checkpoint` atomically, numpy scalars as Python numbers, so that it loads with `weights_only=True`.

    Raises:
        OutputError: the disk is full, the folder is read-only, or the like.
    """
    with atomic_path(path, force=True) as temporary:
        torch.save(_plain(dict(checkpoint)), temporary)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    return value
