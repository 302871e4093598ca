"""Checkpoints that stock nnU-Net loads: written whole or not at all; `auvtool.nnunet_run` reads them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from auvtool.atomic import atomic_path, require_writable

# What `nnUNetv2_predict` looks the network's builder up by: its own trainer, which every nnU-Net has.
STOCK_TRAINER = "nnUNetTrainer"
NOISE_KEY = "auv_noise_head"
RUN_KEY = "auv_run"


def save_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write `checkpoint` atomically, numpy scalars as Python numbers, so that it loads with `weights_only=True`.

    Raises:
        OutputError: the disk is full, the folder is read-only, or the like.
    """
    with atomic_path(path, force=True) as temporary, temporary.open("wb") as file:
        try:
            torch.save(plain(dict(checkpoint)), file)
        except RuntimeError:  # of the archive, in which the disk's own error is lost
            require_writable(path.parent)
            raise


def plain(value: Any) -> Any:
    """The same with Python's numbers and lists in the place of numpy's, in nested containers."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value
