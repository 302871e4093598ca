"""Checkpoints that stock nnU-Net loads: written whole or not at all, read without running code from them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from auvtool.atomic import atomic_path
from auvtool.checkpoint import load_checkpoint
from auvtool.errors import InputError

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


def read_checkpoint(path: Path, *, device: torch.device | str = "cpu", trust: bool = False) -> dict[str, Any]:
    """A nnU-Net checkpoint, its tensors on `device`.

    Nothing but tensors, plain values and the numpy scalars of nnU-Net's log is unpickled, unless it is to be trusted: a
    checkpoint from elsewhere could otherwise run any code.

    Raises:
        InputError: the file is missing, broken, holds other objects, or is no nnU-Net checkpoint.
    """
    checkpoint = load_checkpoint(path, device=device, trust=trust)
    if not isinstance(checkpoint, dict) or not {"network_weights", "init_args", "trainer_name"} <= set(checkpoint):
        raise InputError(path, expected="a checkpoint of nnU-Net", found="another file", cure="name a nnU-Net run")
    return dict(checkpoint)


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
